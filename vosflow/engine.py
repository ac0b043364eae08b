"""The loop of one shard: skip what is finished, track, write, record.

Nothing here depends on Snakemake or on a dataset. Snakemake decides that a shard may be stale; this loop decides per
video, by key, that it is.
"""

from __future__ import annotations

import functools
import gc
import itertools
import math
import numbers
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from vosflow import machine
from vosflow.artefacts import Artefacts, ArtefactStore
from vosflow.digest import code_digest
from vosflow.errors import DiskError, VosflowError
from vosflow.manifest import INSTANCES, LABEL_MAPS, Manifest
from vosflow.mask_writer import VideoMaskWriter, VideoWriter
from vosflow.method import Method
from vosflow.progress import ShardProgress, now
from vosflow.provenance import versions
from vosflow.records import FORMAT, RunFolder, write_json
from vosflow.sharding import plan_shards
from vosflow.trackers.base import Masks, Tracker
from vosflow.trackers.prompts import prompts_by_frame
from vosflow.trackers.registry import load_tracker
from vosflow.video import Video

MOST_IN_A_LABEL_MAP = 255
GPU_IS_FULL = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
TRACKER_REMEDY = "this is for the author of the tracker: vosflow/trackers/base.py says what `track` yields"

OnMasks = Callable[[str, str, Masks], None]
"""Is called with the names of a video and a frame, and the frame's masks."""


def track_shard(
    method: Method,
    manifest: Manifest,
    folder: str | Path,
    *,
    shard: int,
    shards: int,
    device: str = "cpu",
    store: ArtefactStore | None = None,
    progress_file: str | Path | None = None,
) -> dict:
    """Track the videos of shard number `shard` (from 1) of `shards`, and return the shard record.

    Args:
        folder: the run's folder.
        device: "cpu" or "cuda" (already leased).
        store: where costly arrays are kept; it shapes no result.

    Raises:
        VosflowError: some videos failed; the others are finished and stay finished.
    """
    names = plan_shards({video.name: video.cost for video in manifest.videos}, shards)[shard - 1]
    label = f"{manifest.dataset}-{manifest.split} {Path(folder).name} {shard}/{shards}"
    keys = track_videos(
        method, manifest, names, folder, device=device, store=store, label=label, progress_file=progress_file
    )
    run = RunFolder(folder)
    records = {name: run.read_record(name) or {} for name in names}
    for name in names:
        if records[name].get("key") != keys[name]:
            raise VosflowError(
                f"video {name} was finished, but another job has begun to replace its masks by those of other settings",
                path=run.record_path(name),
                expected="one set of settings at a time for a run of this name",
                remedy="let the other job end, or give one of the runs another `name:`, and run snakemake again",
            )
    finished = [{"video": name, "key": keys[name], "finished": records[name]["finished"]} for name in names]
    return {"format": FORMAT, "shard": shard, "shards": shards, "videos": finished}


def track_videos(
    method: Method,
    manifest: Manifest,
    videos: Iterable[str],
    folder: str | Path,
    *,
    device: str = "cpu",
    store: ArtefactStore | None = None,
    label: str = "",
    progress_file: str | Path | None = None,
    masks: str | Path | None = None,
    on_masks: OnMasks | None = None,
) -> dict[str, str]:
    """Track videos of `manifest` into the run folder `folder`; those already finished with the same key are skipped.

    Args:
        store: where costly arrays are kept; it shapes no result.
        masks: another folder for the masks than `{folder}/masks`.
        on_masks: is shown the masks of each frame that is tracked, after they are written. It must not raise.

    Returns:
        {video: key} of all of them.

    Raises:
        VosflowError: names the videos that failed. A bad video does not stop the others; a full disk does.
    """
    run = RunFolder(folder, masks)
    device_name, precision = machine.device_name(device), method.settings.precision_on(device)
    views = {name: manifest.tracking_view(name, full_frames=method.reads_full_frames) for name in videos}
    keys = {name: method.key(view, device, precision) for name, view in views.items()}
    todo = [name for name in keys if not run.is_finished(name, keys[name])]
    if not todo:
        what = f"all {len(keys)} videos are finished already" if keys else "no videos (more shards than videos)"
        print(f"{label or method.tracker}: {what}", file=sys.stderr)
    failures: dict[str, str] = {}
    frames = {name: len(manifest.video(name).frames.names) for name in todo}
    with ShardProgress(label or method.tracker, frames, progress_file) as progress:
        began = time.perf_counter()
        tracker = _load(method, device) if todo else None
        load_seconds: float | None = time.perf_counter() - began  # told once, by the first video
        put_off: list[str] = []  # other jobs are tracking these: they have their turn when nothing else is left to do
        for name in itertools.chain(todo, put_off):
            wait = functools.partial(_wait, progress, run, name) if name in put_off else None
            try:
                with run.lock(name, wait) as ours:
                    if not ours:
                        put_off.append(name)
                        continue
                    if run.is_finished(name, keys[name]):
                        progress.skip_video(name)
                        continue
                    progress.start_video(name)
                    video = Video.of(manifest, name)
                    video.artefacts = _artefacts(method, device, precision, store, video)
                    record = _track_video(tracker, video, run, progress, device, on_masks)
                    record |= {"key": keys[name], "device": device_name, "precision": precision}
                    record["load_seconds"], load_seconds = load_seconds, None
                    record |= {**method.marks, "provenance": method.provenance}
                    write_json(run.record_path(name), record)
            except DiskError:
                raise
            except (Exception, SystemExit) as error:  # whatever goes wrong with one video, the others have their turn
                failures[name] = _explain(error, name, device)
                progress.fail_video(name, failures[name])
                continue
            told = {key: record[key] for key in ("remarks", "seconds", "frames_per_second")}
            progress.finish_video(name, **told)
    if failures:
        listed = "\n".join(f"- {name}: {problem}" for name, problem in failures.items())
        good = len(keys) - len(failures)
        raise VosflowError(
            f"{len(failures)} of {len(keys)} videos failed, the other {good} are finished:\n{listed}",
            path=folder,
            remedy="mend what is named above and run again: only the failed videos run",
        )
    return keys


def _artefacts(method: Method, device: str, precision: str, store: ArtefactStore | None, video: Video) -> Artefacts:
    """Where `video` gets its artefacts. Only those are reused that would come out the same here, to the last bit."""

    @functools.cache
    def code(modules: tuple[str, ...] | None) -> str:
        return method.code if modules is None else code_digest(*modules)

    origin = {
        "device": machine.device_name(device),  # unlike a video's key: what a record says computed it, did
        "threads": os.environ.get("OMP_NUM_THREADS") if device == "cpu" else None,
        "precision": precision,
        "versions": versions(),
    }
    return Artefacts(store, origin=origin, code=code, remark=video.remark)


def _wait(progress: ShardProgress, run: RunFolder, video: str) -> None:
    begun = run.read_record(video) or {}
    progress.wait_for_video(video, f"{begun.get('job', 'unknown')}, since {begun.get('started')}", run.lock_file)


def _track_video(
    tracker: Tracker, video: Video, run: RunFolder, progress: ShardProgress, device: str, on_masks: OnMasks | None
) -> dict:
    """Track one video, write its masks, and return its record without the key."""
    started = now()
    clock = time.perf_counter()
    machine.reset_peak_memory(device)
    # First the promise goes, then the masks change: a kill in between leaves an unfinished video, never a false record.
    begun = {"format": FORMAT, "video": video.name, "started": started, "job": machine.job_name()}
    write_json(run.record_path(video.name), begun)
    _check_label_maps_can_hold(video)
    expected, given, found = set(_expected_frames(video)), set(), set()
    with _writer(run, video) as writer:
        for frame, masks in tracker.track(video):
            _check_frame(tracker, video, frame, given)
            _check_masks(tracker, video, frame, masks)
            writer.write(frame, masks)
            given.add(frame)
            if video.layout == INSTANCES:
                found |= masks.keys()
            progress.frame()
            if on_masks is not None:
                shown = time.perf_counter()
                on_masks(video.name, frame, masks)
                clock += time.perf_counter() - shown  # not the tracker's time
        if expected - given:
            missing = [name for name in video.frame_names if name in expected - given]
            raise VosflowError(
                f"tracker {type(tracker).__name__} gave no masks for {len(missing)} frames of video {video.name}, "
                f"the first is {missing[0]}",
                expected="masks for every frame from the first prompt on (of those in video.required, if it names any)",
                remedy=TRACKER_REMEDY,
            )
        _check_scores(tracker, video, found)
    seconds = time.perf_counter() - clock
    return {
        "format": FORMAT,
        "video": video.name,
        "frames": len(video),
        "objects": len(video.objects),
        "proposed": len(found),
        "seconds": seconds,
        "given": len(given),
        "frames_per_second": len(given) / seconds,
        "peak_memory_bytes": machine.peak_memory_bytes(device),
        "started": started,
        "finished": now(),
        "threads": machine.threads(),
        "remarks": video.remarks,
        "artefacts": video.artefacts.counts,
        "masks": run.count_masks(video.name),
    }


def _writer(run: RunFolder, video: Video) -> VideoWriter:
    if video.layout == INSTANCES:
        from vosflow.instances import InstanceWriter  # pycocotools, for this layout only

        return InstanceWriter(run.masks, video.name, height=video.height, width=video.width, scores=video.scores)
    return VideoMaskWriter(run.masks, video.name, layout=video.layout, palette=video.palette())


def _check_label_maps_can_hold(video: Video) -> None:
    if video.layout == LABEL_MAPS and max(video.objects, default=0) > MOST_IN_A_LABEL_MAP:
        raise VosflowError(
            f"video {video.name} has an object {max(video.objects)}, which no label map of 8 bits can hold",
            expected=f"ids from 1 to {MOST_IN_A_LABEL_MAP}",
            remedy="give its masks as one file per object (per_obj_png_file), or divide the video into several",
        )


def _expected_frames(video: Video) -> tuple[str, ...]:
    """The frames that must have masks. Raises VosflowError for bad prompts.

    All where the tracker proposes objects itself; else those from the first prompt on, as before it there is nothing to
    track, and of these the required ones, if the publisher names any.
    """
    if video.layout == INSTANCES:
        return video.frame_names
    names = video.frame_names[min(prompts_by_frame(video)) :]
    return tuple(name for name in names if name in set(video.required)) if video.required else names


def _check_frame(tracker: Tracker, video: Video, frame: str, given: set[str]) -> None:
    if frame not in video.frame_names or frame in given:
        raise VosflowError(
            f"tracker {type(tracker).__name__} gave "
            + (f"frame {frame} twice" if frame in given else f"masks for {frame!r}, which is no frame")
            + f" of video {video.name}",
            expected=f"names among video.frame_names, once each: {video.frame_names[0]} to {video.frame_names[-1]}",
            remedy=TRACKER_REMEDY,
        )


def _check_masks(tracker: Tracker, video: Video, frame: str, masks: Masks) -> None:
    """Refuse masks of another size, type or with unknown objects: they would be scored as something else."""
    size = (video.height, video.width)
    if video.layout == LABEL_MAPS:
        fits = isinstance(masks, np.ndarray) and masks.dtype == np.uint8 and masks.shape == size
        fits = fits and _are_known(masks, video.objects)
        wanted = f"a uint8 label map {size} with ids among {[0, *video.objects]}"
    elif video.layout == INSTANCES:
        fits = isinstance(masks, Mapping) and all(type(key) is int and key > 0 for key in masks)
        fits = fits and all(mask.dtype == bool and mask.shape == size for mask in masks.values())
        wanted = f"{{object id from 1: bool {size}}}"
    else:
        fits = isinstance(masks, Mapping) and set(masks) <= set(video.objects)
        fits = fits and all(mask.dtype == bool and mask.shape == size for mask in masks.values())
        wanted = f"{{object id: bool {size}}} for objects among {list(video.objects)}"
    if not fits:
        raise VosflowError(
            f"tracker {type(tracker).__name__} gave unusable masks on frame {frame} of video {video.name}: "
            + _describe_masks(masks),
            expected=wanted,
            remedy=TRACKER_REMEDY,
        )


def _check_scores(tracker: Tracker, video: Video, found: set[int]) -> None:
    """Refuse proposed objects without a score: results of video instance segmentation are ranked by it.

    Minus infinity is one, the last of all (SAM-PT gives it); that a server's JSON cannot hold it, submissions check.
    """
    scores = video.scores
    odd = sorted(i for i in found if not isinstance(scores.get(i), numbers.Real) or math.isnan(scores[i]))
    if odd:
        raise VosflowError(
            f"tracker {type(tracker).__name__} gave objects of video {video.name} no score, "
            f"the first is object {odd[0]}: {scores.get(odd[0])!r}",
            expected="video.scores[object id], a number, for each object",
            remedy=TRACKER_REMEDY,
        )


def _are_known(label_map: np.ndarray, objects: tuple[int, ...]) -> bool:
    """Whether a label map holds no ids but those of objects and 0."""
    largest = max(objects, default=0)  # found in a hundredth of the time that counting takes
    if label_map.max(initial=0) > largest:
        return False
    return len(objects) == largest or set(np.flatnonzero(np.bincount(label_map.ravel()))) <= {0, *objects}


def _describe_masks(masks: object) -> str:
    if isinstance(masks, np.ndarray):
        span = f", values {masks.min()} to {masks.max()}" if masks.size else ""
        return f"{masks.dtype} {masks.shape}{span}"
    if isinstance(masks, Mapping):
        return "{" + ", ".join(f"{key!r}: {_describe_masks(mask)}" for key, mask in masks.items()) + "}"
    return f"a {type(masks).__name__}"


def _load(method: Method, device: str) -> Tracker:
    tracker = load_tracker(method.tracker)(method.settings, method.checkpoint, device)
    try:
        tracker.load()
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        raise VosflowError(
            f"out of memory on {device} while loading tracker {method.tracker}",
            expected="enough memory for its weights",
            remedy="end other programs that use the device (nvidia-smi lists them), or run on one with more memory",
        ) from error
    return tracker


def _explain(error: BaseException, video: str, device: str) -> str:
    """What to tell of a failed video; the traceback of what was not foreseen goes to stderr."""
    if isinstance(error, VosflowError):
        return str(error)
    traceback.print_exception(error)
    if not _is_out_of_memory(error):
        return f"{type(error).__name__}: {error} (traceback above)"
    traceback.clear_frames(error.__traceback__)  # else it keeps alive what filled the memory
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
    return str(
        VosflowError(
            f"out of memory on {device} while tracking video {video}",
            expected="enough memory for all objects of the video",
            remedy="run on a device with more memory, or lower image_size or num_maskmem (which changes results)",
        )
    )


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's: it is not imported
        return True
    # Memory that torch's allocator does not give: of the driver, on a GPU that others have filled, and of libraries.
    return isinstance(error, RuntimeError) and any(text in str(error) for text in GPU_IS_FULL)
