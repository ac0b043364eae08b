"""SAM-PT by matching, with SuperGlue's own networks: points from masks, in one go and window by window."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from tests.unit.clips import HEIGHT, WIDTH, moving_boxes
from tests.unit.plain_sam_pt import plain_label_maps
from tests.unit.test_points_superglue import weights_by_name
from tests.unit.test_sam_pt import TOYS, VARIANTS, late_manifest
from tests.unit.toy_sam_pt import ToySam
from vosflow.artefacts import Artefacts, ArtefactStore
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.following import PointFollower
from vosflow.trackers.sam_pt.points import superglue_network
from vosflow.trackers.sam_pt.points.base import Tracks
from vosflow.trackers.sam_pt.points.superglue import SuperGlue, SuperGlueSettings, to_gray
from vosflow.trackers.sam_pt.queries import PointSampler, generator
from vosflow.trackers.sam_pt.settings import Settings
from vosflow.trackers.sam_pt.tracker import SamPtTracker
from vosflow.video import Video

NETWORKS = {"keypoints": superglue_network.SuperPoint, "point_tracker": superglue_network.SuperGlue}
LAYERS = 2  # of attention, instead of 18
SETTINGS = {
    **TOYS,
    "point_tracker": "superglue",
    "point_tracker_settings": {"keypoint_threshold": 0.016, "match_threshold": 0.0},
    "iterative_refinement_iterations": 1,
}


@pytest.fixture(scope="module", autouse=True)
def checkpoints(tmp_path_factory):
    """Files of small networks with weights by recipe; the SAM is a toy, which only looks whether there is one."""
    folder = tmp_path_factory.mktemp("superglue")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(superglue_network, "LAYERS", LAYERS)
        for role, network in NETWORKS.items():
            torch.save(weights_by_name(network()), folder / f"{role}.pt")
        (folder / "sam.pt").write_bytes(b"sam")
        yield {role: Checkpoint(role, folder / f"{role}.pt", role) for role in (*NETWORKS, "sam")}


def plain_matcher(settings: Settings, video: str, checkpoints, seen: list[int]):
    """SuperGlue in SAM-PT, plainly: each object and frame by itself, matches filtered one by one. Appends the number of
    visible points of each call to `seen`."""
    networks = {role: network().eval() for role, network in NETWORKS.items()}
    for role, network in networks.items():
        network.load_state_dict(torch.load(checkpoints[role].path, weights_only=True))
    own = settings.point_tracker_settings
    counts = settings.positive_points_per_mask, settings.negative_points_per_mask

    @functools.cache
    def detect(pixels):
        image = to_gray(np.frombuffer(pixels, np.uint8).reshape(HEIGHT, WIDTH, 3), "cpu")
        return networks["keypoints"].detect(image, own["nms_radius"], own["keypoint_threshold"], own["remove_borders"])

    @functools.cache
    def pairs(here, there):
        """[((x, y) on the mask's frame, (x, y) on the other one)]"""
        first, second = detect(here), detect(there)
        if here == there:
            same = [] if own["compat"] == "published" else first.positions.tolist()
            return [(point, point) for point in same]
        rules = own["sinkhorn_iterations"], own["match_threshold"]
        numbers = networks["point_tracker"].match(first, second, *rules)[0].tolist()
        return [(first.positions[i].tolist(), second.positions[j].tolist()) for i, j in numbers]

    @torch.no_grad()
    def match(clip, first, masks, frames, ids):
        chance = [
            generator(settings.seed, video, k, first + frame, "matches") for k, frame in zip(ids, frames, strict=True)
        ]
        positions = np.full((len(clip), len(masks), sum(counts), 2), -1, np.float32)
        visible = np.zeros(positions.shape[:3], bool)
        for place, count, wanted in ((0, counts[0], True), (counts[0], counts[1], False)):
            for t in range(len(clip)):
                for k, (mask, frame) in enumerate(zip(masks, frames, strict=True)):
                    found, frame = [], 0 if own["compat"] == "published" else frame
                    for here, there in pairs(clip[frame].tobytes(), clip[t].tobytes()) if count else ():
                        x, y = there if own["compat"] == "published" else here
                        if mask[int(y), int(x)] == wanted:
                            found.append(there)
                    number = min(count, len(found))
                    if number:
                        drawn = chance[k].choice(len(found), number, replace=own["compat"] == "published")
                        positions[t, k, place : place + number] = np.array(found)[drawn]
                        visible[t, k, place : place + number] = True
        seen.append(int(visible.sum()))
        return Tracks(positions.reshape(len(clip), -1, 2), visible.reshape(len(clip), -1))

    return match


def run(manifest, checkpoints, artefacts=None, **settings) -> dict[str, np.ndarray]:
    video = Video.of(manifest, "late")
    video.artefacts = artefacts or Artefacts()
    return dict(SamPtTracker(Settings(**SETTINGS, **settings), checkpoints, "cpu").track(video))


@pytest.mark.parametrize(
    ("variant", "compat"),
    [(None, "published"), (None, "fixed"), *zip(VARIANTS, ["published", "fixed", "published", "fixed"], strict=True)],
)
def test_masks_are_those_of_a_plain_loop(tmp_path, checkpoints, compat, variant):
    """Also where objects start again from SAM's masks, on frames of their own or together."""
    more = {"compat": compat, "positive_points_per_mask": 4, "negative_points_per_mask": 3}
    if variant:
        more |= {"use_point_reinit": True, "reinit_variant": variant, "reinit_horizon": 5}
    manifest = late_manifest(tmp_path, frames=8)
    found = run(manifest, checkpoints, **more)
    video, s, seen = Video.of(manifest, "late"), Settings(**SETTINGS, **more), []
    clip = Clip.of_video(video, longest_side=64)
    prompts = [(prompt.object, int(prompt.frame), video.read_prompt(prompt)) for prompt in video.prompts]
    sam = ToySam(checkpoints, "cpu", "float32")
    matcher = plain_matcher(s, "late", checkpoints, seen)
    expected = plain_label_maps(clip, prompts, s, PointSampler(s, "late"), matcher, sam)
    differing = [int((found[name] != want).sum()) for name, want in zip(found, expected, strict=True)]
    assert list(found) == list(video.frame_names) and sum(differing) == 0, differing
    assert len(seen) > 2 if variant else len(seen) == 1
    assert seen[0] > 20 and len({masks.tobytes() for masks in found.values()}) > 3, "something was matched, and moved"


def test_sharing_changes_nothing(tmp_path, checkpoints):
    """Windows are kept by what decides them, chance included: read back, they give the same masks."""
    manifest, store = late_manifest(tmp_path, frames=8), ArtefactStore(tmp_path / "cache", gigabytes=1)
    more = {"compat": "fixed", "use_point_reinit": True, "reinit_horizon": 4, "negative_points_per_mask": 2}
    cold, warm, other = (Artefacts(store) for _ in range(3))
    first = run(manifest, checkpoints, cold, **more, positive_points_per_mask=6)
    again = run(manifest, checkpoints, warm, **more, positive_points_per_mask=6)
    assert all((first[name] == masks).all() for name, masks in again.items())
    assert cold.counts["point_tracks"]["made"] == warm.counts["point_tracks"]["reused"] > 2
    run(manifest, checkpoints, other, **more, positive_points_per_mask=6, seed=73)
    assert other.counts["point_tracks"]["reused"] == 0


@pytest.mark.parametrize("compat", ["published", "fixed"])
def test_an_objects_points_are_the_same_whoever_is_there(checkpoints, compat):
    """Chance is each object's own: neither others in the call nor the size of batches change its points."""
    images, label_maps = moving_boxes(5, 3)
    clip, masks = Clip.of_array(images), np.stack([label_maps[0] == k for k in (1, 2, 3)])
    queries, ids = np.zeros((3, 7, 3), np.float32), [3, 9, 4]

    def points(some: list[int], **settings) -> np.ndarray:
        own = {"positive_points_per_mask": 4, "negative_points_per_mask": 3, "compat": compat}
        s = Settings(**SETTINGS, **own, **settings)
        matcher = SuperGlue(SuperGlueSettings.model_validate(s.point_tracker_settings), checkpoints, "cpu")
        matcher.load()
        follow = PointFollower(s, matcher, checkpoints, Artefacts(), "late")
        found = follow(clip, queries[some], masks[some], [ids[k] for k in some])
        return np.where(found.visibility[..., None] == 1, found.positions, -1)

    together = points([0, 1, 2])
    assert len(np.unique(together[:, 1].reshape(-1, 2), axis=0)) > 5, "something was drawn"
    np.testing.assert_array_equal(points([1])[:, 0], together[:, 1])
    np.testing.assert_array_equal(points([2, 0, 1]), together[:, [2, 0, 1]])
    np.testing.assert_array_equal(points([0, 1, 2], masks_batch_size=2, point_tracker_mask_batch_size=1), together)
    assert (points([0, 1, 2], seed=73) != together).any()


def test_windows_objects_and_splits_of_points_are_not_confused(tmp_path):
    """Equal frames, masks and queries of another time, object or kind of points are something else."""
    drawn = []

    class Matcher:
        weights, matches_masks = {}, True

        def track_masks(self, clip, masks, frames, count, generators):
            drawn.append((count, generators[0].integers(10**6)))
            return Tracks(np.ones((2, count, 2), np.float32), np.ones((2, count), bool))

    clip, masks = Clip.of_array(np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)), np.ones((1, HEIGHT, WIDTH), bool)
    code = []
    artefacts = Artefacts(ArtefactStore(tmp_path, gigabytes=1), code=lambda modules: code.append(modules) or "")
    for positives, first, k in ((2, 0, 1), (2, 3, 1), (2, 0, 1), (1, 0, 1), (2, 0, 5)):
        settings = Settings(**TOYS, positive_points_per_mask=positives, negative_points_per_mask=2 - positives)
        follow = PointFollower(settings, Matcher(), {}, artefacts, "a")
        follow(clip, np.zeros((1, 2, 3), np.float32), masks, [k], first)
    assert [count for count, _ in drawn] == [2, 2, 1, 1, 2], "the third was there"
    assert len({number for _, number in (drawn[0], drawn[1], drawn[4])}) == 3, "another window, another object"
    assert code[0] == ("tests.unit.toy_sam_pt", "vosflow.trackers.sam_pt.following"), "which draws the random numbers"
