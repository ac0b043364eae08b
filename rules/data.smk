# Datasets: made or fetched, extracted, and described by a manifest. Fetching runs where Snakemake itself runs: on a
# cluster, the login node is the one with internet. What is declared of a download is a small marker: Snakemake deletes
# declared outputs before it runs a job again, and archives are too large for that. Fetching tries again by itself where
# that helps; a job that failed is not repeated (Google Drive counts every attempt).


localrules:
    fetch_archive,


rule make_demo_dataset:
    """Draw the demo dataset from its seed."""
    output:
        f"{DATA}/datasets/demo.json",
    log:
        f"{DATA}/logs/make_demo_dataset.log",
    benchmark:
        f"{DATA}/logs/make_demo_dataset.benchmark.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=1_000,
        runtime=10,
    params:
        folder=lambda wildcards, output: output[0].removesuffix(".json"),
        code=code_digest("vosflow.datasets.demo"),
    shell:
        'python "$VOSFLOW"/scripts/make_demo_dataset.py --output {params.folder:q} --marker {output:q} > {log:q} 2>&1'


rule fetch_archive:
    """Fetch one file of a dataset, or check one that was put there by hand: by size and hash."""
    output:
        f"{DATA}/downloads/{{file}}.fetched",
    log:
        f"{DATA}/logs/fetch_{{file}}.log",
    benchmark:
        f"{DATA}/logs/fetch_{{file}}.benchmark.tsv"
    retries: 0
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=500,
        runtime=1440,
    params:
        source=lambda wildcards: archive_arguments(wildcards.file),
        identity=lambda wildcards: archive_identity(wildcards.file),
        data=lambda wildcards: DATA,
    shell:
        'python "$VOSFLOW"/scripts/fetch.py {params.source:q} --data {params.data:q} --marker {output:q} 2>&1 | tee {log:q}'


rule extract_archive:
    """Extract a fetched archive; the marker appears when all files are there."""
    input:
        lambda wildcards: archive_file(DATA, wildcards.name, wildcards.archive)
        + FETCHED,
    output:
        f"{DATA}/datasets/{{name}}/{{archive}}.json",
    log:
        f"{DATA}/logs/extract_{{name}}_{{archive}}.log",
    benchmark:
        f"{DATA}/logs/extract_{{name}}_{{archive}}.benchmark.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=1_000,
        runtime=240,
    params:
        archive=lambda wildcards, input: input[0].removesuffix(FETCHED),
        folder=lambda wildcards, output: output[0].removesuffix(".json"),
    shell:
        'python "$VOSFLOW"/scripts/extract_archive.py {params.archive:q} --folder {params.folder:q} --marker {output:q} > {log:q} 2>&1'


rule write_manifest:
    """Describe a dataset split: videos, frames, objects, prompts, ground truth; all checked."""
    input:
        lambda wildcards: study.dataset(wildcards.dataset).requires,
    output:
        f"{RESULTS}/{{dataset}}/manifest.json",
    log:
        f"{RESULTS}/{{dataset}}/logs/write_manifest.log",
    benchmark:
        f"{RESULTS}/{{dataset}}/logs/write_manifest.benchmark.tsv"
    conda:
        CONDA
    threads: lambda wildcards: study.dataset(wildcards.dataset).workers
    resources:
        mem_mb=2_000,
        runtime=60,
    params:
        source=lambda wildcards: study.dataset(wildcards.dataset).arguments,
        state=lambda wildcards: study.dataset(wildcards.dataset).state,
        code=lambda wildcards: study.dataset(wildcards.dataset).code,
    shell:
        'python "$VOSFLOW"/scripts/write_manifest.py {params.source:q} --workers {threads} --output {output:q} > {log:q} 2>&1'
