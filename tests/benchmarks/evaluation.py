"""CPU seconds of scoring: vosflow against vos-benchmark, side by side on the same masks, and against decoding alone.

    python tests/benchmarks/evaluation.py [--masks FOLDER] [--videos 8] [--rounds 3] [--workers 2]

FOLDER holds {video}/{frame}.png, real results for instance; by default scenes of the demo are drawn at 854x480. The
masks are the ground truth, and moved by two frames they are the prediction. Everybody decodes the same files.

First, one process, video by video, the four in turn: what scoring costs, without starting up. Then the whole commands,
as a user would type them. Machines are noisy: only ratios of CPU seconds are worth quoting, of the best round.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that the script runs from a plain checkout

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from vos_benchmark.benchmark import VideoEvaluator

from vosflow.datasets.demo import render_clip
from vosflow.datasets.demo_scenes import KINDS
from vosflow.evaluation.annotations import annotated_folder
from vosflow.evaluation.machine_code import prepare
from vosflow.evaluation.png import read_ids
from vosflow.evaluation.predictions import Predictions
from vosflow.evaluation.protocols import load_protocol
from vosflow.evaluation.run import score_video
from vosflow.masks import DAVIS_PALETTE

HOUSE = Path(__file__).resolve().parents[2]
SHIFT = 2
VOS_BENCHMARK = (
    "from vos_benchmark.benchmark import benchmark; benchmark([{!r}], [{!r}], num_processes={}, verbose=False)"
)


def draw(folder: Path, videos: int) -> None:
    """Label maps of scenes of the demo, at the size of DAVIS."""
    for seed in range(videos):
        kind = list(KINDS)[seed % len(KINDS)]
        target = folder / f"{kind}-{seed}"
        target.mkdir(parents=True)
        for index, label_map in enumerate(render_clip(seed, kind=kind, width=854, height=480)[1]):
            image = Image.fromarray(label_map)
            image.putpalette(DAVIS_PALETTE)
            image.save(target / f"{index:05d}.png")


def lay_out(masks: Path, videos: list[str], truth: Path, guess: Path) -> None:
    """Copy the masks of `videos`, once as they are, and once each in the place of the frame two further on."""
    for video in videos:
        paths = sorted((masks / video).glob("*.png"))
        for folder in (truth / video, guess / video):
            folder.mkdir(parents=True)
        for index, path in enumerate(paths):
            shutil.copy(path, truth / video / path.name)
            shutil.copy(paths[max(index - SHIFT, 0)], guess / video / path.name)


def compare_scoring(truth: Path, guess: Path, rounds: int) -> Table:
    """Score every video with both, and decode it with Pillow and with vosflow's reader."""
    rules, predictions = load_protocol("vos-benchmark"), Predictions(guess)
    manifest = annotated_folder(truth, protocol=rules.name)
    theirs = VideoEvaluator(str(truth), str(guess))
    seconds: dict[str, np.ndarray] = {}
    for turn in range(rounds):
        for video in manifest.videos:
            names = video.ground_truth.names[1:-1]
            files = [folder / video.name / f"{name}.png" for folder in (truth, guess) for name in names]
            needs = rules.needs(video, manifest.root)
            jobs: dict[str, Callable[[], object]] = {
                "vos-benchmark": lambda name=video.name: theirs(name),
                "vosflow": lambda video=video, needs=needs: score_video(
                    rules, video, manifest.root, needs, predictions
                ),
                "decoding with Pillow": lambda files=files: [np.asarray(Image.open(path)) for path in files],
                "decoding with vosflow": lambda files=files: [read_ids(path) for path in files],
            }
            results = {}
            for name, job in jobs.items():
                started = time.process_time()
                results[name] = job()
                seconds.setdefault(name, np.zeros(rounds))[turn] += time.process_time() - started
            check_equal(results["vos-benchmark"], results["vosflow"])
    frames = sum(len(video.ground_truth.names) - 2 for video in manifest.videos)
    title = f"{len(manifest.videos)} videos, {frames} scored frames, one process (CPU, best of {rounds} rounds)"
    table = Table("", "CPU s", "ms per frame", "times vosflow", title=title)
    for name, values in seconds.items():
        best = values.min()
        table.add_row(name, f"{best:.2f}", f"{1000 * best / frames:.2f}", f"{best / seconds['vosflow'].min():.2f}")
    return table


def check_equal(theirs: tuple, rows: list) -> None:
    """Both have the same objects with the same means (theirs are in percent)."""
    _, J, F = theirs
    for object_id in J:
        ours = np.array([(row.J, row.F) for row in rows if row.object == object_id])
        assert (np.mean(ours[:, 0]) * 100, np.mean(ours[:, 1]) * 100) == (J[object_id], F[object_id])
    assert {row.object for row in rows} == set(J)


def compare_commands(truth: Path, guess: Path, rounds: int, workers: int) -> Table:
    """Start both as commands, in turn: everything included."""
    options = ["--annotations", str(truth), "--predictions", str(guess), "--protocol", "vos-benchmark"]
    ours = [sys.executable, str(HOUSE / "scripts/evaluate.py"), *options]
    table = Table("command", "processes", "CPU s", "wall s", "times vosflow, CPU", "wall")
    for count in dict.fromkeys((1, workers)):
        commands = {
            "vos-benchmark": [sys.executable, "-c", VOS_BENCHMARK.format(str(truth), str(guess), count)],
            "vosflow": [*ours, "--workers", str(count)],
        }
        measured = [{name: measure(command) for name, command in commands.items()} for _ in range(rounds)]
        best = {name: np.min([turn[name] for turn in measured], axis=0) for name in commands}
        for name, (cpu, wall) in best.items():
            ratios = (f"{cpu / best['vosflow'][0]:.2f}", f"{wall / best['vosflow'][1]:.2f}")
            table.add_row(name, f"up to {count}", f"{cpu:.2f}", f"{wall:.2f}", *ratios)
    return table


def measure(command: list[str]) -> tuple[float, float]:
    """CPU seconds of a command and all its processes, and wall seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=Path, help="a folder of label maps (default: drawn)")
    parser.add_argument("--videos", type=int, default=8, help="how many videos, at most (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the commands (default: %(default)s)")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    prepare()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.masks is None:
            draw(folder / "masks", args.videos)
        masks = args.masks or folder / "masks"
        videos = sorted(path.name for path in masks.iterdir() if path.is_dir())[: args.videos]
        lay_out(masks, videos, folder / "truth", folder / "guess")
        console = Console()
        console.print(compare_scoring(folder / "truth", folder / "guess", args.rounds))
        console.print(compare_commands(folder / "truth", folder / "guess", args.rounds, args.workers))


if __name__ == "__main__":
    main()
