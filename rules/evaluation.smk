# Scores, by the rules of each dataset's publisher.


rule score_run:
    """Score the label maps of one run: J and F per video, object and frame, and the means."""
    input:
        manifest=f"{RESULTS}/{{dataset}}/manifest.json",
        shards=lambda wildcards: run_of(wildcards).shard_records,
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
        protocol=lambda wildcards: run_of(wildcards).protocol,
        code=lambda wildcards: run_of(wildcards).evaluation_code,
    shell:
        'python "$VOSFLOW"/scripts/evaluate.py --manifest {input.manifest:q} --predictions {params.folder:q}/masks'
        " --protocol {params.protocol} --workers {threads} --output {params.folder:q} > {log:q} 2>&1"
