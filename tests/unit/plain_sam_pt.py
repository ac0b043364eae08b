"""SAM-PT in the slowest and plainest way: one object, one frame, one decoder call at a time; all logits kept."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch.nn import functional as F

from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.merging import resize_mask
from vosflow.trackers.sam_pt.visibility import mark_differing_patches


def plain_label_maps(clip, prompts, settings, sample, points, sam, *, size=None, alone=False):
    """Label maps [T, H, W] by object number, as SamPt and its evaluation do it.

    `prompts` are [(id, frame, mask)], masks of the size of the clip; `sample` draws points; `points` is a point tracker
    or a function of (clip, frame of the video that it begins with, masks, their frames in the clip, ids) that matches
    masks.
    Label maps have another `size` if it is given. `alone`: points are tracked and frames encoded for each object anew.
    """
    groups = [prompts[k : k + settings.masks_batch_size] for k in range(0, len(prompts), settings.masks_batch_size)]
    if settings.compat == "fixed":
        groups = [prompts]
    run = _forward_anew if settings.use_point_reinit else functools.partial(_forward, alone=alone)
    logits = [one for group in groups for one in run(clip, group, settings, sample, points, sam)]
    if size is not None:
        logits = [F.interpolate(one[:, None], size=size, mode="bilinear", align_corners=False)[:, 0] for one in logits]
        prompts = [(k, start, resize_mask(mask, *size)) for k, start, mask in prompts]
    stack = torch.stack([torch.zeros_like(logits[0]), *logits], 1)  # [T, O + 1, H, W]
    for k, (_, start, mask) in enumerate(prompts, start=1):
        stack[:start, k] = -1e8
        stack[start, k] = torch.where(torch.from_numpy(mask), 1e8, -1e8)
    return stack.softmax(1).argmax(1).numpy()


def _forward(clip, prompts, settings, sample, points, sam, *, alone):
    masks, starts = np.stack([mask for _, _, mask in prompts]), [start for _, start, _ in prompts]
    queries = sample(clip, masks, starts, [k for k, _, _ in prompts])
    groups = np.arange(len(masks))[:, None] if alone else [np.arange(len(masks))]
    ids = np.array([k for k, _, _ in prompts])
    tracks = [_follow(clip, 0, queries[group], masks[group], ids[group], settings, points) for group in groups]
    positions, visibility = (np.concatenate(parts, 1) for parts in zip(*tracks, strict=True))
    return _prompt(clip, 0, positions, visibility, settings, sam, alone=alone)


def _follow(clip, first, queries, masks, ids, settings, points):
    flat = queries.reshape(-1, 3)
    if callable(points):
        tracks = points(clip, first, masks, queries[:, 0, 0].astype(int).tolist(), ids.tolist())
    else:
        tracks = points.track(clip, flat, None)
    visibility = tracks.visible.astype(np.int8)
    if settings.use_patch_matching_filtering:
        mark_differing_patches(
            visibility,
            tracks.positions,
            clip,
            flat,
            size=settings.patch_size,
            threshold=settings.patch_similarity_threshold,
            as_bgr=settings.compat == "published",
        )
    x, y = tracks.positions[..., 0] / clip.width, tracks.positions[..., 1] / clip.height
    visibility[(x < 0.01) | (y < 0.01) | (x > 0.99) | (y > 0.99)] = -2
    shape = (len(clip), *queries.shape[:2])
    return tracks.positions.reshape(*shape, 2), visibility.reshape(shape)


def _prompt(clip, first, positions, visibility, settings, sam, *, alone=False):
    """Logits [L, H, W] of each object on L frames from `first` on."""
    frames, objects = positions.shape[:2]
    logits = [torch.full((frames, clip.height, clip.width), -torch.inf) for _ in range(objects)]
    for t in range(frames):
        features = sam.encode(clip[first + t])
        for k in range(objects):
            if alone and k:
                features = sam.encode(clip[first + t])
            mask = _decode(features, clip, positions[t], visibility[t] == 1, k, settings, sam)
            if mask is not None:
                logits[k][t] = mask
    return logits


def _decode(features, clip, positions, visible, k, settings, sam):
    count, size = settings.positive_points_per_mask, (clip.height, clip.width)
    on = positions[k, :count][visible[k, :count]]
    off = [positions[k, count:][visible[k, count:]]]
    if settings.add_other_objects_positive_points_as_negative_points:
        off += [positions[o, :count][visible[o, :count]] for o in range(len(positions)) if o != k]
    off = np.concatenate(off)
    points, labels = np.concatenate([on, off])[None], np.array([[1] * len(on) + [0] * len(off)])
    if not points.size:
        return None
    masks = None
    if settings.negative_points_per_mask:
        masks = sam.decode(features, size, on[None], labels[:, : len(on)]).low_res
    decoded = sam.decode(features, size, points, labels, masks=masks)
    for _ in range(settings.iterative_refinement_iterations):
        y, x = torch.nonzero(decoded.logits[0] > 0, as_tuple=True)
        if len(y) < 2:
            break
        box = torch.stack([x.min(), y.min(), x.max(), y.max()]).float()
        if settings.compat == "fixed":
            box = box * (sam.image_size / max(size))
        decoded = sam.decode(features, size, points, labels, box[None], decoded.low_res)
    return None if float(decoded.iou[0]) < settings.sam_iou_threshold else decoded.logits[0]


def _forward_anew(clip, prompts, settings, sample, points, sam):
    frames, horizon = len(clip), settings.reinit_horizon
    ids, starts = [k for k, _, _ in prompts], np.array([start for _, start, _ in prompts])
    logits = torch.full((len(prompts), frames, clip.height, clip.width), -torch.inf)
    last = np.stack([mask for _, _, mask in prompts])  # that points come from
    queries = sample(clip, last, starts.tolist(), ids)
    for start in range(frames):
        active = np.flatnonzero(starts == start)
        if not len(active):
            continue
        end = min(start + horizon, frames)
        part = Clip.of_array(
            np.stack([clip[t] for t in range(start, min(start + settings.reinit_point_tracker_horizon, frames))])
        )
        relative = queries[active] - np.float32([start, 0, 0])
        if callable(points) and settings.compat == "published":  # masks that SAM makes of the points
            for k in active:
                features, alone = (
                    sam.encode(clip[start]),
                    (queries[k, :, 1:][None], np.ones((1, queries.shape[1]), bool)),
                )
                found = _decode(features, clip, *alone, 0, settings, sam)
                last[k] = False if found is None else (found > 0).numpy()
        positions, visibility = _follow(part, start, relative, last[active], np.array(ids)[active], settings, points)
        window = torch.stack(_prompt(clip, start, positions[:horizon], visibility[:horizon], settings, sam))
        logits[active, start:end] = window
        if end == frames:
            continue
        masks = window > 0
        areas = masks[:, 1:].sum((2, 3)).float()
        small = areas <= 25
        areas[small] = torch.nan
        if horizon // 4 < areas.shape[1]:
            areas[:, : horizon // 4] = torch.nan
        others = starts[(starts > start) & (starts < frames)]
        sync = int(others.min()) - start - 1 if len(others) else None
        first = masks[:, 0].sum((1, 2))
        for row, k in enumerate(active):
            at = _frame(settings.reinit_variant, areas, first, row, horizon, sync)
            if settings.compat == "fixed" and small[row, at]:
                starts[k] = frames
                logits[k, end:] = -torch.inf
                continue
            starts[k] = start + 1 + at
            last[k] = masks[row, at + 1].numpy()
            queries[k] = sample(clip, last[k][None], [int(starts[k])], [ids[k]])[0]
    return list(logits)


def _frame(variant, areas, first, row, horizon, sync):
    if variant == "reinit-on-horizon-and-sync-masks":
        return horizon - 2 if sync is None else min(horizon - 2, sync)
    if variant == "reinit-at-median-of-area-diff":
        return int(areas[row].nanmedian(0).indices)
    difference = (areas - first[:, None]).abs()
    if variant == "reinit-on-similar-mask-area":
        row_difference = [float("inf") if value != value else value for value in difference[row].tolist()]
        return int(np.argmin(row_difference))
    relative = difference / first[:, None]
    relative[relative.isnan()] = 720
    summed = relative.sum(0)
    if sync is not None and sync < len(summed):
        summed[sync] -= 36
    return int(summed.argmin())
