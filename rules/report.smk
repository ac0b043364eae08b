# Tables, plots and the page.

PUBLISHED = file_digest(f"{workflow.basedir}/vosflow/catalog/published.csv")
TEMPLATES = f"{workflow.basedir}/vosflow/report/templates"


rule summarize:
    """One table of all runs: settings, scores, speed, and published numbers beside reproduced ones."""
    input:
        runs=[run.file("run.json") for run in study.runs],
        scores=[run.file("global_results.csv") for run in study.runs if run.scored],
    output:
        csv=f"{RESULTS}/tables/summary.csv",
        md=f"{RESULTS}/tables/summary.md",
    log:
        f"{RESULTS}/tables/logs/summarize.log",
    benchmark:
        f"{RESULTS}/tables/logs/summarize.benchmark.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=2_000,
        runtime=10,
    params:
        code=code_digest("vosflow.report.tables", "vosflow.report.markdown"),
        published=PUBLISHED,
    shell:
        'python "$VOSFLOW"/scripts/summarize.py --runs {input.runs:q} --csv {output.csv:q} --md {output.md:q} > {log:q} 2>&1'


rule write_report:
    """The page: one HTML file with the table, plots and filmstrips."""
    input:
        runs=[run.file("run.json") for run in study.runs],
        scores=[run.file("scores.csv") for run in study.runs if run.scored],
        summary=rules.summarize.output.csv,
        curves=[job.curves for job in study.trainings],
    output:
        page=f"{RESULTS}/report/index.html",
    log:
        f"{RESULTS}/report/logs/write_report.log",
    benchmark:
        f"{RESULTS}/report/logs/write_report.benchmark.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=4_000,
        runtime=30,
    params:
        title=study.config.report.title,
        trainings=[f"{job.training}={job.curves}" for job in study.trainings],
        filmstrips=study.config.report.filmstrips,
        folder=lambda wildcards, output: os.path.dirname(output.page),
        code=code_digest("vosflow.report.page"),
        published=PUBLISHED,
        templates=[
            file_digest(f"{TEMPLATES}/{name}")
            for name in sorted(os.listdir(TEMPLATES))
        ],
    shell:
        'python "$VOSFLOW"/scripts/write_report.py --runs {input.runs:q} --summary {input.summary:q} --title {params.title:q}'
        " --filmstrips {params.filmstrips} --training {params.trainings:q} --output {params.folder:q} > {log:q} 2>&1"
