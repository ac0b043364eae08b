# What all rules share: the study, read once from the config, and the constraints of wildcards.

import sys

sys.path.insert(0, workflow.basedir)

from vosflow.digest import canonical_json, code_digest
from vosflow.study import archive_arguments, archive_file, checkpoint_id, load_study

# With --sdm conda the rule environment brings its own Python; else it is the one that runs Snakemake, activated or not.
PYTHON = "python" if workflow.deployment_settings.deployment_method else sys.executable
SCRIPTS = f"{workflow.basedir}/scripts"
CONDA = f"{workflow.basedir}/envs/vosflow.yaml"

study = load_study(config, announce=logger.warning)
RESULTS = study.config.paths.results
DATA = study.config.paths.data


wildcard_constraints:
    dataset=study.dataset_pattern,
    run=study.run_pattern,
    shard=r"\d+",
    shards=r"\d+",
    archive=r"[A-Za-z0-9_.-]+",
    name=r"[A-Za-z0-9_]+",
    file=r"[^/]+",


def run_of(wildcards):
    return study.run(wildcards.dataset, wildcards.run)
