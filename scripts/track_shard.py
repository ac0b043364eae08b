"""Track one shard of a run: the job behind the rule `track_shard`. By hand, `track.py` is easier to use."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.artefacts import open_store
from vosflow.engine import track_shard
from vosflow.errors import run_command
from vosflow.gpu import lease_device, limit_cpu_threads
from vosflow.manifest import load_manifest
from vosflow.method import Method
from vosflow.options import at_least
from vosflow.progress import telling_failure
from vosflow.records import write_json


def main() -> None:
    """Parse arguments, lease a device, track, and write the shard record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", required=True, help="manifest of the dataset split")
    parser.add_argument("--method", required=True, help='JSON: {"tracker", "settings", "checkpoint": {...} or null}')
    parser.add_argument("--shard", type=at_least(1), required=True, help="number of the shard, from 1")
    parser.add_argument("--shards", type=at_least(1), required=True, help="number of shards of the run")
    parser.add_argument("--folder", required=True, help="the run's folder: masks/ and videos/ go there")
    parser.add_argument("--record", required=True, help="the shard record to write when all videos are finished")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--threads", type=at_least(1), default=1, help="CPU threads")
    parser.add_argument("--cache", default="data/cache", help="folder of what is costly and the same in other runs")
    parser.add_argument("--cache_gigabytes", type=float, default=0, help="its limit; 0 (default) keeps nothing")
    args = parser.parse_args()
    if args.shard > args.shards:
        parser.error(f"--shard {args.shard}: expected one of the {args.shards} shards, from 1")
    limit_cpu_threads(args.threads)
    given = json.loads(args.method)
    progress_file = Path(args.folder) / "progress" / f"{Path(args.record).stem}.jsonl"
    with telling_failure(progress_file):
        method = Method.of(given["tracker"], given["settings"], given["checkpoint"])
        print("".join(f"note: {note}\n" for note in method.licence_notes), end="", file=sys.stderr)
        manifest = load_manifest(args.manifest)
        with lease_device(args.device if method.uses_gpu else "cpu") as device:
            record = track_shard(
                method,
                manifest,
                args.folder,
                shard=args.shard,
                shards=args.shards,
                device=device,
                store=open_store(args.cache, args.cache_gigabytes),
                progress_file=progress_file,
            )
    write_json(args.record, record)


if __name__ == "__main__":
    run_command(main)
