"""Training RDE-VOS: losses, schedules, augmentation, samples, and how clips go through the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import RandomResizedCrop

from tests.unit.clips import make_videos, save_label_map
from tests.unit.plain_rde_training import PlainClip
from tests.unit.tiny_rde import make_still_images, make_training_videos
from vosflow.errors import VosflowError
from vosflow.trackers.rde.network import RdeNetwork
from vosflow.training.rde.augmentation import augment_clip, perturb_mask, pseudo_frames, random_box
from vosflow.training.rde.losses import bootstrapped_cross_entropy, pull, weigh_frames
from vosflow.training.rde.measuring import measure, write_samples
from vosflow.training.rde.passes import Batch, Passed, TrainingPass
from vosflow.training.rde.samples import Samples, collate
from vosflow.training.rde.schedules import counted_share, learning_rate, max_jump
from vosflow.training.rde.sets import VideoSet, choose_objects, draw_frames, read_pair, read_set
from vosflow.training.rde.settings import PRESETS, StageSettings
from vosflow.training.rde.start import average_memories, next_network
from vosflow.training.rde.tps import tps_map

SMALL = {"crop": 32, "batch_size": 2, "processes": 1, "workers": 0}


def stage_settings(stage: int, **changes) -> StageSettings:
    return StageSettings(**{**PRESETS["paper"][stage], **SMALL, **changes})


# --- settings and schedules


def test_presets_differ_in_the_weights_of_stage_2_alone():
    paper, released = (
        {n: StageSettings(**values) for n, values in PRESETS[name].items()} for name in ("paper", "released")
    )
    assert {n for n in paper if paper[n] != released[n]} == {2}
    weights = [(s.kl_weight, s.f2_weight, s.f4_weight) for s in (paper[2], released[2])]
    assert weights == [(10, 10, 10), (5, 5, 5)]
    assert [s.iterations * s.batch_size * s.processes for s in paper.values()] == [4_800_000, 4_000_000, 1_200_000] + [
        1_200_000
    ]


def test_what_is_practical_does_not_decide_weights():
    settings = stage_settings(2)
    assert settings.deciding == stage_settings(2, workers=3, save_every=7, threads=2, skip_unreadable=True).deciding
    assert settings.deciding != stage_settings(2, seed=1).deciding
    assert {**settings.deciding, **settings.practical} == {**settings.model_dump(mode="json"), "clips": settings.clips}
    shared = [stage_settings(2, processes=n, batch_size=b).deciding for n, b in ((2, 8), (4, 4), (4, 8))]
    assert shared[0] == shared[1] != shared[2], "the same clips may be shared out anew"


def test_schedules_of_stage_2():
    settings = stage_settings(2)
    assert [learning_rate(settings, i) for i in (0, 62_499, 62_500)] == pytest.approx([2e-5, 2e-5, 2e-6])
    shares = [counted_share(settings, i) for i in (4_999, 5_000, 11_250, 17_500, 70_000)]
    assert shares == pytest.approx([1, 1, 0.575, 0.15, 0.15])
    jumps = [max_jump(settings, i) for i in (0, 7_500, 15_000, 22_500, 30_000, 67_499, 67_500)]
    assert jumps == [5, 10, 15, 20, 25, 25, 5]


def test_warm_up_rises_to_the_rate():
    settings = stage_settings(0, warmup=4)
    assert [learning_rate(settings, i) / settings.learning_rate for i in range(5)] == [0.25, 0.5, 0.75, 1, 1]


# --- losses


def test_frames_count_half_of_the_next_one():
    losses = [torch.tensor(1.0), torch.tensor(10.0), torch.tensor(100.0), torch.tensor(1000.0)]
    assert float(weigh_frames(losses)) == pytest.approx(1 / 16 + 10 / 8 + 100 / 4 + 1000 / 2)


def test_pull_is_the_mean_over_all_elements_and_reaches_both_sides():
    torch.manual_seed(0)
    pulled, target = (torch.randn(2, 5, 3, 3, requires_grad=True) for _ in range(2))
    value = pull(pulled, target)
    with pytest.warns(UserWarning, match="batchmean"):
        wanted = torch.nn.KLDivLoss()(pulled.log_softmax(1), target.softmax(1))
    assert float(value.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    value.backward()
    assert target.grad.abs().max() > 0 and pulled.grad.abs().max() > 0


def test_pull_has_a_gradient_where_the_target_underflows():
    pulled = torch.zeros(1, 2, 1, 1, requires_grad=True)
    target = torch.tensor([200.0, 0.0]).view(1, 2, 1, 1).requires_grad_()
    pull(pulled, target).backward()
    assert torch.isfinite(target.grad).all() and torch.isfinite(pulled.grad).all()


def test_only_the_hardest_pixels_and_the_objects_that_exist_count():
    logits = torch.zeros(2, 3, 4, 5)
    logits[:, 2] = 50.0  # an object that the first clip does not have
    labels = torch.zeros(2, 4, 5, dtype=torch.int64)
    labels[1] = 2
    logits[0, 0, 0, 0] = -9.0  # one hard pixel of 20
    loss = bootstrapped_cross_entropy(logits, labels, torch.tensor([1, 2]), 0.05)
    assert float(loss) == pytest.approx(np.log1p(np.exp(9.0)) / 2, rel=1e-4)


# --- clips through the network


def small_network(*, compresses: bool) -> RdeNetwork:
    torch.manual_seed(1)
    network = RdeNetwork(8, 16, compresses=compresses, others=compresses).eval()
    with torch.no_grad():
        network.value_encoder.conv1.weight[:, 3:] *= 40  # values depend on masks
        if compresses:
            average_memories(network.mem_compress)
    return network


def random_batch(frames: int, slots: int, objects: list[int]) -> Batch:
    torch.manual_seed(2)
    count = len(objects)
    labels = torch.randint(0, 2, (count, frames, 48, 48))
    for clip, number in enumerate(objects):
        if number == 2:
            labels[clip] = torch.randint(0, 3, labels[clip].shape)
    noisy = torch.randint(0, 2, (count, slots, 48, 48)).float()
    for clip, number in enumerate(objects):
        noisy[clip, number:] = 0
    return Batch(torch.randn(count, frames, 3, 48, 48), labels, noisy, torch.tensor(objects))


@pytest.mark.parametrize("frames, slots, objects", [(3, 1, [1, 1]), (5, 2, [2, 1]), (5, 2, [1, 2])])
def test_loss_and_gradients_are_those_of_the_plain_way(frames, slots, objects, monkeypatch):
    """In float64, as pulls are small differences: what is left apart is of the order of the work."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    network = small_network(compresses=frames == 5).double()
    batch = random_batch(frames, slots, objects)
    batch = replace(batch, images=batch.images.double(), noisy=batch.noisy.double())
    settings = stage_settings(2, kl_weight=1e3, f2_weight=1e5, f4_weight=2e5)  # loud enough to be seen
    passed = TrainingPass(network, settings)(batch, 0.3)
    clips = zip(batch.images, batch.labels, batch.noisy, objects, strict=True)
    plain = torch.stack([PlainClip(network, *clip).loss(0.3, 1e3, 1e5, 2e5) for clip in clips]).mean()
    assert passed.loss.item() == pytest.approx(plain.item(), rel=1e-9)
    found, wanted = (torch.autograd.grad(loss, list(network.parameters())) for loss in (passed.loss, plain))
    for (name, _), one, other in zip(network.named_parameters(), found, wanted, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-7 * float(other.abs().max()) + 1e-12), name
    pulls = {"kl", "f2", "f4"} if frames == 5 else {"kl"}
    assert passed.terms.keys() == {"ce"} | pulls
    assert all(passed.terms[name] * getattr(settings, f"{name}_weight") > 0.01 for name in pulls)
    assert passed.predicted.shape == (2, frames - 1, 48, 48)


def test_j_does_not_depend_on_how_many_clips_are_taken_at_once():
    batch = random_batch(5, 2, [1, 2, 2])
    samples = list(zip(batch.images, batch.labels, batch.noisy, batch.objects.tolist(), strict=True))
    step = TrainingPass(small_network(compresses=True), stage_settings(2))
    one, *others = (measure(step, samples, at_once, "cpu") for at_once in (1, 2, 3))
    assert others == pytest.approx([one] * 2)


def test_samples_are_grey_with_coloured_masks_and_white_outlines_of_the_true_ones(tmp_path):
    labels = torch.zeros(1, 2, 192, 192, dtype=torch.int64)
    labels[:, :, 50:150, 40:100] = 1
    predicted = torch.zeros(1, 1, 192, 192, dtype=torch.int64)
    predicted[:, :, :, 100:] = 1

    def step(batch, share):
        return Passed(torch.zeros(()), {}, predicted)

    torch.manual_seed(0)
    sample = torch.randn(2, 3, 192, 192), labels[0], torch.zeros(1, 192, 192), 1
    write_samples(tmp_path / "samples.png", step, [sample], "cpu")
    first, second = np.split(np.asarray(Image.open(tmp_path / "samples.png")).astype(int), 2, axis=1)
    outline = np.zeros((192, 192), bool)
    outline[50:150, [39, 99]] = outline[[49, 149], 40:100] = True
    for picture, masks in ((first, labels[0, 0].numpy()), (second, predicted[0, 0].numpy())):
        assert np.array_equal((picture == 255).all(axis=2), outline)
        coloured = picture.max(axis=2) > picture.min(axis=2)
        assert np.array_equal(coloured[~outline], masks[~outline] > 0)


@pytest.mark.parametrize("compresses", [False, True])
def test_every_weight_gets_a_gradient(compresses):
    step = TrainingPass(small_network(compresses=compresses), stage_settings(2))
    batch = random_batch(5, 2, [2, 2]) if compresses else random_batch(3, 1, [1, 1])
    step(batch, 1.0).loss.backward()
    without = [name for name, p in step.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not without


@torch.no_grad()
def test_sam_begins_as_the_mean_of_both_memories():
    network = RdeNetwork(8, 16)
    average_memories(network.mem_compress, noise=0.0)
    old, new = torch.randn(1, 16, 4, 5), torch.randn(1, 16, 4, 5)
    assert torch.allclose(network.mem_compress.keys(old, new), (old + new) / 2, atol=1e-6)
    old, new = torch.randn(2, 64, 4, 5), torch.randn(2, 64, 4, 5)
    assert torch.allclose(network.mem_compress.values(old, new), (old + new) / 2, atol=1e-6)


# --- augmentation


def test_a_spline_maps_its_points_and_leaves_the_rest_where_nothing_moves():
    rng = np.random.default_rng(0)
    points = rng.random((12, 2))
    height, width = 40, 60
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    assert np.allclose(tps_map(points, points, height, width), np.stack([x, y], axis=2), atol=1e-3)
    pixels = (points * (width, height)).astype(int)  # points at the centres of pixels
    centres = (pixels + 0.5) / (width, height)
    targets = centres + rng.normal(0, 0.02, centres.shape)
    where = tps_map(centres, targets, height, width)
    assert np.allclose(where[pixels[:, 1], pixels[:, 0]], targets * (width, height) - 0.5, atol=1e-2)


def test_a_spline_can_turn_and_stretch():
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], float)
    where = tps_map(corners, corners * (0.5, 1), 10, 10)
    assert np.allclose(where[:, :, 0], np.tile((np.arange(10) + 0.5) * 0.5 - 0.5, (10, 1)), atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 1.0))
def test_perturbed_masks_differ_but_not_much(seed, lowest):
    mask = np.zeros((40, 50), bool)
    mask[10:30, 12:40] = True
    changed = perturb_mask(mask, np.random.default_rng(seed), lowest)
    assert changed.dtype == bool and changed.shape == mask.shape and not mask[0, 0]
    iou = (mask & changed).sum() / (mask | changed).sum()
    assert 0.2 < iou <= 1
    again = perturb_mask(mask, np.random.default_rng(seed), lowest)
    assert np.array_equal(changed, again)


def test_an_empty_mask_stays_empty():
    assert not perturb_mask(np.zeros((9, 9), bool), np.random.default_rng(0), 0.9).any()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(20, 90), st.integers(20, 90))
def test_random_boxes_lie_in_the_image(seed, width, height):
    top, left, h, w = random_box((width, height), np.random.default_rng(seed), (0.36, 1.0))
    assert top >= 0 and top + h <= height and left >= 0 and left + w <= width
    assert h * w >= 0.3 * min(width, height) ** 2


@pytest.mark.parametrize("size", [(854, 480), (480, 854), (640, 480), (500, 480), (91, 91), (37, 100)])
def test_where_no_box_of_that_area_fits_it_is_torchvisions(size):
    wanted = RandomResizedCrop.get_params(Image.new("L", size), scale=[1.1, 1.1], ratio=[3 / 4, 4 / 3])
    assert random_box(size, np.random.default_rng(0), (1.1, 1.1)) == tuple(wanted)


def test_errors_of_masks_reach_a_few_pixels_in_a_crop_of_the_authors_size():
    mask = np.zeros((384, 384), bool)
    mask[90:300, 80:310] = True
    near = cv2.dilate(mask.astype(np.uint8), np.ones((81, 81), np.uint8)) > 0
    for seed in range(5):
        changed = perturb_mask(mask, np.random.default_rng(seed), 0.85)
        iou = (mask & changed).sum() / (mask | changed).sum()
        assert 0.75 < iou < 0.85  # single steps are small, so it ends just below
        assert (changed & ~near).sum() < 0.05 * mask.sum()


def test_colour_goes_from_all_frames_or_none_and_about_once_in_twenty():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    pair = noise, Image.fromarray(np.ones((24, 32), np.uint8))
    for draw in (lambda: augment_clip([pair] * 2, rng, 32, (0.9, 1.0)), lambda: pseudo_frames(pair, rng, 32, 2)):
        grey = [[_saturation(frame) < 12 for frame, _ in draw()] for _ in range(300)]
        assert all(len(set(frames)) == 1 for frames in grey)
        assert 4 <= sum(frames[0] for frames in grey) <= 30


def _saturation(image: Image.Image) -> float:
    pixels = np.asarray(image).astype(int)[8:-8, 8:-8]
    return float(np.median(pixels.max(axis=2) - pixels.min(axis=2)))


def test_masks_move_with_their_images():
    rng = np.random.default_rng(3)
    labels = np.zeros((60, 80), np.uint8)
    labels[15:45, 20:60] = 1
    image = np.full((60, 80, 3), 20, np.uint8)
    image[labels == 1] = 230
    pair = Image.fromarray(image), Image.fromarray(labels)
    frames = augment_clip([pair] * 5, rng, 64, (0.36, 1.0)) + pseudo_frames(pair, rng, 64, 3)
    for changed, mask in frames:
        assert changed.size == mask.size == (64, 64)
        bright = np.asarray(changed.convert("L")) > 170
        mask = np.asarray(mask) == 1
        assert (bright & mask).sum() > 0.85 * (bright | mask).sum()
    assert not np.array_equal(np.asarray(frames[5][0]), np.asarray(frames[6][0]))


# --- samples


@pytest.fixture
def static(tmp_path) -> Path:
    return make_still_images(tmp_path, each=2)


@pytest.fixture
def videos(tmp_path) -> Path:
    return make_training_videos(tmp_path, {"a": 9, "b": 6, "c": 3}, listed=("a", "c"))


def test_davis_takes_the_videos_of_its_list(videos, capsys):
    assert list(read_set("davis", videos).videos) == ["a", "c"]
    assert list(read_set("youtube", videos).videos) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_samples_depend_on_seed_and_position_alone(videos):
    sets, settings = [read_set("davis", videos), read_set("youtube", videos)], stage_settings(2)
    forward, backward = Samples(sets, settings, range(6)), Samples(sets, settings, range(5, -1, -1))
    for index in range(6):
        for one, other in zip(forward[index][:3], backward[5 - index][:3], strict=True):
            assert torch.equal(one, other)
    changed = Samples(sets, stage_settings(2, seed=1), range(6))
    assert any(not torch.equal(forward[i][0], changed[i][0]) for i in range(6))


def test_an_epoch_takes_each_unit_as_often_as_its_set_says(videos):
    sets = [read_set("davis", videos), read_set("youtube", videos)]
    samples = Samples(sets, stage_settings(2), ())
    for epoch in range(2):
        names = [samples.unit(13 * epoch + place)[1] for place in range(13)]
        assert {name: names.count(name) for name in names} == {"a": 6, "b": 1, "c": 6}


def test_held_out_units_are_not_trained_on(static):
    sets, settings = [read_set("static", static)], stage_settings(0, held_out=3)
    samples = Samples(sets, settings, ())
    held = {unit.image for unit, _ in samples.held_out}
    assert len(held) == 3 and len(samples.measured()) == 3
    assert not held & {samples.unit(position).image for position in range(200)}
    with pytest.raises(VosflowError, match="12 videos or images are held out, and the set has 12"):
        Samples(sets, stage_settings(0, held_out=12), ())


def test_batches_of_still_images_and_of_clips(static, videos):
    for kind, root, stage, frames, slots in (("static", static, 0, 3, 1), ("davis", videos, 3, 5, 2)):
        samples = Samples([read_set(kind, root)], stage_settings(stage), range(2))
        batch = collate([samples[0], samples[1]])
        assert batch.images.shape == (2, frames, 3, 32, 32) and batch.labels.shape == (2, frames, 32, 32)
        assert batch.noisy.shape == (2, slots, 32, 32) and batch.labels.max() == slots
        assert set(batch.noisy.unique().tolist()) <= {0.0, 1.0}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(3, 30), st.integers(1, 25), st.sampled_from([1, 5]))
def test_frames_of_a_clip_are_in_order_and_not_too_far_apart(seed, frames, jump, step):
    video = VideoSet(Path("images"), Path("masks"), {"v": [str(t) for t in range(frames)]}, frame_step=step)
    clip = draw_frames(video, "v", np.random.default_rng(seed), 5, jump)
    places = [int(image.stem) for image, _ in clip]
    gaps = np.diff(places if places[0] <= places[-1] else places[::-1])
    assert all(mask == Path("masks/v", f"{image.stem}.png") for image, mask in clip)
    assert len(places) == 5 and gaps.min() >= 0 and gaps.max() <= max(1, jump // step) + 1


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(40, 200), st.integers(1, 25))
def test_clips_begin_where_the_video_leaves_room_for_their_jumps(seed, frames, jump):
    video = VideoSet(Path("images"), Path("masks"), {"v": [str(t) for t in range(frames)]})
    clip = draw_frames(video, "v", np.random.default_rng(seed), 5, jump)
    places = sorted(int(image.stem) for image, _ in clip)
    assert places[0] <= max(jump // 2, frames - 5 * jump)


def test_frames_of_youtube_vos_are_read_at_480p(tmp_path):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (9, 16, 3), dtype=np.uint8)).resize((1280, 720))
    label_map = np.zeros((720, 1280), np.uint8)
    label_map[100:500, 300:900] = 7
    for name, side in (("large", 720), ("fitting", 480), ("tiny", 96)):
        for t in range(3):
            image, mask = (tmp_path / part / name / f"{t:05d}" for part in ("JPEGImages", "Annotations"))
            image.parent.mkdir(parents=True, exist_ok=True)
            small.resize((side * 16 // 9, side)).save(image.with_suffix(".jpg"))
            labels = Image.fromarray(label_map).resize((side * 16 // 9, side), Image.NEAREST)
            save_label_map(mask.with_suffix(".png"), np.asarray(labels))
    videos = read_set("youtube", tmp_path)
    sizes = {name: [part.size for part in videos.read(*videos.files(name, 0))] for name in videos.videos}
    assert sizes == {"fitting": [(853, 480)] * 2, "large": [(853, 480)] * 2, "tiny": [(170, 96)] * 2}
    image, labels = videos.read(*videos.files("large", 0))
    whole, _ = read_pair(*videos.files("large", 0))
    assert np.array_equal(image, whole.resize((853, 480), Image.BICUBIC))
    assert set(np.unique(labels)) == {0, 7} and np.asarray(labels)[100:300, 220:580].all()
    assert read_set("davis", make_training_videos(tmp_path / "davis", {"a": 3})).short_side is None


def test_clips_of_youtube_vos_are_made_of_resized_frames(videos, monkeypatch):
    read, taken = VideoSet.read, []
    monkeypatch.setattr(VideoSet, "read", lambda self, *files: taken.append(files) or read(self, *files))
    samples = Samples([read_set("youtube", videos)], stage_settings(3, held_out=1), range(2))
    for draw in (lambda: samples[0], samples.measured):
        draw()
        assert len(taken) >= 5
        taken.clear()


def test_objects_of_bl30k_are_large_or_shrink():
    first, later = np.zeros((384, 384), np.uint8), np.zeros((384, 384), np.uint8)
    first[:40, :40], first[50:60, 0:12], first[50:60, 20:25], first[40:55, 40:55] = 1, 2, 3, 4  # 1600, 120, 50, 225
    later[:30, 40:] = 4  # grows to 600 pixels
    maps = [first, later, later]
    rng = np.random.default_rng(0)
    seen = {k for _ in range(40) for k in choose_objects(maps, rng, checks_areas=True)}
    assert seen == {1, 2}
    tiny = [labels[:96, :96] for labels in maps]  # a crop of a sixteenth, where pixels count for 16
    tiny[0][50:60, 20:25] = 0
    tiny[0][70, 70:75] = 3  # for 80
    seen = {k for _ in range(40) for k in choose_objects(tiny, rng, checks_areas=True)}
    assert seen == {1, 2, 4}
    assert {k for _ in range(40) for k in choose_objects(maps, rng, checks_areas=False)} == {1, 2, 3, 4}
    assert choose_objects([np.zeros((4, 4), np.uint8)] * 3, rng, checks_areas=False) == []


# --- bad input


def test_sizes_that_differ_are_named(videos):
    mask = videos / "Annotations/480p/a/00000.png"
    save_label_map(mask, np.ones((10, 12), np.uint8))
    with pytest.raises(VosflowError, match="the mask is 12 x 10 pixels, its image 64 x 48") as caught:
        read_pair(videos / "JPEGImages/480p/a/00000.jpg", mask)
    assert caught.value.path == str(mask)


def test_masks_in_colours_are_refused(tmp_path):
    for name, mode in (("0.jpg", "RGB"), ("0.png", "RGB")):
        Image.new(mode, (20, 10), (128, 0, 0)).save(tmp_path / name)
    with pytest.raises(VosflowError, match="no ids of objects"):
        read_pair(tmp_path / "0.jpg", tmp_path / "0.png")
    assert np.asarray(read_pair(tmp_path / "0.jpg", tmp_path / "0.png", binary=True)[1]).max() == 0


def test_short_videos_are_left_out_and_named(videos, capsys):
    for path in (videos / "Annotations/480p/c").glob("*2.png"):
        path.unlink()
    assert list(read_set("youtube", videos).videos) == ["a", "b"]
    assert "1 of 3 videos have fewer than 3 frames with masks and are left out: c" in capsys.readouterr().err


def test_a_set_of_short_videos_only_is_refused(tmp_path):
    make_videos(tmp_path, {"a": 2})
    with pytest.raises(VosflowError, match="no video has the 3 frames with masks that a clip needs"):
        read_set("youtube", tmp_path)


def test_a_corrupt_image_is_named_and_skipped_only_if_asked(videos, capsys):
    broken = videos / "JPEGImages/480p/c/00001.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    sets = [read_set("davis", videos)]
    found = [Samples(sets, stage_settings(3), range(8))[i] for i in range(8)]
    errors = [item for item in found if isinstance(item, VosflowError)]
    assert errors and {error.path for error in errors} == {str(broken)}
    assert isinstance(collate([found[0], errors[0]]), VosflowError)
    skipping = Samples(sets, stage_settings(3, skip_unreadable=True), range(8))
    assert not any(isinstance(skipping[i], VosflowError) for i in range(8))
    assert f"skipped: {broken}: the image cannot be read" in capsys.readouterr().err


def test_weights_of_another_width_or_stage_are_refused(tmp_path):
    path = tmp_path / "stage0.safetensors"
    save_file(small_network(compresses=False).state_dict(), path)
    settings = stage_settings(1)
    network, remarks = next_network(1, path, 8, 16, settings)
    assert network.mem_compress is not None and network.value_encoder.conv1.weight.shape[1] == 5
    assert "4 input channels" in remarks[0] and "no SAM, it begins at random" in remarks[1]
    save_file(network.state_dict(), tmp_path / "stage1.safetensors")
    assert next_network(2, tmp_path / "stage1.safetensors", 8, 16, settings)[1] == []
    with pytest.raises(VosflowError, match="do not fit the network of this training"):
        next_network(1, path, 16, 16, settings)
    with pytest.raises(VosflowError, match="stage 2 comes after stage 1, and these weights have no SAM"):
        next_network(2, path, 8, 16, settings)
