"""Train one stage of RDE-VOS: the job behind the rule `train_rde_stage`. The same command goes on where it stopped.

With several processes (`processes` in the stage's settings) it starts itself by torchrun; to do so by hand, for
instance over several nodes: torchrun ... scripts/train_rde.py --plan ... --folder ...
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import run_command
from vosflow.gpu import lease_device, limit_cpu_threads
from vosflow.training.rde.stage import StagePlan


def main() -> int:
    """Train, or start the processes that do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", required=True, help="the stage as JSON, or a file with it; see training/rde/stage.py")
    parser.add_argument("--folder", required=True, help="where curves and weights go; a stage begun there is continued")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    args = parser.parse_args()
    text = args.plan if args.plan.lstrip().startswith("{") else Path(args.plan).read_text(encoding="utf-8")
    plan = StagePlan.of(json.loads(text))
    limit_cpu_threads(plan.settings.threads)
    if "RANK" in os.environ:  # one of torchrun's processes
        from vosflow.training.rde.run import train_in_group

        train_in_group(plan, args.folder, args.device)
        return 0
    with lease_device(args.device, plan.settings.processes) as device:
        if plan.settings.processes > 1:
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
            command = [__file__, "--plan", text, "--folder", args.folder, "--device", device]
            return subprocess.run([*launch, str(plan.settings.processes), *command], check=False).returncode
        from vosflow.training.rde.run import train_alone

        train_alone(plan, args.folder, device)
    return 0


if __name__ == "__main__":
    run_command(main)
