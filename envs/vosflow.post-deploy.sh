#!/usr/bin/env bash
# Run by Snakemake once, inside the new conda environment of vosflow.yaml.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python -m pip install --require-hashes -r "$here/requirements.txt"
SAM2_BUILD_CUDA=0 python -m pip install --require-hashes --no-deps --no-build-isolation -r "$here/requirements-no-deps.txt"
(cd "$here/.." && python -c 'from vosflow.evaluation.machine_code import prepare; prepare()')
