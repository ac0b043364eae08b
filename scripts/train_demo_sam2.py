"""Train the micro SAM 2 of the demo study from scratch on one CPU thread, and write its weights as safetensors.

The run is saved to a work file every few hundred updates: the same command goes on where it stopped, also after a kill.
With --snapshot the weights of the last saved update are written at once, also while another process trains.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import run_command
from vosflow.options import at_least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="work file of the run, for example work/demo_sam2.pt")
    parser.add_argument("--export", type=Path, required=True, help="where the weights go, a .safetensors file")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of weights and clips (default: %(default)s)")
    parser.add_argument("--snapshot", action="store_true", help="only export what the work file holds now")
    options = parser.parse_args()

    from vosflow.training.demo_sam2 import Recipe, Training, export, train  # slow to import, so after --help

    recipe = Recipe(seed=options.seed)
    training = Training.load(options.work) if options.snapshot else train(recipe, options.work)
    export(training, options.export)
    print(f"{options.export}: weights after {training.update} updates", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
