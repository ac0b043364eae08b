"""The SAMs of SAM-PT: the numbers of the authors' SamPredictor, shared calls, the right weights and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import tiny_sams
from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.parts import SAMS, load_part
from vosflow.trackers.sam_pt.sams import network
from vosflow.trackers.sam_pt.sams.attention import attend
from vosflow.trackers.sam_pt.sams.segment_anything import SegmentAnything
from vosflow.trackers.sam_pt.sams.steps import enlarge
from vosflow.trackers.sam_pt.sams.tiny_vit import attend as attend_in_windows

WHICH = {  # name: (encoder, HQ) of a small one
    "vit_h": ("ViT", False),
    "hq_vit_b": ("ViT", True),
    "mobile_sam": ("TinyViT", False),
    "light_hq_tiny": ("TinyViT", True),
}
SIZE = (44, 70)  # another one than the 64 pixels of the small ViT
RNG = np.random.default_rng(5)
FRAME = RNG.integers(0, 256, (*SIZE, 3), np.uint8)
POINTS = RNG.uniform(0, 44, (3, 5, 2)).astype(np.float32)
LABELS = np.array([[1, 1, 1, 0, 0]] * 3)
AS_LOGITS = {"multimask_output": False, "return_logits": True}
BOXES = np.array([[3, 5, 30, 33], [0, 0, 63, 40], [10, 12, 11, 14]], np.float32)


def own_sam(name: str, path: Path, precision: str = "float32") -> SegmentAnything:
    return load_part("sam", name)({"sam": Checkpoint("own", path, "0" * 64)}, "cpu", precision)


@pytest.fixture(scope="module", params=WHICH)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """(the package's network, ours with the same weights)."""
    theirs = tiny_sams.make_sam(*WHICH[request.param])
    path = tiny_sams.save(theirs, tmp_path_factory.mktemp("sam") / "sam.pth")
    ours = own_sam(request.param, path)
    ours.load()
    return theirs, ours


@pytest.fixture(scope="module", params=["vit_h", "hq_vit_b"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A SAM with a small ViT, and the features of the frame."""
    path = tmp_path_factory.mktemp("sam") / "sam.pth"
    sam = own_sam(request.param, tiny_sams.save(tiny_sams.make_sam(*WHICH[request.param]), path))
    return sam, sam.encode(FRAME)


@pytest.fixture
def vit(tmp_path: Path) -> tuple[dict[str, torch.Tensor], Path]:
    """(state dict, its file) of a small SAM."""
    sam = tiny_sams.make_sam("ViT", False)
    return sam.state_dict(), tiny_sams.save(sam, tmp_path / "sam.pth")


def test_masks_are_those_of_the_authors(pair):
    theirs, ours = pair
    features = ours.encode(FRAME)
    first = ours.decode(features, SIZE, POINTS[:2], LABELS[:2])
    refined = ours.decode(features, SIZE, POINTS[:2], LABELS[:2], BOXES[:2], first.low_res)
    predictor = tiny_sams.package.SamPredictor(theirs)
    predictor.set_image(FRAME)
    # The authors' predictor takes boxes in pixels of the frame.
    scale = np.tile(np.array([70, 44]) / np.array([ours.image_size, round(ours.image_size * 44 / 70)]), 2)
    for i in range(2):
        prompts = {"point_coords": POINTS[i], "point_labels": LABELS[i], **AS_LOGITS}
        logits, iou, low_res = predictor.predict(**prompts)
        np.testing.assert_allclose(first.logits[i], logits[0], atol=2e-4)
        np.testing.assert_allclose(first.low_res[i], low_res, atol=2e-4)
        np.testing.assert_allclose(first.iou[i], iou[0], atol=1e-5)
        logits, iou, _ = predictor.predict(**prompts, box=BOXES[i] * scale, mask_input=first.low_res[i].numpy())
        np.testing.assert_allclose(refined.logits[i], logits[0], atol=2e-4)
        np.testing.assert_allclose(refined.iou[i], iou[0], atol=1e-5)
    assert (first.logits[0] - first.logits[1]).abs().max() > 0.1  # else all of this would hold for constants
    assert (first.logits - refined.logits).abs().max() > 0.1


@pytest.mark.parametrize("count", [0, 1, 5])
def test_together_is_as_one_by_one(small, count):
    ours, features = small
    masks = ours.decode(features, SIZE, POINTS, LABELS, full_size=False).low_res
    points, labels = POINTS[:, :count], LABELS[:, :count]
    for extra in ({}, {"masks": masks}, {"boxes": BOXES, "masks": masks}):
        together = ours.decode(features, SIZE, points, labels, **extra)
        for i in range(3):
            one = {name: values[i : i + 1] for name, values in extra.items()}
            alone = ours.decode(features, SIZE, points[i : i + 1], labels[i : i + 1], **one)
            torch.testing.assert_close(together.logits[i], alone.logits[0], atol=1e-4, rtol=0)
            torch.testing.assert_close(together.iou[i], alone.iou[0], atol=1e-5, rtol=0)


def test_no_point_is_what_the_authors_make_of_it(small):
    ours, features = small
    nothing = ours.decode(features, SIZE, np.zeros((1, 0, 2)), np.zeros((1, 0), int))
    theirs = tiny_sams.make_sam("ViT", ours.kind.startswith("HQ"))
    predictor = tiny_sams.package.SamPredictor(theirs)
    predictor.set_image(FRAME)
    logits, iou, _ = predictor.predict(np.zeros((0, 2)), np.zeros(0, int), **AS_LOGITS)
    np.testing.assert_allclose(nothing.logits[0], logits[0], atol=2e-4)
    np.testing.assert_allclose(nothing.iou[0], iou[0], atol=1e-5)


def test_features_keep_as_arrays(small):
    ours, features = small
    kept = {name: value.numpy().copy() for name, value in features.items()}
    assert {value.dtype for value in kept.values()} == {np.dtype("float32")}
    fresh, again = (ours.decode(given, SIZE, POINTS, LABELS) for given in (features, kept))
    assert torch.equal(fresh.logits, again.logits)


def test_masks_are_enlarged_only_if_wanted(small):
    ours, features = small
    small = ours.decode(features, SIZE, POINTS, LABELS, full_size=False)
    assert small.logits is None
    assert torch.equal(small.low_res, ours.decode(features, SIZE, POINTS, LABELS).low_res)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 130), width=st.integers(1, 130), exact=st.booleans())
def test_enlarging_is_that_of_the_authors(height, width, exact):
    sam = torch.nn.Module()
    sam.image_encoder = torch.nn.Module()
    sam.image_encoder.img_size = 64
    scale = 64 / max(height, width)
    resized = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    size = resized if exact else (height, width)
    low_res = torch.from_numpy(np.random.default_rng(height).standard_normal((2, 1, 16, 16)).astype(np.float32))
    theirs = tiny_sams.modeling.Sam.postprocess_masks(sam, low_res, resized, size)
    assert torch.equal(enlarge(low_res, 64, resized, size), theirs)


@pytest.mark.parametrize("side", [3, 4, 8])
def test_fused_attention_is_that_of_the_authors(side):
    layer = tiny_sams.modeling.image_encoder.Attention(24, 3, use_rel_pos=True, input_size=(side, side))
    tiny_sams.fill(layer)
    tokens = torch.from_numpy(np.random.default_rng(1).standard_normal((2, side, side, 24)).astype(np.float32))
    with torch.no_grad():
        torch.testing.assert_close(attend(layer, tokens), layer(tokens), atol=1e-5, rtol=0)


def test_bfloat16_is_close(tmp_path):
    path = tiny_sams.save(tiny_sams.make_sam("ViT", True), tmp_path / "sam.pth")
    exact, rounded = (own_sam("hq_vit_b", path, precision) for precision in ("float32", "bfloat16"))
    features = rounded.encode(FRAME)
    assert {value.dtype for value in features.values()} == {torch.float32}
    assert 0 < (features["embedding"] - exact.encode(FRAME)["embedding"]).abs().max() < 0.2
    decoded = rounded.decode(features, SIZE, POINTS, LABELS)
    assert {decoded.logits.dtype, decoded.low_res.dtype, decoded.iou.dtype} == {torch.float32}
    reference = exact.decode(features, SIZE, POINTS, LABELS)
    assert 0 < (decoded.logits - reference.logits).abs().max() < 0.1 * reference.logits.abs().max()


@pytest.mark.parametrize("name", ["vit_h", "hq_vit_b"])
def test_proposals_are_those_of_the_authors(name, tmp_path):
    theirs = tiny_sams.make_sam(*WHICH[name])
    tiny_sams.make_confident(theirs)
    ours = own_sam(name, tiny_sams.save(theirs, tmp_path / "sam.pth"))
    records = tiny_sams.package.SamAutomaticMaskGenerator(theirs).generate(FRAME)
    assert len(records) > (20 if name == "vit_h" else 0)  # HQ-SAM draws one that most points agree on
    proposals = ours.propose(FRAME, 20)
    assert (np.diff(proposals.scores) <= 0).all() and proposals.scores.dtype == np.float32
    expected = np.array([record["segmentation"] for record in records[:20]])
    assert proposals.masks.shape == expected.shape and proposals.masks.dtype == bool
    assert 0 < proposals.masks.mean() < 0.6 and (proposals.masks != expected).mean() < 0.01
    np.testing.assert_allclose(proposals.scores, [one["predicted_iou"] for one in records[:20]], atol=1e-5)


def test_nothing_to_propose(vit):
    proposals = own_sam("vit_b", vit[1]).propose(np.zeros((*SIZE, 3), np.uint8), 100)
    assert proposals.masks.shape == (0, *SIZE) and proposals.scores.shape == (0,)


@pytest.mark.parametrize("name", SAMS)
def test_published_sizes_follow_from_the_weights(name):
    registry = tiny_sams.package.sam_model_registry
    if "hq" not in name:
        registry = tiny_sams.package.sam_model_registry_baseline
    tiny = name in ("mobile_sam", "light_hq_tiny")
    with torch.device("cpu" if tiny else "meta"):
        published = registry["vit_tiny" if tiny else name.removeprefix("hq_")]()
    shapes = {key: tuple(value.shape) for key, value in published.state_dict().items()}
    kind = load_part("sam", name).kind
    assert str(network.identify(shapes)) == kind and network.identify(shapes).may_stand_for(kind)
    built = network.build(shapes)
    assert {key: tuple(value.shape) for key, value in built.state_dict().items()} == shapes
    assert built.image_encoder.img_size == 1024
    for i, block in enumerate(getattr(published.image_encoder, "blocks", [])):
        ours = built.image_encoder.blocks[i]
        assert ours.window_size == block.window_size and ours.attn.num_heads == block.attn.num_heads


@pytest.mark.parametrize(("asked", "given"), [("vit_h", "hq_vit_b"), ("hq_vit_h", "vit_h"), ("vit_b", "mobile_sam")])
def test_another_sam_is_refused(asked, given, tmp_path):
    path = tiny_sams.save(tiny_sams.make_sam(*WHICH[given]), tmp_path / "sam.pth")
    with pytest.raises(VosflowError) as caught:
        own_sam(asked, path).load()
    assert load_part("sam", asked).kind in str(caught.value) and str(path) in str(caught.value)
    family = "HQ-SAM with a" if "hq" in given else "SAM with a"
    assert f"these are weights of {family} {WHICH[given][0]} of a size of its own" in str(caught.value)


def test_another_published_size_is_refused(vit, monkeypatch):
    monkeypatch.setitem(network.PUBLISHED, (tiny_sams.VIT["embed_dim"], tiny_sams.VIT["depth"]), "ViT-L")
    own_sam("vit_l", vit[1]).load()
    with pytest.raises(VosflowError, match=r"weights of SAM ViT-L, and SAM ViT-B was asked for"):
        own_sam("vit_b", vit[1]).load()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: weights.pop("prompt_encoder.no_mask_embed.weight"), "1 missing: prompt_encoder.no_mask_embed"),
        (lambda weights: weights.update(more=torch.zeros(1)), "1 unexpected: more"),
        (lambda weights: weights.update({"image_encoder.neck.1.bias": torch.zeros(7)}), "of another shape"),
        (lambda weights: weights.pop("mask_decoder.mask_tokens.weight"), "mask_decoder.mask_tokens.weight"),
        (lambda weights: weights.clear(), "no complete SAM"),
    ],
)
def test_broken_weights_are_refused(change, said, vit):
    weights, path = vit
    change(weights)
    torch.save(weights, path)
    with pytest.raises(VosflowError) as caught:
        own_sam("vit_b", path).load()
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_fused_tiny_vit_is_that_of_the_authors():
    theirs = tiny_sams.make_sam("TinyViT", False).image_encoder
    layer = theirs.layers[2].blocks[0].attn
    tokens = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 49, 12)).astype(np.float32))
    with torch.no_grad():
        torch.testing.assert_close(attend_in_windows(layer, tokens), layer(tokens), atol=1e-5, rtol=0)
