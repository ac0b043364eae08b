"""Train one stage of RDE-VOS: the job behind the rule `train_rde_stage`. The same command goes on where it stopped.

With several processes (`processes` in the stage's settings) it starts them as torchrun does. By hand, for instance on
each of two nodes that share the folder (8 processes then share the clips of an iteration, whatever `processes` says)

    torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint {one of them}:29500 \\
        scripts/train_rde.py --plan {folder}/plan.json --folder {folder}
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import run_command
from vosflow.gpu import lease_device, limit_cpu_threads
from vosflow.training.planning import read_plan


def main() -> int:
    """Train, or start the processes that do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", required=True, help="the stage: its plan.json, or JSON; see training/rde/stage.py")
    parser.add_argument("--practical", help="JSON of what does not decide its weights, where --plan lacks that")
    parser.add_argument("--folder", required=True, help="where curves and weights go; a stage begun there is continued")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    args = parser.parse_args()
    plan = read_plan(args.plan, args.practical)
    limit_cpu_threads(plan.settings.threads)
    if "RANK" in os.environ:  # one of torchrun's processes
        from vosflow.training.rde.run import train_in_group

        train_in_group(plan, args.folder, args.device)
        return 0
    with lease_device(args.device, plan.settings.processes) as device:
        if plan.settings.processes > 1:
            from vosflow.training.rde.launch import start_group

            command = [__file__, "--plan", json.dumps(plan.as_data()), "--folder", args.folder, "--device", device]
            return start_group(command, plan.settings.processes)
        from vosflow.training.rde.run import train_alone

        train_alone(plan, args.folder, device)
    return 0


if __name__ == "__main__":
    run_command(main)
