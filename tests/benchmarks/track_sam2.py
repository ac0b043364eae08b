"""CPU seconds of vosflow's SAM 2 against the authors' own loop, side by side on the demo dataset, on one thread.

    python tests/benchmarks/track_sam2.py [--videos 4]

Both do the whole job of a video: read frames, track, write label maps. The authors' loop is that of
`tools/vos_inference.py` of facebookresearch/sam2 (2b90b9f), driven through the installed package, in its two modes:
objects together, and one pass per object (--track_object_appearing_later_in_video). Machines are noisy: the two take
turns, video by video, and only the ratio of their CPU seconds is worth quoting.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that the script runs from a plain checkout

from vosflow.gpu import limit_cpu_threads

limit_cpu_threads(1)

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from vosflow.datasets import build_manifest
from vosflow.datasets.demo import write_demo_dataset
from vosflow.engine import Method
from vosflow.mask_writer import VideoMaskWriter
from vosflow.masks import merge_objects
from vosflow.trackers.sam2 import Sam2Tracker
from vosflow.video import Video

HOUSE = Path(__file__).resolve().parents[2]
WEIGHTS = {
    "id": "sam2_demo",
    "path": str(HOUSE / "vosflow/catalog/sam2_demo.safetensors"),
    "config": str(HOUSE / "vosflow/catalog/sam2_demo.yaml"),
}


@torch.inference_mode()
def authors(predictor, video: Video, frames: Path, output: Path) -> None:
    """The authors' loop: load all frames, prompt, propagate, resize, threshold, merge, write."""
    prompts = {prompt.object: video.read_prompt(prompt) for prompt in video.prompts}
    state = predictor.init_state(str(frames), async_loading_frames=False)
    groups = [[object_id] for object_id in prompts] if video.late_objects else [list(prompts)]
    scores: dict[int, dict[int, torch.Tensor]] = {}
    for group in groups:
        predictor.reset_state(state)
        for object_id in group:
            predictor.add_new_mask(state, 0, object_id, prompts[object_id])
        for index, ids, logits in predictor.propagate_in_video(state):
            scores.setdefault(index, {}).update(zip(ids, logits, strict=True))
    output.mkdir(parents=True)
    for index, by_object in scores.items():
        stacked = torch.stack([by_object[object_id] for object_id in prompts])  # [O, 1, H, W]
        if video.late_objects:
            stacked = predictor._apply_non_overlapping_constraints(stacked)
        masks = dict(zip(prompts, (stacked[:, 0] > 0).numpy(), strict=True))
        image = Image.fromarray(merge_objects(masks, video.height, video.width))
        image.putpalette(video.palette())
        image.save(output / f"{video.frame_names[index]}.png")


def ours(tracker: Sam2Tracker, video: Video, output: Path) -> None:
    """The engine's inner loop."""
    with VideoMaskWriter(output.parent, output.name, layout=video.layout, palette=video.palette()) as writer:
        for frame, masks in tracker.track(video):
            writer.write(frame, masks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=4, help="how many demo videos (default: %(default)s)")
    count = parser.parse_args().videos
    torch.set_num_threads(1)
    method = Method.of("sam2", {}, WEIGHTS)
    tracker = Sam2Tracker(method.settings, method.checkpoint, "cpu")
    tracker.load()
    predictor = tracker._predictor
    predictor.non_overlap_masks = True
    table = Table("mode", "authors, CPU s", "vosflow, CPU s", "ratio", "differing pixels")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "demo")
        write_demo_dataset(root)
        manifest = build_manifest("demo", "val", root)
        for late, mode in ((False, "objects together"), (True, "one pass per object")):
            seconds, differing = np.zeros(2), 0
            for entry in manifest.videos[:count]:
                video = Video(entry, root, layout=manifest.layout, late_objects=late)
                outputs = [Path(folder, f"{name}-{late}", entry.name) for name in ("authors", "ours")]
                start = time.process_time()
                authors(predictor, video, root / entry.frames.folder, outputs[0])
                middle = time.process_time()
                ours(tracker, video, outputs[1])
                seconds += [middle - start, time.process_time() - middle]
                for path in sorted(outputs[0].iterdir()):
                    pair = [np.asarray(Image.open(output / path.name)) for output in outputs]
                    differing += int((pair[0] != pair[1]).sum())
            table.add_row(mode, *(f"{s:.2f}" for s in seconds), f"{seconds[0] / seconds[1]:.2f}", str(differing))
    Console().print(table)


if __name__ == "__main__":
    main()
