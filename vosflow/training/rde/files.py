"""Names of the files in the folder of a stage: for the job that writes them, planning, rules and the page."""

from __future__ import annotations

WEIGHTS, CURVES, SAMPLES = "weights.safetensors", "curves.csv", "samples.png"
"""What the stage ends in, declared as outputs: Snakemake deletes them when a job fails."""

WORK, PLAN, SETS, EVENTS = "work.pt", "plan.json", "sets.json", "tensorboard"
"""What it goes on with, what it is made from, and a folder of its curves."""
