# make demo: set up, run the embedded study, print its table.   make test: set up, run all tests.
# Needs Python 3.11 with venv and pip; everything else comes from the hash-locked requirements.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/ready
JOBS ?= $(shell nproc)

.PHONY: demo test lint lock clean

demo: $(READY)
	$(BIN)/snakemake --cores $(JOBS)
	@$(BIN)/python scripts/show_results.py --summary results/tables/summary.csv --page results/report/index.html

# One process more than cores, as tests of Slurm and of killed jobs wait much of their time. The longest files first.
# Bytecode is kept even where the environment says not to: hundreds of short processes start.
test: $(READY)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest \
	    -n $$(($(JOBS) + 1)) --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/snakefmt --check Snakefile rules && $(BIN)/snakemake --lint

# The second step installs without dependencies: sam2, whose build needs torch, and a toolkit that the tests compare with.
$(READY): envs/requirements.txt envs/requirements-no-deps.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	    || { echo "error: vosflow needs Python 3.11, and $(PYTHON) is another; say: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -d .venv || $(PYTHON) -c 'import shutil, sys; sys.exit(shutil.disk_usage(".").free < 7e9)' \
	    || { echo "error: the environment (.venv) needs 7 GB, and there is less on the disk of $(CURDIR)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r envs/requirements.txt
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	    --no-deps --no-build-isolation -r envs/requirements-no-deps.txt
	$(BIN)/python -c 'from vosflow.evaluation.machine_code import prepare; prepare()'
	@touch $@

# Writes the lock: hashes, no URLs. Needs uv.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	    envs/requirements.in -o envs/requirements.txt

# The environment and what the demo made; never the results of your own studies.
clean:
	rm -rf .venv data/datasets/demo data/datasets/demo.json results/demo-val
