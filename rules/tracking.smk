# Label maps. Snakemake sees one small record per shard, whose name holds a digest of the method: other settings,
# weights or code are another record. The masks themselves are not declared, because Snakemake would delete them when
# a job fails, and with them the finished videos of that shard.


rule track_shard:
    """Track one shard of a run's videos on a GPU; videos that are finished with the same key are skipped."""
    input:
        manifest=f"{RESULTS}/{{dataset}}/manifest.json",
        checkpoint=lambda wildcards: run_of(wildcards).checkpoint_inputs,
    output:
        f"{RESULTS}/{{dataset}}/{{run}}/shards/{{shard}}-of-{{shards}}-{{made}}.json",
    log:
        f"{RESULTS}/{{dataset}}/{{run}}/logs/track_{{shard}}-of-{{shards}}-{{made}}.log",
    benchmark:
        f"{RESULTS}/{{dataset}}/{{run}}/logs/track_{{shard}}-of-{{shards}}-{{made}}.benchmark.tsv"
    wildcard_constraints:
        run=study.run_pattern_by_device(gpus=1),
    conda:
        CONDA
    threads: study.config.execution.threads
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 8_000 * attempt,
        runtime=lambda wildcards, attempt: run_of(wildcards).time_limit * attempt,
    params:
        method=lambda wildcards: canonical_json(run_of(wildcards).method),
        device=lambda wildcards: run_of(wildcards).device,
        folder=lambda wildcards: run_of(wildcards).folder,
    shell:
        'python "$VOSFLOW"/scripts/track_shard.py --manifest {input.manifest:q} --method {params.method:q}'
        " --shard {wildcards.shard} --shards {wildcards.shards} --folder {params.folder:q} --record {output:q}"
        ' --device {params.device} --threads {threads} --cache "$VOSFLOW_CACHE"'
        ' --cache_gigabytes "$VOSFLOW_CACHE_GIGABYTES" 2>&1 | tee {log:q}'


# Its own rule, so that a profile can send it elsewhere and ask for a kind of GPU without asking for one here.
use rule track_shard as track_shard_on_cpu with:
    wildcard_constraints:
        run=study.run_pattern_by_device(gpus=0),
    resources:
        mem_mb=lambda wildcards, attempt: 8_000 * attempt,
        runtime=lambda wildcards, attempt: run_of(wildcards).time_limit * attempt,


rule describe_run:
    """Gather what a finished run was made from and what it cost."""
    input:
        manifest=f"{RESULTS}/{{dataset}}/manifest.json",
        shards=lambda wildcards: run_of(wildcards).shard_records,
    output:
        f"{RESULTS}/{{dataset}}/{{run}}/run.json",
    log:
        f"{RESULTS}/{{dataset}}/{{run}}/logs/describe_run.log",
    benchmark:
        f"{RESULTS}/{{dataset}}/{{run}}/logs/describe_run.benchmark.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=1_000,
        runtime=10,
    params:
        description=lambda wildcards: canonical_json(run_of(wildcards).description),
        folder=lambda wildcards: run_of(wildcards).folder,
        code=code_digest("vosflow.describe"),
    shell:
        'python "$VOSFLOW"/scripts/describe_run.py --manifest {input.manifest:q} --description {params.description:q}'
        " --folder {params.folder:q} --output {output:q} > {log:q} 2>&1"
