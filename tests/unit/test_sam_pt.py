"""SAM-PT as a whole: against a plain loop, through the engine, with shared artefacts, on bad and on odd input."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.clips import make_videos, moving_boxes, save_label_map
from tests.unit.plain_sam_pt import plain_label_maps
from tests.unit.toy_sam_pt import ToyPoints, ToySam
from vosflow.artefacts import Artefacts, ArtefactStore
from vosflow.engine import track_shard
from vosflow.errors import VosflowError
from vosflow.manifest import ImageFolder, Manifest, Prompt
from vosflow.method import Method
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.following import PointFollower
from vosflow.trackers.sam_pt.points.base import Tracks
from vosflow.trackers.sam_pt.queries import PointSampler
from vosflow.trackers.sam_pt.settings import Settings
from vosflow.trackers.sam_pt.tracker import SamPtTracker
from vosflow.video import Video

TOYS = {
    "point_tracker": "tests.unit.toy_sam_pt:ToyPoints",
    "sam": "tests.unit.toy_sam_pt:ToySam",
    "longest_size": 64,
    "sam_iou_threshold": 0.0,
    "iterative_refinement_iterations": 3,
}
VARIANTS = [
    "reinit-on-horizon-and-sync-masks",
    "reinit-at-median-of-area-diff",
    "reinit-on-similar-mask-area",
    "reinit-on-similar-mask-area-and-sync-masks",
]

ANEW = {"use_point_reinit": True, "negative_points_per_mask": 2, "iterative_refinement_iterations": 1}


@pytest.fixture
def weights(tmp_path):
    """Files for both roles; toys read them only to see that they are there."""
    roles = {}
    for role in ("point_tracker", "sam"):
        path = tmp_path / f"{role}.pt"
        path.write_bytes(role.encode())
        roles[role] = {"id": role, "path": str(path)}
    return roles


def track(video: Video, weights, **settings) -> dict[str, object]:
    """{frame name: masks} of a video by the toys, with settings on top of theirs."""
    checkpoints = {role: Checkpoint(role, Path(one["path"]), role) for role, one in weights.items()}
    tracker = SamPtTracker(Settings(**{**TOYS, **settings}), checkpoints, "cpu")
    return dict(tracker.track(video))


def late_manifest(folder, *, frames: int = 15, objects: int = 3, layout: str = "label_maps") -> Manifest:
    """A video of boxes, of which each but the first appears three frames after the one before."""
    manifest = make_videos(folder, {"late": frames}, objects)
    entry = manifest.videos[0]
    _, label_maps = moving_boxes(frames, objects)
    prompts = []
    for k in entry.objects:
        name, path = f"{3 * (k - 1):05d}", f"prompts/{k}.png"
        save_label_map(folder / path, label_maps[3 * (k - 1)])
        prompts.append(Prompt(k, name, path))
    entry = dataclasses.replace(entry, prompts=tuple(prompts))
    return dataclasses.replace(manifest, videos=(entry,), late_objects=True, layout=layout)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"negative_points_per_mask": 0},
        {"add_other_objects_positive_points_as_negative_points": False},
        {"iterative_refinement_iterations": 0, "sam_iou_threshold": 0.25},
        {"negative_points_per_mask": 12, "point_tracker_mask_batch_size": 2},
        {"masks_batch_size": 2},
        {"masks_batch_size": 2, "compat": "fixed"},
        {"use_patch_matching_filtering": True, "patch_similarity_threshold": 0.05},
        {"point_tracker_settings": {"hides": 1}},  # no point is seen after the first frame
        {"positive_point_selection_method": "shi-tomasi", "negative_point_selection_method": "random"},
        *({**ANEW, "reinit_variant": variant} for variant in VARIANTS),
        *({**ANEW, "reinit_variant": variant, "compat": "fixed"} for variant in VARIANTS),
        {**ANEW, "reinit_horizon": 5, "point_tracker_settings": {"speed": 9.0}},
        {**ANEW, "reinit_horizon": 5, "point_tracker_settings": {"speed": 9.0}, "compat": "fixed"},
    ],
    ids=str,
)
def test_masks_are_those_of_a_plain_loop(tmp_path, weights, settings):
    """Batches of objects, frames left out, rounds that end early and windows change no pixel."""
    video = Video.of(late_manifest(tmp_path), "late")
    found = track(video, weights, **settings)
    expected = plain_label_maps_of(video, weights, **settings)
    assert list(found) == list(video.frame_names)
    differing = [int((found[name] != want).sum()) for name, want in zip(found, expected, strict=True)]
    assert sum(differing) == 0, differing


@pytest.mark.parametrize("settings", [{}, ANEW, {**ANEW, "reinit_horizon": 3, "compat": "fixed"}], ids=str)
@pytest.mark.parametrize(("frames", "starts"), [(1, (0, 0)), (2, (1, 0)), (4, (3, 3)), (5, (4, 2))])
def test_short_videos_and_objects_that_come_with_the_last_frame(tmp_path, weights, frames, starts, settings):
    """Also with ids that do not follow each other: what is written is the plain loop's, and before a prompt nothing."""
    manifest = make_videos(tmp_path, {"a": frames})
    prompts = []
    for k, start in zip((7, 200), starts, strict=True):
        mask = np.zeros((48, 64), np.uint8)
        mask[4 + k % 7 : 14 + k % 7, 5 + 2 * start : 20 + 2 * start] = k
        save_label_map(tmp_path / f"prompts/{k}.png", mask)
        prompts.append(Prompt(k, f"{start:05d}", f"prompts/{k}.png"))
    entry = dataclasses.replace(manifest.videos[0], objects=(7, 200), prompts=tuple(prompts))
    video = Video.of(dataclasses.replace(manifest, videos=(entry,), late_objects=True), "a")
    found = np.stack(list(track(video, weights, **settings).values()))
    expected = np.array([0, 7, 200])[plain_label_maps_of(video, weights, **settings)]
    if starts[0] > starts[1]:  # objects are numbered as they appear
        expected = np.select([expected == 7, expected == 200], [200, 7])
    np.testing.assert_array_equal(found, expected)
    for prompt, start in zip(prompts, starts, strict=True):
        assert (found == prompt.object)[start].any() and not (found == prompt.object)[:start].any()


def plain_label_maps_of(video: Video, weights, **settings) -> np.ndarray:
    """What the plain loop makes of a video: label maps [T, H, W] by the number of the object, as they appear."""
    s = Settings(**{**TOYS, **settings})
    checkpoints = {role: Checkpoint(role, Path(one["path"]), role) for role, one in weights.items()}
    prompts = [(prompt.object, int(prompt.frame), video.read_prompt(prompt)) for prompt in video.prompts]
    prompts.sort(key=lambda prompt: prompt[1])
    points = ToyPoints(ToyPoints.Settings.model_validate(s.point_tracker_settings), checkpoints, "cpu")
    clip, sample = Clip.of_video(video, longest_side=64), PointSampler(s, video.name)
    return plain_label_maps(clip, prompts, s, sample, points, ToySam(checkpoints, "cpu", "float32"))


def test_a_moving_box_is_followed(tmp_path, weights):
    """The points move as the boxes do, and the boxes have colours of their own."""
    video = Video.of(make_videos(tmp_path, {"a": 8}), "a")
    found = track(video, weights, point_tracker_settings={"hides": 100})
    _, truth = moving_boxes(8)
    overlap = [(found[name] == want)[want > 0].mean() for name, want in zip(found, truth, strict=True)]
    assert min(overlap) > 0.9


def test_nothing_is_computed_twice(tmp_path, weights):
    """A frame is encoded once, one call of the decoder serves all objects, the prompted frame is left out."""
    video = Video.of(make_videos(tmp_path, {"a": 6}, objects=3), "a")
    ToySam.calls = ToySam.encoded = ToyPoints.calls = 0
    seen = {"iterative_refinement_iterations": 0, "point_tracker_settings": {"hides": 100}}
    track(video, weights, negative_points_per_mask=0, **seen)
    assert (ToySam.encoded, ToyPoints.calls, ToySam.calls) == (5, 1, 5)
    ToySam.encoded = 0
    track(video, weights, **ANEW, reinit_horizon=3)
    assert ToySam.encoded == 6, "windows overlap, frames are encoded once"


@pytest.mark.parametrize("costs_by_frames", [False, True])
def test_points_of_all_objects_are_followed_at_once_where_frames_are_the_work(
    tmp_path, weights, monkeypatch, costs_by_frames
):
    """Also those of objects that do not know of each other: else each batch computed the optical flow again."""
    video = Video.of(late_manifest(tmp_path), "late")
    alone = track(video, weights, masks_batch_size=2)
    ToyPoints.calls = 0
    monkeypatch.setattr(ToyPoints, "costs_by_frames", costs_by_frames, raising=False)
    found = track(video, weights, masks_batch_size=2)
    assert ToyPoints.calls == (1 if costs_by_frames else 2)
    assert all((found[name] == masks).all() for name, masks in alone.items())


@pytest.mark.parametrize(
    ("most", "batches", "groups"), [(2, 5, [2, 2, 1]), (5, 3, [3, 2]), (2, 3, [2, 1, 2]), (9, 9, [5])]
)
def test_objects_are_tracked_in_groups_of_those_that_know_of_each_other(most, batches, groups):
    """As in the authors' code, where point trackers see one batch of objects at a time."""
    sizes = []

    class Points:
        weights = {}

        def track(self, clip, queries, artefacts):
            sizes.append(len(queries))
            return Tracks(np.repeat(queries[None, :, 1:], len(clip), 0), np.ones((len(clip), len(queries)), bool))

    settings = Settings(**TOYS, point_tracker_mask_batch_size=most, masks_batch_size=batches)
    follow = PointFollower(settings, Points(), {}, Artefacts(), "a")
    queries = np.arange(15, dtype=np.float32).reshape(5, 1, 3) * [0, 1, 1]
    found = follow(Clip.of_array(np.zeros((2, 48, 64, 3), np.uint8)), queries, np.ones((5, 48, 64), bool), range(5))
    assert sizes == groups
    np.testing.assert_array_equal(found.positions[1], queries[:, :, 1:])


def test_refinement_ends_when_nothing_changes(tmp_path, weights):
    video = Video.of(make_videos(tmp_path, {"a": 3}, objects=1), "a")
    ToySam.calls = 0
    track(video, weights, iterative_refinement_iterations=1000)
    assert ToySam.calls < 100


def test_sharing_changes_nothing(tmp_path, weights):
    """Cold, warm, partly deleted and no cache give equal bytes; what was there is counted."""
    manifest = make_videos(tmp_path / "data", {"a": 7})
    store = ArtefactStore(tmp_path / "cache", gigabytes=1)

    def run(artefacts, **settings):
        video = Video.of(manifest, "a")
        video.artefacts = artefacts
        masks = track(video, weights, **settings)
        return b"".join(mask.tobytes() for mask in masks.values()), artefacts.counts

    without, _ = run(Artefacts())
    cold, made = run(Artefacts(store))
    warm, reused = run(Artefacts(store))
    assert without == cold == warm
    assert made == {"point_tracks": {"made": 1, "reused": 0}, "image_embedding": {"made": 6, "reused": 0}}
    assert reused == {"point_tracks": {"made": 0, "reused": 1}, "image_embedding": {"made": 0, "reused": 6}}
    shutil.rmtree(tmp_path / "cache" / "point_tracks")
    again, counts = run(Artefacts(store))
    assert again == without and counts["point_tracks"]["made"] == 1
    _, counts = run(Artefacts(store), iterative_refinement_iterations=0)
    assert counts == reused, "how SAM is prompted changes neither embeddings nor tracks"
    _, counts = run(Artefacts(store), point_tracker_settings={"speed": 1.0})
    assert counts["point_tracks"]["made"] == 1 and counts["image_embedding"]["reused"] == 6
    _, counts = run(Artefacts(store), seed=73)
    assert counts["point_tracks"]["made"] == 1, "other points"


def test_shards_change_nothing(tmp_path, weights):
    manifest = make_videos(tmp_path / "data", {"a": 4, "b": 6, "c": 5})
    method = Method.of("sam_pt", TOYS, weights)
    for shards in (1, 3):
        for shard in range(1, shards + 1):
            track_shard(method, manifest, tmp_path / f"{shards}", shard=shard, shards=shards)
    files = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1/masks").rglob("*.png"))
    assert len(files) == 15
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "3" / file).read_bytes()


def test_only_frames_that_somebody_wants_are_segmented(tmp_path, weights):
    """As for YouTube-VOS, whose server takes every fifth frame; the points are followed through all of them."""
    manifest = make_videos(tmp_path, {"a": 9})
    everything = track(Video.of(manifest, "a"), weights)
    entry = dataclasses.replace(manifest.videos[0], required=("00000", "00005"))
    ToySam.encoded = 0
    some = track(Video.of(dataclasses.replace(manifest, videos=(entry,)), "a"), weights)
    assert list(some) == ["00000", "00005"] and ToySam.encoded == 1
    assert (some["00005"] == everything["00005"]).all()


def test_a_method_that_matches_masks(tmp_path, weights):
    video = Video.of(late_manifest(tmp_path, frames=8), "late")
    found = track(video, weights, point_tracker="tests.unit.toy_sam_pt:ToyMatcher", negative_points_per_mask=2)
    assert list(found) == list(video.frame_names)
    assert set(np.unique(found["00007"])) <= {0, 1, 2, 3}


def test_objects_by_themselves(tmp_path, weights):
    """The per-object layout has the label map's masks."""
    label_maps = track(Video.of(late_manifest(tmp_path / "a"), "late"), weights)
    masks = track(Video.of(late_manifest(tmp_path / "b", layout="per_object"), "late"), weights)
    for name, label_map in label_maps.items():
        assert all((mask == (label_map == k)).all() for k, mask in masks[name].items())
    assert set(masks["00014"]) == {1, 2, 3}


def test_an_object_smaller_than_a_pixel(tmp_path, weights):
    """Of a prompt that vanishes when frames are made smaller, one pixel stays, and the record says so."""
    manifest = make_videos(tmp_path, {"a": 4}, objects=1)
    label_map = np.zeros((48, 64), np.uint8)
    label_map[9, 13] = 1
    save_label_map(tmp_path / "Annotations/480p/a/00000.png", label_map)
    video = Video.of(manifest, "a")
    track(video, weights, longest_size=16)
    assert video.remarks == ["object 1 has less than a pixel at the size that is worked on."]


@pytest.mark.parametrize("compat", ["published", "fixed"])
def test_frames_and_prompts_in_the_resolution_of_the_camera(tmp_path, weights, compat, monkeypatch):
    """Points are sampled from the large mask; written is that, made smaller, or the small one as it was given."""
    manifest = make_videos(tmp_path, {"a": 3})
    images, label_maps = moving_boxes(3)
    shifted = np.roll(label_maps[0], 3, axis=1)  # to tell the large mask from the small one
    save_label_map(tmp_path / "large/00000.png", shifted.repeat(2, 0).repeat(2, 1))
    for t, image in enumerate(images):
        Image.fromarray(image.repeat(2, 0).repeat(2, 1)).save(tmp_path / f"large/{t:05d}.bmp")
    names = manifest.videos[0].frames.names
    full = {"full_frames": ImageFolder("large", ".bmp", names), "full_masks": ImageFolder("large", ".png", names[:1])}
    video = Video.of(dataclasses.replace(manifest, videos=(dataclasses.replace(manifest.videos[0], **full),)), "a")
    seen = {}

    def sample(self, clip, masks, frames, objects):
        seen.update(frame=clip[0], masks=masks.copy())
        return draw(self, clip, masks, frames, objects)

    draw = PointSampler.__call__
    monkeypatch.setattr(PointSampler, "__call__", sample)
    first = track(video, weights, compat=compat)["00000"]
    np.testing.assert_array_equal(seen["masks"], [shifted == 1, shifted == 2])
    assert np.abs(seen["frame"].astype(int) - images[0]).mean() < 12  # antialiased, but no JPEG in between
    np.testing.assert_array_equal(first, shifted if compat == "published" else label_maps[0])


def test_a_prompt_with_fewer_pixels_than_points(tmp_path, weights):
    manifest = make_videos(tmp_path, {"a": 4}, objects=1)
    label_map = np.zeros((48, 64), np.uint8)
    label_map[9, 13:15] = 1
    save_label_map(tmp_path / "Annotations/480p/a/00000.png", label_map)
    found = track(Video.of(manifest, "a"), weights, positive_points_per_mask=8)
    assert (found["00000"] > 0).sum() == 2


def test_an_empty_prompt_is_refused(tmp_path, weights):
    manifest = make_videos(tmp_path, {"a": 4}, objects=1)
    save_label_map(tmp_path / "Annotations/480p/a/00000.png", np.zeros((48, 64), np.uint8))
    with pytest.raises(VosflowError, match="the prompt of object 1 is empty"):
        track(Video.of(manifest, "a"), weights)


OWN = '''
import numpy as np
from vosflow.trackers.sam_pt.points.base import PointTrackerSettings, Tracks

class Settings(PointTrackerSettings):
    drift: float = 0.5

class Drifting:
    """Points that drift down."""
    Settings = Settings
    weights = {}

    def __init__(self, settings, checkpoints, device):
        self.settings = settings

    def load(self):
        pass

    def track(self, clip, queries, artefacts):
        steps = np.arange(len(clip))[:, None] - queries[None, :, 0]
        positions = np.repeat(queries[None, :, 1:], len(clip), 0)
        positions[..., 1] += self.settings.drift * steps
        return Tracks(positions.astype(np.float32), np.ones(steps.shape, bool))
'''


def test_a_point_tracker_of_ones_own(tmp_path, weights, monkeypatch):
    """One class in a file outside the package, named by import path: that of the README."""
    weights = {"sam": weights["sam"]}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "drifting_points.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(tmp_path / "mine")
    own = {**TOYS, "point_tracker": "drifting_points:Drifting", "point_tracker_settings": {"drift": 1}}
    method = Method.of("sam_pt", own, weights)
    assert method.settings.point_tracker_settings == {"drift": 1.0}
    track_shard(method, make_videos(tmp_path / "data", {"a": 4}), tmp_path / "run", shard=1, shards=1)
    assert len(list((tmp_path / "run/masks/a").glob("*.png"))) == 4
    before = method.code
    with open(tmp_path / "mine" / "drifting_points.py", "a") as file:
        file.write("\nMORE = 1\n")
    assert Method.of("sam_pt", own, weights).code != before, "an edit of it makes masks stale"
    with pytest.raises(VosflowError, match=r"did you mean 'drift'\?"):
        Method.of("sam_pt", {**own, "point_tracker_settings": {"drft": 1}}, weights)
    sys.modules.pop("drifting_points", None)
