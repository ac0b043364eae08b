# vosflow: dataset -> manifest -> tracking in shards -> label maps -> J&F -> tables, plots, page.
# This file is a table of contents; the rules hold no logic, and what thinks is in the package vosflow/.

from snakemake.utils import min_version

min_version("9.27")


# One YAML file is one study: a --configfile replaces config.yaml, it is not laid over it.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/checkpoints.smk"
include: "rules/training.smk"
include: "rules/tracking.smk"
include: "rules/evaluation.smk"
include: "rules/submission.smk"
include: "rules/report.smk"


rule all:
    """The whole study: tables and the page."""
    default_target: True
    input:
        [run.results for run in study.runs],
        rules.summarize.output,
        rules.write_report.output,


rule fetch_all:
    """Everything the study needs from outside: datasets and checkpoints. Nothing is computed."""
    input:
        study.data_files,
        study.checkpoint_files,


rule train_all:
    """The weights of all trainings."""
    input:
        [job.weights for job in study.trainings],


rule track_all:
    """The label maps of all runs."""
    input:
        [record for run in study.runs for record in run.shard_records],


rule score_all:
    """The scores of all runs that have public ground truth."""
    input:
        [run.results for run in study.runs if run.scored],


rule submissions:
    """The checked zips of all runs whose ground truth is not public."""
    input:
        [file for run in study.runs for file in run.submissions],
