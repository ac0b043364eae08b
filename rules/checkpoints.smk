# Weights from the catalog. What is part of this repository, or named in the config's `paths`, is not fetched. Pickles
# are converted, in memory.


localrules:
    fetch_checkpoint,


rule fetch_checkpoint:
    """Fetch the weights of one checkpoint, or check those put there by hand: by size and hash; convert pickles."""
    output:
        f"{DATA}/checkpoints/{{file}}.fetched",
    log:
        f"{DATA}/logs/fetch_{{file}}.log",
    benchmark:
        f"{DATA}/logs/fetch_{{file}}.benchmark.tsv"
    retries: 0
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=2_000,
        runtime=240,
    params:
        checkpoint=lambda wildcards: checkpoint_id(wildcards.file),
        identity=lambda wildcards: checkpoint_identity(checkpoint_id(wildcards.file)),
        data=lambda wildcards: DATA,
    shell:
        'python "$VOSFLOW"/scripts/fetch.py --checkpoint {params.checkpoint} --data {params.data:q} --marker {output:q}'
        " 2>&1 | tee {log:q}"
