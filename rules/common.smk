# What all rules share: the study, read once from the config, and the constraints of wildcards.

import os
import sys

sys.path.insert(0, workflow.basedir)

from vosflow.config import read_config
from vosflow.digest import canonical_json, code_digest, file_digest
from vosflow.errors import VosflowError
from vosflow.review import review_results
from vosflow.sources import FETCHED, archive_arguments, archive_file, archive_identity
from vosflow.study import load_study
from vosflow.weights import checkpoint_id, checkpoint_identity

# Jobs run `python $VOSFLOW/scripts/...` with the Python that runs Snakemake, activated or not; with --sdm conda, the
# environment of the rule comes first on the path. (Paths inside the commands would rerun everything when they change.)
os.environ.update(
    VOSFLOW=str(workflow.basedir),
    PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]),
)

CONDA = f"{workflow.basedir}/envs/vosflow.yaml"

try:
    if workflow.is_main_process:
        for file in workflow.configfiles:
            read_config(file)  # Snakemake has, but lets keys stand twice
    study = load_study(
        config, source=str((workflow.overwrite_configfiles or ["config.yaml"])[-1])
    )
    if workflow.is_main_process:
        review_results(study, announce=logger.warning)
except VosflowError as error:
    sys.exit(f"error: {error}")
RESULTS = study.config.paths.results
DATA = study.config.paths.data
os.environ.update(
    VOSFLOW_CACHE=study.config.cache,
    VOSFLOW_CACHE_GIGABYTES=str(study.config.execution.cache_gigabytes),
)


wildcard_constraints:
    dataset=study.dataset_pattern,
    run=study.run_pattern,
    shard=r"\d+",
    shards=r"\d+",
    made=r"[0-9a-f]{8}",
    archive=r"[A-Za-z0-9_.-]+",
    name=r"[A-Za-z0-9_]+",
    file=r"[^/]+",


def run_of(wildcards):
    return study.run(wildcards.dataset, wildcards.run, wildcards.get("made"))


def stage_of(wildcards):
    return study.stage(wildcards.stage, wildcards.made)
