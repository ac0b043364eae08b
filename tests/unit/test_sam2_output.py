"""From logits to masks, object by object: as the sam2 package does with all of them stacked."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sam2.modeling.sam2_base import SAM2Base

from vosflow.manifest import LABEL_MAPS, PER_OBJECT
from vosflow.masks import merge_objects
from vosflow.trackers.sam2.output import to_masks

IDS = (1, 4, 7, 200)
LEVELS = (-1024.0, -13.0, -10.0, -9.5, -0.5, 0.0, 0.5, 3.0)  # few: ties are frequent


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    started=st.sets(st.sampled_from(IDS)),
    score_thresh=st.sampled_from((-1024.0, -12.0, -10.0, 0.0, 0.7)),
    size=st.sampled_from(((4, 4), (7, 9), (40, 300))),
    layout=st.sampled_from((LABEL_MAPS, PER_OBJECT)),
)
def test_masks_are_those_of_stacked_scores(seed, started, score_thresh, size, layout) -> None:
    generator = torch.Generator().manual_seed(seed)
    levels = torch.tensor(LEVELS)
    logits = {k: levels[torch.randint(len(LEVELS), (1, 1, 4, 4), generator=generator)] for k in sorted(started)}
    video = SimpleNamespace(height=size[0], width=size[1], layout=layout)
    got = to_masks(logits, video, IDS, score_thresh)
    scores = torch.full((len(IDS), 1, *size), -1024.0)  # what the authors' script gives to objects yet to come
    for k, low in logits.items():
        scores[IDS.index(k)] = F.interpolate(low, size=size, mode="bilinear", align_corners=False)[0]
    if layout == LABEL_MAPS:
        scores = SAM2Base._apply_non_overlapping_constraints(None, scores)
    expected = dict(zip(IDS, (scores[:, 0] > score_thresh).numpy(), strict=True))
    if layout == LABEL_MAPS:
        assert np.array_equal(got, merge_objects(expected, *size)) and got.dtype == np.uint8
    else:
        assert list(got) == list(IDS) and all(np.array_equal(got[k], expected[k]) for k in IDS)
