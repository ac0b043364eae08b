"""Ways of doing the same tracking job, each in a process of its own, and how long and how much memory each takes.

A contender does the whole job of a video: read frames, track, write masks. Its process loads the network once and then
waits for videos, so that several contenders can take turns.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vosflow.manifest import load_manifest


@dataclass(frozen=True)
class Contender:
    """What takes part: a loop that shares nothing (a key of `LOOPS`), or a tracker by its name in the registry.

    Attributes:
        label: its name in the tables.
        tracker: "authors" (of SAM 2), "plain_rde", "plain_sam_pt", or any tracker.
        weights: id, path and config of a checkpoint, as `Method.of` takes them.
        settings: of the tracker.
        copies: SAM2Long evaluates every pathway, also those that are copies of each other, as its authors' code does;
            the plain loop of SAM-PT tracks points and encodes frames for each object anew, that of RDE-VOS does the
            latter.
    """

    label: str
    tracker: str
    weights: Mapping[str, str]
    settings: Mapping[str, object] = field(default_factory=dict)
    copies: bool = False


@dataclass(frozen=True)
class Cost:
    """Of one video. On a CPU `seconds` are CPU seconds of all threads, on a GPU seconds by the clock.

    `peak_bytes` is the resident memory of the process (CPU), or allocated memory (GPU), at its highest. `evaluations`
    counts calls of the mask decoder for one object, `remarks` are the tracker's, `stages` the seconds of its parts.
    """

    frames: int
    seconds: float
    peak_bytes: int
    evaluations: int
    remarks: tuple[str, ...] = ()
    stages: Mapping[str, float] = field(default_factory=dict)


class Racer:
    """A contender in its process. Use as a context manager."""

    def __init__(self, contender: Contender, device: str) -> None:
        self.contender = contender
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(contender, device, there), daemon=True)

    def __enter__(self) -> Racer:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._here.send(None)
        self._process.join()

    def track(self, manifest: Path, video: str, output: Path) -> Cost:
        """Track a video of the manifest file into the folder `output`."""
        self._here.send((manifest, video, output))
        answer = self._here.recv()
        if isinstance(answer, str):
            raise RuntimeError(f"{self.contender.label}: {answer}")
        return answer


def _serve(contender: Contender, device: str, pipe) -> None:
    """The loop of a process: a video in, its cost out."""
    os.environ["TQDM_DISABLE"] = "1"  # the sam2 package's progress bars
    import traceback

    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32 for all contenders, not for ours alone
    work = LOOPS.get(contender.tracker, Ours)(contender, device)
    while (job := pipe.recv()) is not None:
        try:
            pipe.send(_measure(work, device, *job))
        except Exception:
            pipe.send(traceback.format_exc())


def _measure(work: Authors | PlainRdeLoop | Ours, device: str, manifest_path: Path, name: str, output: Path) -> Cost:
    import torch

    from vosflow.machine import peak_memory_bytes, reset_peak_memory
    from vosflow.video import Video

    video = Video.of(load_manifest(manifest_path), name)
    work.evaluations = 0
    stages = getattr(work, "stages", {})
    stages.update(dict.fromkeys(stages, 0.0))
    reset_peak_memory(device)
    clock = time.perf_counter if device == "cuda" else time.process_time
    start = clock()
    work.track(video, output)
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = clock() - start
    remarks = tuple(video.remarks)
    return Cost(len(video), seconds, peak_memory_bytes(device), work.evaluations, remarks, dict(stages))


class Ours:
    """A tracker of vosflow and the engine's inner loop."""

    def __init__(self, contender: Contender, device: str) -> None:
        from vosflow.method import Method
        from vosflow.trackers.registry import load_tracker

        method = Method.of(contender.tracker, contender.settings, contender.weights)
        self._tracker = load_tracker(contender.tracker)(method.settings, method.checkpoint, device)
        self._tracker.load()
        self.evaluations = 0
        if hasattr(self._tracker, "_steps"):
            _count_decodings(self, self._tracker._steps.predictor)
        self.stages = _watch_stages(self, self._tracker) if contender.tracker == "sam_pt" else {}
        if contender.copies:
            _evaluate_copies()

    def track(self, video, output: Path) -> None:
        """Write the masks of `video` to `output`."""
        from vosflow.mask_writer import VideoMaskWriter

        with VideoMaskWriter(output.parent, output.name, layout=video.layout, palette=video.palette()) as writer:
            for frame, masks in self._tracker.track(video):
                writer.write(frame, masks)


class Authors:
    """The loop of `tools/vos_inference.py` of facebookresearch/sam2 (2b90b9f), driven through the installed package.

    All frames are loaded, objects are prompted and propagated (together; or, where objects may appear late, one after
    another), all masks are kept and written at the end.
    """

    def __init__(self, contender: Contender, device: str) -> None:
        from vosflow.trackers.base import Checkpoint
        from vosflow.trackers.sam2 import Settings
        from vosflow.trackers.sam2.network import build_predictor

        settings = Settings(**contender.settings)
        weights = contender.weights
        checkpoint = Checkpoint(weights["id"], Path(weights["path"]), "", weights["config"])
        self._predictor = build_predictor(checkpoint, settings, device)
        self._rounds = settings.precision == "bfloat16"
        self._device = device
        self.evaluations = 0
        _count_decodings(self, self._predictor)

    def track(self, video, output: Path) -> None:
        """Write the masks of `video` to `output`."""
        import torch

        with torch.inference_mode(), torch.autocast(self._device, torch.bfloat16, enabled=self._rounds):
            self._track(video, output)

    def _track(self, video, output: Path) -> None:
        import torch
        from PIL import Image

        from vosflow.masks import merge_objects

        predictor = self._predictor
        predictor.non_overlap_masks = not video.late_objects
        prompts = {prompt.object: video.read_prompt(prompt) for prompt in video.prompts}
        state = predictor.init_state(str(video.frame_path(0).parent), async_loading_frames=False)
        size = (state["video_height"], state["video_width"])
        groups = [[k] for k in prompts] if video.late_objects else [list(prompts)]
        scores: dict[int, dict[int, torch.Tensor]] = {}
        masks: dict[int, dict[int, object]] = {}
        for group in groups:
            predictor.reset_state(state)
            for k in group:
                predictor.add_new_mask(state, 0, k, prompts[k])
            for index, ids, logits in predictor.propagate_in_video(state):
                if video.late_objects:
                    scores.setdefault(index, {}).update(zip(ids, logits.cpu(), strict=True))
                else:
                    masks[index] = {k: (logits[i, 0] > 0).cpu().numpy() for i, k in enumerate(ids)}
        for index, by_object in scores.items():
            stacked = predictor._apply_non_overlapping_constraints(torch.stack([by_object[k] for k in prompts]))
            masks[index] = dict(zip(prompts, (stacked[:, 0] > 0).numpy(), strict=True))
        output.mkdir(parents=True, exist_ok=True)
        for index, by_object in masks.items():
            image = Image.fromarray(merge_objects(by_object, *size))
            image.putpalette(video.palette())
            image.save(output / f"{video.frame_names[index]}.png")


class PlainRdeLoop:
    """RDE-VOS object by object and frame by frame, as in tests/unit/plain_rde.py; masks are written at the end.

    With `copies`, each frame is also encoded for each object anew; else once for all of them, as in the authors' code.

    With the setting precision: bfloat16 it is in automatic mixed precision, as the authors' scripts are (in float16).
    """

    def __init__(self, contender: Contender, device: str) -> None:
        import torch

        from tests.unit.plain_rde import PlainRde
        from vosflow.trackers.rde import Settings

        settings = Settings(**contender.settings)
        weights = torch.load(contender.weights["path"], map_location=device, weights_only=True)
        self._method = PlainRde(weights, settings.mode, settings.mem_every, settings.top_k)
        if not contender.copies:
            _share_frames(self._method)
        self._rounds = settings.precision == "bfloat16"
        self._device = device
        self.evaluations = 0

    def track(self, video, output: Path) -> None:
        """Write the masks of `video`, whose objects all start on its first frame, to `output`."""
        import torch

        from vosflow.mask_writer import VideoMaskWriter
        from vosflow.trackers.rde.images import Frame

        frame = Frame.of(video.height, video.width, None)
        prompts = sorted(video.prompts, key=lambda prompt: prompt.object)
        ids = torch.tensor([0, *(prompt.object for prompt in prompts)], dtype=torch.uint8, device=self._device)
        with torch.inference_mode(), torch.autocast(self._device, torch.bfloat16, enabled=self._rounds):
            images = torch.stack([frame.image(video.read_frame(t)) for t in range(len(video))]).to(self._device)
            masks = torch.stack([frame.mask(video.read_prompt(prompt)) for prompt in prompts]).to(self._device)
            probabilities = self._method.davis(images, masks)
        with VideoMaskWriter(output.parent, output.name, layout=video.layout, palette=video.palette()) as writer:
            for name, of_frame in zip(video.frame_names, probabilities, strict=True):
                writer.write(name, frame.label_map(of_frame, ids).cpu().numpy())


def _share_frames(method) -> None:
    """Have a `PlainRde` encode each frame once: its features, its key, and what the decoder adds of it."""
    last: dict[str, tuple] = {}

    def once(name: str, function, tensor):
        if name not in last or last[name][0].data_ptr() != tensor.data_ptr():
            last[name] = tensor, function(tensor)  # the tensor is kept, or another could come to lie in its place
        return last[name][1]

    encode, conv = method._image_features, method._conv
    of_frames = ("key_proj.key_proj", "key_comp", "decoder.up_16_8.skip_conv", "decoder.up_8_4.skip_conv")

    def shared_conv(name: str, x, **options):
        return once(name, lambda x: conv(name, x, **options), x) if name in of_frames else conv(name, x, **options)

    method._image_features = lambda image: once("image", encode, image)
    method._conv = shared_conv


class PlainSamPtLoop:
    """SAM-PT as in tests/unit/plain_sam_pt.py: one object, one frame, one call of the decoder at a time.

    With `copies`, each object is also tracked by itself, each frame encoded for each object, and for each window of
    PIPs anew, and SAM is the package's own predictor; else these are shared, and SAM is ours.
    """

    def __init__(self, contender: Contender, device: str) -> None:
        from vosflow.method import Method
        from vosflow.trackers.sam_pt.tracker import SamPtTracker

        method = Method.of("sam_pt", contender.settings, contender.weights)
        self._tracker = SamPtTracker(method.settings, method.checkpoint, device)
        self._tracker.load()
        self._alone = contender.copies
        if contender.copies:
            from vosflow.trackers.sam_pt.points import pips_features

            pips_features.KEPT_BYTES = 0
            self._tracker._sam = PackageSam(contender.weights["sam"]["path"], method.settings.sam, device)
        self.evaluations = 0
        self.stages = _watch_stages(self, self._tracker)

    def track(self, video, output: Path) -> None:
        """Write the masks of `video`, whose objects all start on its first frame, to `output`."""
        import torch

        from tests.unit.plain_sam_pt import plain_label_maps
        from vosflow.mask_writer import VideoMaskWriter
        from vosflow.trackers.sam_pt.clip import Clip
        from vosflow.trackers.sam_pt.merging import resize_mask
        from vosflow.trackers.sam_pt.queries import PointSampler

        tracker = self._tracker
        clip = Clip.of_video(video)
        prompts = [(prompt.object, 0, video.read_prompt(prompt)) for prompt in video.prompts]
        worked = [(k, start, resize_mask(mask, clip.height, clip.width)) for k, start, mask in prompts]
        sampler = PointSampler(tracker.settings, video.name)
        parts = (tracker.settings, sampler, tracker._point_tracker, tracker._sam)
        with torch.inference_mode():
            label_maps = plain_label_maps(clip, worked, *parts, size=(video.height, video.width), alone=self._alone)
        with VideoMaskWriter(output.parent, output.name, layout=video.layout, palette=video.palette()) as writer:
            for name, label_map in zip(video.frame_names, label_maps, strict=True):
                writer.write(name, label_map.astype("uint8"))


class PackageSam:
    """A SAM as the authors of SAM-PT drive it: the package's predictor, one object at a time."""

    def __init__(self, path: str, name: str, device: str) -> None:
        import torch
        from segment_anything_hq import SamPredictor, sam_model_registry_baseline

        network = sam_model_registry_baseline["vit_tiny" if name == "mobile_sam" else name]()
        network.load_state_dict(torch.load(path, weights_only=True))
        self._predictor = SamPredictor(network.to(device).eval())
        self._device = device
        self.image_size = network.image_encoder.img_size

    def encode(self, frame) -> None:
        """The predictor keeps the features."""
        self._predictor.set_image(frame)

    def decode(self, features: None, size, points, labels, boxes=None, masks=None):
        """As `vosflow.trackers.sam_pt.sams.base.Sam.decode`, on the frame that was encoded last."""
        import torch

        from vosflow.trackers.sam_pt.sams.base import Decoded

        points = torch.as_tensor(self._predictor.transform.apply_coords(points, size), dtype=torch.float32)
        logits, iou, low_res = self._predictor.predict_torch(
            points.to(self._device),
            torch.as_tensor(labels, dtype=torch.int32, device=self._device),
            boxes,
            masks,
            multimask_output=False,
            return_logits=True,
        )
        return Decoded(logits[:, 0], low_res, iou[:, 0])


LOOPS = {"authors": Authors, "plain_rde": PlainRdeLoop, "plain_sam_pt": PlainSamPtLoop}


def _watch_stages(work: PlainSamPtLoop | Ours, tracker) -> dict[str, float]:
    """Count what the decoder of a SAM-PT is called for, and the CPU seconds of each stage (the clock's on a GPU)."""
    stages = {"encode": 0.0, "decode": 0.0, "points": 0.0}

    def watch(part: object, method: str, stage: str) -> None:
        original = getattr(part, method)

        def timed(*args, **named):
            import torch

            clock = time.perf_counter if torch.cuda.is_available() else time.process_time
            start = clock()
            result = original(*args, **named)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            stages[stage] += clock() - start
            if stage == "decode":
                work.evaluations += len(args[2])
            return result

        setattr(part, method, timed)

    watch(tracker._sam, "encode", "encode")
    watch(tracker._sam, "decode", "decode")
    watch(tracker._point_tracker, "track", "points")
    return stages


def _count_decodings(work: Authors | Ours, predictor) -> None:
    """Have `work.evaluations` count the objects that the mask decoder is called for."""

    def count(_module: object, _args: object, named: dict) -> None:
        work.evaluations += len(named["image_embeddings"])

    predictor.sam_mask_decoder.register_forward_pre_hook(count, with_kwargs=True)


def _evaluate_copies() -> None:
    """Make SAM2Long work for copies, too: as many evaluations and memories as pathways, as in its authors' code."""
    from vosflow.trackers.sam2long.tracking import PathwayDecoder
    from vosflow.trackers.sam2long.tree import MemoryTree

    recalls, choose = MemoryTree.recalls, MemoryTree.choose
    propose, keep = PathwayDecoder.propose, PathwayDecoder.keep
    wanted: list[int] = [0]

    def recall_all(self, frame):
        own = recalls(self, frame)
        return own + own[:1] * (len(self._pathways) - len(own))

    def choose_from(self, frame, proposed):
        return choose(self, frame, proposed[: len(set(self._pathways))])

    def propose_all(self, frame, recalls):
        wanted[0] = len(recalls)
        return propose(self, frame, recalls)

    def keep_all(self, frame, candidates, *, remember):
        copies = candidates[:1] * (wanted[0] - len(candidates))
        return keep(self, frame, [*candidates, *copies], remember=remember)[: len(candidates)]

    MemoryTree.recalls, MemoryTree.choose = recall_all, choose_from
    PathwayDecoder.propose, PathwayDecoder.keep = propose_all, keep_all
