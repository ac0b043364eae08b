# Weights that are trained here. Not part of a study: asked for by name, `snakemake train_demo_sam2`.


rule train_demo_sam2:
    """Train the demo's SAM 2 from scratch on clips of the demo generator with other seeds; resumes after a kill."""
    output:
        f"{DATA}/training/sam2_demo.safetensors",
    log:
        f"{DATA}/logs/train_demo_sam2.log",
    benchmark:
        f"{DATA}/logs/train_demo_sam2.benchmark.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=4_000,
        runtime=360,
    params:
        work=f"{DATA}/training/sam2_demo.work.pt",
        code=code_digest("vosflow.training.demo_sam2"),
    shell:
        'OMP_NUM_THREADS={threads} python "$VOSFLOW"/scripts/train_demo_sam2.py --work {params.work:q} --export {output:q}'
        " 2>&1 | tee {log:q}"
