# Submissions: what a server takes of runs without public ground truth, checked before it is written.


rule write_submission:
    """Check the masks of one run against what the server of its dataset wants, and pack them."""
    input:
        manifest=f"{RESULTS}/{{dataset}}/manifest.json",
        shards=lambda wildcards: run_of(wildcards).shard_records,
        instances=lambda wildcards: run_of(wildcards).prediction_files,
    output:
        f"{RESULTS}/{{dataset}}/{{run}}/submission.zip",
    log:
        f"{RESULTS}/{{dataset}}/{{run}}/logs/write_submission.log",
    benchmark:
        f"{RESULTS}/{{dataset}}/{{run}}/logs/write_submission.benchmark.tsv"
    conda:
        CONDA
    threads: study.config.execution.evaluation_workers
    resources:
        mem_mb=2_000,
        runtime=60,
    params:
        dataset=lambda wildcards: "/".join(
            (run_of(wildcards).dataset.dataset, run_of(wildcards).dataset.split)
        ),
        predictions=lambda wildcards: run_of(wildcards).predictions,
        code=code_digest("vosflow.submission.pack"),
    shell:
        'python "$VOSFLOW"/scripts/submit.py --dataset {params.dataset} --manifest {input.manifest:q}'
        " --predictions {params.predictions:q} --output {output:q} --allow-empty-objects --workers {threads}"
        " > {log:q} 2>&1"
