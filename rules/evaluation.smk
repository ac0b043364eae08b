# Scores, by the rules of each dataset's publisher.


rule gather_instances:
    """Gather the objects that a run proposed, with their scores, into one file in the format of YouTube-VIS."""
    input:
        manifest=f"{RESULTS}/{{dataset}}/manifest.json",
        shards=lambda wildcards: run_of(wildcards).shard_records,
    output:
        f"{RESULTS}/{{dataset}}/{{run}}/results.json",
    log:
        f"{RESULTS}/{{dataset}}/{{run}}/logs/gather_instances.log",
    benchmark:
        f"{RESULTS}/{{dataset}}/{{run}}/logs/gather_instances.benchmark.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=2_000,
        runtime=30,
    params:
        folder=lambda wildcards: run_of(wildcards).folder,
        code=code_digest("vosflow.instances"),
    shell:
        'python "$VOSFLOW"/scripts/gather_instances.py --manifest {input.manifest:q} --masks {params.folder:q}/masks'
        " --output {output:q} > {log:q} 2>&1"


rule score_run:
    """Score the masks of one run: J and F per video, object and frame, and the means; or AP and AR of instances."""
    input:
        manifest=f"{RESULTS}/{{dataset}}/manifest.json",
        shards=lambda wildcards: run_of(wildcards).shard_records,
        instances=lambda wildcards: run_of(wildcards).prediction_files,
    output:
        scores=f"{RESULTS}/{{dataset}}/{{run}}/scores.csv",
        per_object=f"{RESULTS}/{{dataset}}/{{run}}/per_object_results.csv",
        means=f"{RESULTS}/{{dataset}}/{{run}}/global_results.csv",
    log:
        f"{RESULTS}/{{dataset}}/{{run}}/logs/score_run.log",
    benchmark:
        f"{RESULTS}/{{dataset}}/{{run}}/logs/score_run.benchmark.tsv"
    conda:
        CONDA
    threads: study.config.execution.evaluation_workers
    resources:
        mem_mb=4_000,
        runtime=60,
    params:
        folder=lambda wildcards: run_of(wildcards).folder,
        predictions=lambda wildcards: run_of(wildcards).predictions,
        options=lambda wildcards: run_of(wildcards).scoring_options,
        protocol=lambda wildcards: run_of(wildcards).protocol,
        code=lambda wildcards: run_of(wildcards).evaluation_code,
    shell:
        'python "$VOSFLOW"/scripts/evaluate.py --manifest {input.manifest:q} --predictions {params.predictions:q}'
        " --protocol {params.protocol} {params.options} --workers {threads} --output {params.folder:q} > {log:q} 2>&1"
