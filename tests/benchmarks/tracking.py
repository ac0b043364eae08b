"""Speed and memory of trackers, side by side: each in its own process, taking turns video by video.

    python tests/benchmarks/tracking.py demo       modes of SAM 2 on the demo dataset, with their scores
    python tests/benchmarks/tracking.py tiny       sam2.1_hiera_tiny at 256 px (random weights), 480p, 1, 3, 10 objects
    python tests/benchmarks/tracking.py sam2long   SAM2Long with and without its savings
    python tests/benchmarks/tracking.py rde        RDE-VOS at its published width, 480p, 1, 3, 10 objects; GPU if any,
                                                   where it also tells the speed on DAVIS 2017's mix of objects
    python tests/benchmarks/tracking.py sam_pt     SAM-PT, PIPs and MobileSAM (GPU: SAM ViT-B), 480p, 1, 3, 10 objects
    python tests/benchmarks/tracking.py memory     peak memory of a short and of a long video
    python tests/benchmarks/tracking.py gpu        tiny, base_plus, large at 1024 px (random weights), if there is a GPU

Machines are noisy: contenders take turns, and what is worth quoting is their ratio. On a CPU, one thread computes
and CPU seconds of all threads are counted, decoding and writing included; on a GPU, seconds by the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that the script runs from a plain checkout

from vosflow.gpu import limit_cpu_threads

limit_cpu_threads(1)

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from tests.benchmarks.contenders import Contender, Cost, Racer
from vosflow.datasets import build_manifest
from vosflow.datasets.demo import write_demo_dataset
from vosflow.datasets.folder import folder_manifest
from vosflow.evaluation.run import evaluate_run
from vosflow.manifest import Manifest, save_manifest
from vosflow.masks import DAVIS_PALETTE

HOUSE = Path(__file__).resolve().parents[2]
DEMO = {
    "id": "sam2_demo",
    "path": str(HOUSE / "vosflow/catalog/sam2_demo.safetensors"),
    "config": str(HOUSE / "vosflow/catalog/sam2_demo.yaml"),
}
MEBIBYTE = 2**20
WARM_UP = "warm-up"
DAVIS_2017_VAL = {1: 13, 2: 7, 3: 8, 5: 2}  # videos by number of objects


def three(weights: dict[str, str], **settings: object) -> list[Contender]:
    """The authors' loop, and SAM 2 here in both modes."""
    return [
        Contender("authors", "authors", weights, settings),
        Contender("exact", "sam2", weights, settings),
        Contender("fast", "sam2", weights, {**settings, "mode": "fast"}),
    ]


def race(contenders: Sequence[Contender], manifest: Manifest, folder: Path, *, device: str, rounds: int = 1) -> Race:
    """Let contenders track all videos in turns, after a warm-up; a video called "warm-up" is for that alone."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.json"
    save_manifest(manifest, path)
    costs: dict[str, list[Cost]] = {contender.label: [] for contender in contenders}
    with contextlib.ExitStack() as stack:
        racers = [stack.enter_context(Racer(contender, device)) for contender in contenders]
        shortest = min(manifest.videos, key=lambda video: video.cost).name
        for racer in racers:
            racer.track(path, shortest, folder / WARM_UP / racer.contender.label)
        for turn in range(rounds):
            for video in (video for video in manifest.videos if video.name != WARM_UP):
                for racer in racers[:: -1 if turn % 2 else 1]:
                    output = folder / racer.contender.label / video.name
                    costs[racer.contender.label].append(racer.track(path, video.name, output))
    return Race(manifest, folder, costs)


@dataclass(frozen=True)
class Race:
    """What a race gave: costs of each contender's videos, and masks in {folder}/{label}."""

    manifest: Manifest
    folder: Path
    costs: dict[str, list[Cost]]

    def seconds(self, label: str) -> float:
        return sum(cost.seconds for cost in self.costs[label])

    def speed(self, label: str) -> float:
        return sum(cost.frames for cost in self.costs[label]) / self.seconds(label)

    def peak(self, label: str) -> float:
        """MiB."""
        return max(cost.peak_bytes for cost in self.costs[label]) / MEBIBYTE

    def equal_pixels(self, one: str, other: str) -> tuple[float, int]:
        """(share of equal pixels, number of different ones) of two contenders' label maps."""
        equal = total = 0
        for path in sorted((self.folder / one).rglob("*.png")):
            pair = [
                np.asarray(Image.open(p)) for p in (path, self.folder / other / path.relative_to(self.folder / one))
            ]
            equal += int((pair[0] == pair[1]).sum())
            total += pair[0].size
        return equal / total, total - equal


class Report:
    """A table of contenders, one row each, and what its columns mean."""

    def __init__(self, title: str, *columns: str) -> None:
        heads = ("contender", "frames/s", "x first", "peak MiB", "different pixels", *columns)
        self._table = Table(*heads, title=title, title_justify="left")

    def add(self, race: Race, prefix: str = "", extra: dict[str, Sequence[str]] | None = None) -> None:
        """Add the rows of a race; speeds and pixels are compared with the first contender."""
        first = next(iter(race.costs))
        for label in race.costs:
            share, different = race.equal_pixels(first, label)
            remarks = {remark for cost in race.costs[label] for remark in cost.remarks}
            self._table.add_row(
                f"{prefix}{label}" + "".join(f" ({remark})" for remark in sorted(remarks)),
                f"{race.speed(label):.2f}",
                f"{race.speed(label) / race.speed(first):.2f}",
                f"{race.peak(label):.0f}",
                f"{different} ({100 * share:.4f} % equal)" if different else "0",
                *(extra or {}).get(label, ()),
            )

    def print(self) -> None:
        Console(width=140).print(self._table)


def demo(a: argparse.Namespace, folder: Path) -> None:
    """The demo model on the demo dataset: masks equal to the authors', and how far those of fast mode are from them.

    bfloat16 is what fast mode computes in on a GPU: for its masks, not for its speed, which says nothing on a CPU.
    """
    write_demo_dataset(folder / "demo")
    whole = build_manifest("demo", "val", folder / "demo")
    manifest = replace(whole, videos=whole.videos[: a.videos])
    report = Report("demo model, demo dataset", "J&F")
    rounded = Contender("fast, bfloat16", "sam2", DEMO, {"mode": "fast", "precision": "bfloat16"})
    contenders = [*three(DEMO), rounded]
    for late, name in ((False, "objects together"), (True, "one pass per object")):
        result = race(contenders, replace(manifest, late_objects=late), folder / name, device="cpu", rounds=a.rounds)
        scores = {
            label: evaluate_run(manifest, folder / name / label).summary.totals["J&F-Mean"] for label in result.costs
        }
        report.add(result, f"{name}, ", {label: [f"{score:.4f}"] for label, score in scores.items()})
        for label in ("fast", "fast, bfloat16"):
            share, _ = result.equal_pixels("exact", label)
            lost = abs(scores[label] - scores["exact"])
            print(
                f"{name}: {label} has {100 * share:.4f} % of exact's pixels (goal 99.9), "
                f"J&F differs by {lost:.5f} (goal 0.002)"
            )
    report.print()


def tiny(a: argparse.Namespace, folder: Path) -> None:
    """A released architecture, small enough for a CPU; its weights are random, which changes no time."""
    weights = random_weights("tiny", folder)
    for objects in a.objects:
        manifest = boxes(folder / f"{objects}", frames=a.frames, objects=objects)
        report = Report(f"sam2.1_hiera_tiny at 256 px, 480p, {objects} objects, {a.frames} frames")
        for late, name in ((False, "objects together"), (True, "one pass per object"))[: 1 if objects == 1 else 2]:
            late_manifest = replace(manifest, late_objects=late)
            contenders = three(weights, image_size=256)
            report.add(
                race(contenders, late_manifest, folder / f"{objects}-{late}", device="cpu", rounds=a.rounds),
                f"{name}, ",
            )
        report.print()


def sam2long(a: argparse.Namespace, folder: Path) -> None:
    """What SAM2Long saves by evaluating copies of a pathway once, and how it compares with SAM 2."""
    write_demo_dataset(folder / "demo")
    whole = build_manifest("demo", "val", folder / "demo")
    manifest = replace(whole, videos=whole.videos[: a.videos], late_objects=True)
    contenders = [
        Contender("sam2long, copies evaluated", "sam2long", DEMO, copies=True),
        Contender("sam2long", "sam2long", DEMO),
        Contender("sam2long, fast", "sam2long", DEMO, {"mode": "fast"}),
        Contender("sam2long, all uncertain", "sam2long", DEMO, {"uncertainty": 1000.0}),
        Contender("sam2", "sam2", DEMO),
    ]
    result = race(contenders, manifest, folder / "race", device="cpu", rounds=a.rounds)
    report = Report("SAM2Long, 3 pathways, demo model and dataset", "network evaluations")
    counts = {label: sum(cost.evaluations for cost in costs) for label, costs in result.costs.items()}
    report.add(result, extra={label: [str(count)] for label, count in counts.items()})
    report.print()


def rde(a: argparse.Namespace, folder: Path) -> None:
    """RDE-VOS against a plain loop over objects and frames with the same weights; on a GPU where there is one.

    One loop encodes each frame for each object anew, one encodes it once for all of them, as the authors' code does.

    The network is compiled when it is loaded: like the warm-up, that is not counted. (It is told on stderr.)

    Weights are random, and a third of the pixels ties of two objects within 1e-3: that pixels differ says nothing here.
    Probabilities are compared in tests/unit/test_rde.py.
    """
    import torch

    from tests.unit.tiny_rde import make_weights

    path = folder / "rde.pth"
    torch.save(make_weights(width=64, keys=64), path)
    weights = {"id": "rde", "path": str(path)}
    contenders = [
        Contender("plain loop", "plain_rde", weights, copies=True),
        Contender("plain loop, shares frames", "plain_rde", weights),
        Contender("exact", "rde", weights),
        Contender("bfloat16", "rde", weights, {"precision": "bfloat16"}),
    ]
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        mixed = Contender("plain loop, mixed precision", "plain_rde", weights, {"precision": "bfloat16"}, copies=True)
        eager = Contender("fast, not compiled", "rde", weights, {"speed": "fast", "compile": False})
        contenders += [mixed, eager, Contender("fast", "rde", weights, {"speed": "fast"})]
    speeds: dict[int, dict[str, float]] = {}
    for objects in sorted({*a.objects, *(DAVIS_2017_VAL if on_gpu else ())}):
        manifest = boxes(folder / f"{objects}", frames=max(a.frames, 48) if on_gpu else a.frames, objects=objects)
        where = torch.cuda.get_device_name() if on_gpu else "a CPU"
        report = Report(f"RDE-VOS on {where}, 480p, {objects} objects")
        place = folder / f"race-{objects}"
        result = race(contenders, manifest, place, device="cuda" if on_gpu else "cpu", rounds=a.rounds)
        report.add(result)
        report.print()
        speeds[objects] = {label: result.speed(label) for label in result.costs}
    print("different pixels say nothing here: with random weights, a third of them are ties of two objects within 1e-3")
    for contender in contenders if on_gpu else ():
        seconds = sum(videos / speeds[objects][contender.label] for objects, videos in DAVIS_2017_VAL.items())
        speed = sum(DAVIS_2017_VAL.values()) / seconds
        print(f"{contender.label}: {speed:.1f} frames/s on DAVIS 2017 val's mix of objects (goal of fast: 80)")


def sam_pt(a: argparse.Namespace, folder: Path) -> None:
    """SAM-PT (PIPs, MobileSAM, made-up weights) against plain loops; on a GPU with SAM ViT-B where there is one.

    The plain loop drives the SAM through the package's own predictor.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    weights = sam_pt_weights(folder, "vit_b" if on_gpu else "mobile_sam")
    settings = {"sam": "vit_b" if on_gpu else "mobile_sam", "sam_iou_threshold": -1e9}
    settings["iterative_refinement_iterations"] = a.refinements
    contenders = [
        Contender("plain loop", "plain_sam_pt", weights, settings, copies=True),
        Contender("plain loop, shares frames", "plain_sam_pt", weights, settings),
        Contender("sam_pt", "sam_pt", weights, settings),
    ]
    for objects in a.objects:
        manifest = boxes(folder / f"{objects}", frames=a.frames, objects=objects)
        where = torch.cuda.get_device_name() if on_gpu else "a CPU"
        report = Report(f"SAM-PT on {where}, 480p, {objects} objects", "decodings", "points", "encode", "decode")
        place = folder / f"race-{objects}"
        result = race(contenders, manifest, place, device="cuda" if on_gpu else "cpu", rounds=a.rounds)
        cells = {label: [str(sum(cost.evaluations for cost in costs))] for label, costs in result.costs.items()}
        for label, costs in result.costs.items():
            cells[label] += [f"{sum(c.stages[stage] for c in costs):.1f} s" for stage in ("points", "encode", "decode")]
        report.add(result, extra=cells)
        report.print()


def sam_pt_weights(folder: Path, sam: str) -> dict[str, dict[str, str]]:
    """Made-up weights of PIPs and of a SAM, in files for both roles.

    The points move little and stay visible: with weights at random, float noise grows into pixels, and masks of
    contenders could not be compared.
    """
    import torch

    from tests.unit import tiny_points, tiny_sams
    from vosflow.trackers.sam_pt.points.pips_network import PipsNetwork

    torch.manual_seed(0)
    network = tiny_sams.package.sam_model_registry["vit_tiny" if sam == "mobile_sam" else sam]()
    tiny_sams.fill(network)
    of_hq = ("hf_", "compress_vit_feat", "embedding_encoder", "embedding_maskfeature")
    plain = {name: value for name, value in network.state_dict().items() if not any(part in name for part in of_hq)}
    points = PipsNetwork(4)
    tiny_points.scale_(points, {"to_delta.15.": 0.02})
    points.vis_predictor[0].bias.data += 2
    files = {"sam": plain, "point_tracker": points.state_dict()}
    for role, content in files.items():
        torch.save(content, folder / f"{role}.pth")
    return {role: {"id": role, "path": str(folder / f"{role}.pth")} for role in files}


def memory(a: argparse.Namespace, folder: Path) -> None:
    """Peak memory of short and long videos, demo model: that of ours must not grow."""
    table = Table(
        "tracker", *(f"{frames} frames, peak MiB" for frames in a.lengths), title="memory against length of video"
    )
    contenders = [*three(DEMO)[1:], Contender("sam2long", "sam2long", DEMO)]
    if a.authors:
        contenders.insert(0, three(DEMO)[0])
    peaks: dict[str, list[str]] = {contender.label: [] for contender in contenders}
    for frames in a.lengths:
        manifest = boxes(folder / f"{frames}", frames=frames, objects=2, height=120, width=160)
        for contender in contenders:
            with Racer(contender, "cpu") as racer:
                save_manifest(manifest, folder / f"{frames}.json")
                cost = racer.track(folder / f"{frames}.json", "boxes", folder / "out" / contender.label / "boxes")
                peaks[contender.label].append(f"{cost.peak_bytes / MEBIBYTE:.1f}")
    for label, row in peaks.items():
        table.add_row(label, *row)
    Console(width=140).print(table)


def gpu(a: argparse.Namespace, folder: Path) -> None:
    """The released sizes at their own resolution."""
    import torch

    if not torch.cuda.is_available():
        print("torch sees no GPU: nothing measured")
        return
    for size in a.sizes:
        weights = random_weights(size, folder)
        for objects in a.objects:
            manifest = boxes(folder / f"{size}-{objects}", frames=max(a.frames, 48), objects=objects)
            for precision in ("float32", "bfloat16"):
                report = Report(
                    f"{size} at 1024 px on {torch.cuda.get_device_name()}, {precision}, 480p, {objects} objects"
                )
                place = folder / f"race-{size}-{objects}-{precision}"
                report.add(race(three(weights, precision=precision), manifest, place, device="cuda", rounds=a.rounds))
                report.print()


def random_weights(size: str, folder: Path) -> dict[str, str]:
    """Seeded random weights of a released SAM 2.1, as a checkpoint on disk."""
    import torch
    from hydra.utils import instantiate

    from vosflow.trackers.base import Checkpoint
    from vosflow.trackers.sam2.network import read_config

    config = f"configs/sam2.1/sam2.1_hiera_{ {'tiny': 't', 'small': 's', 'base_plus': 'b+', 'large': 'l'}[size] }.yaml"
    path = folder / f"{size}.pt"
    torch.manual_seed(0)
    weights = instantiate(read_config(Checkpoint(size, path, "", config)), _recursive_=True).state_dict()
    weights["sam_mask_decoder.pred_obj_score_head.layers.2.bias"].fill_(1.0)  # else every object counts as absent
    torch.save({"model": weights}, path)
    return {"id": size, "path": str(path), "config": config}


def boxes(folder: Path, *, frames: int, objects: int, height: int = 480, width: int = 854) -> Manifest:
    """A video, "boxes", of ellipses that cross a textured background, prompts on its first frame; and a warm-up."""
    rng = np.random.default_rng(objects)
    small = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    background = np.asarray(Image.fromarray(small).resize((width, height)))
    y, x = np.mgrid[:height, :width]
    centres, speeds = rng.random((objects, 2)), rng.uniform(-0.006, 0.006, (objects, 2))
    colours = rng.integers(0, 255, (objects, 3), dtype=np.uint8)
    for video, length in (("boxes", frames), (WARM_UP, 3)):
        images, masks = folder / "frames" / video, folder / "masks" / video
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for t in range(length):
            image, label_map = background.copy(), np.zeros((height, width), np.uint8)
            for k in range(objects):
                v, u = (centres[k] + t * speeds[k]) % 1
                inside = ((y - v * height) / (0.09 * height)) ** 2 + ((x - u * width) / (0.07 * width)) ** 2 < 1
                image[inside], label_map[inside] = colours[k], k + 1
            Image.fromarray(image).save(images / f"{t:05d}.jpg", quality=90)
            if t == 0:
                first = Image.fromarray(label_map)
                first.putpalette(DAVIS_PALETTE)
                first.save(masks / "00000.png")
    return folder_manifest(folder / "frames", folder / "masks")


PARTS = {part.__name__: part for part in (demo, tiny, sam2long, rde, sam_pt, memory, gpu)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("part", choices=PARTS)
    add("--videos", type=int, default=4, help="demo, sam2long: how many demo videos (default: %(default)s)")
    add("--objects", type=int, nargs="+", default=[1, 3, 10], help="tiny, rde, gpu (default: 1 3 10)")
    add(
        "--frames",
        type=int,
        default=16,
        help="tiny, rde: of the video (default: %(default)s); on a GPU at least 48",
    )
    add("--sizes", nargs="+", default=["tiny", "base_plus", "large"], help="gpu (default: all three)")
    add("--lengths", type=int, nargs="+", default=[200, 5000], help="memory: frames (default: 200 5000)")
    add("--authors", action="store_true", help="memory: the authors' loop, too, which holds the whole video")
    add("--refinements", type=int, default=12, help="sam_pt: rounds at most (default: %(default)s)")
    add("--rounds", type=int, default=1, help="how often each video is tracked (default: %(default)s)")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        PARTS[a.part](a, Path(folder))


if __name__ == "__main__":
    main()
