#!/usr/bin/env bash
# Run by Snakemake once, inside the new conda environment of vosflow.yaml. Snakemake runs a copy of this file from another
# folder: the Snakefile says in $VOSFLOW where the checkout is.
set -euo pipefail
cd "$VOSFLOW"
python -m pip install --require-hashes -r envs/requirements.txt
SAM2_BUILD_CUDA=0 python -m pip install --require-hashes --no-deps --no-build-isolation -r envs/requirements-no-deps.txt
python -c 'from vosflow.evaluation.machine_code import prepare; prepare()'
