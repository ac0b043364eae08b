"""Training of the demo's micro SAM 2: reproducible, resumable, and exported so that the tracker can load it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file

from vosflow.datasets.demo import DEMO_SEEDS
from vosflow.errors import VosflowError
from vosflow.training import demo_sam2
from vosflow.training.demo_sam2 import (
    CONFIG,
    FIRST_SEED,
    Batch,
    Phase,
    Prediction,
    Recipe,
    Training,
    build_model,
    draw_batch,
    export,
    frame_loss,
    track,
    train,
)

SHORT = Recipe(updates=3, refine_updates=1, warmup=2, phases=(Phase(0.5, 2, 1), Phase(1.0, 3, 1)))
SIZE = 128


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Training, Path]:
    work = tmp_path_factory.mktemp("undisturbed") / "run.pt"
    return train(SHORT, work, log_every=2, save_every=2), work


def equal(first: Training, second: Training) -> bool:
    one, two = first.model.state_dict(), second.model.state_dict()
    return all(torch.equal(one[name], two[name]) for name in one) and all(
        torch.equal(a, b) for a, b in zip(first.average, second.average, strict=True)
    )


def test_the_network_is_the_micro_sam2():
    model = build_model()
    assert sum(p.numel() for p in model.parameters()) == 1_363_826
    assert (model.image_size, model.num_maskmem, model.hidden_dim, model.mem_dim) == (128, 7, 64, 16)
    assert model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.item() == 1


def test_losses_are_finite_and_weights_change(undisturbed):
    training, work = undisturbed
    assert training.update == SHORT.total
    assert np.isfinite(training.history).all()
    with open(work.with_suffix(".csv"), encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["update"] for row in rows] == ["2", "4"]
    fresh = build_model(seed=SHORT.seed).state_dict()
    changed = [not torch.equal(tensor, fresh[name]) for name, tensor in training.model.named_parameters()]
    assert np.mean(changed) > 0.9  # prompts by points stay as they were


def test_two_runs_are_equal_bit_for_bit(undisturbed, tmp_path):
    assert equal(undisturbed[0], train(SHORT, tmp_path / "run.pt", log_every=2, save_every=2))


def test_a_killed_run_goes_on_as_if_nothing_had_happened(undisturbed, tmp_path, monkeypatch):
    work = tmp_path / "run.pt"
    step = Training.step

    def killed(self):
        if self.update == 3:  # after the save at 2, so that one update is lost and done again
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Training, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(SHORT, work, log_every=2, save_every=2)
    monkeypatch.setattr(Training, "step", step)
    assert Training.load(work).update == 2
    resumed = train(SHORT, work, log_every=2, save_every=2)
    assert equal(resumed, undisturbed[0])
    losses = [[row[:-1] for row in training.history] for training in (resumed, undisturbed[0])]  # all but the seconds
    assert losses[0] == losses[1]


def test_another_seed_gives_other_weights(undisturbed):
    other = Training(replace(SHORT, seed=1))
    other.step()
    assert not equal(other, undisturbed[0])


def test_a_finished_run_is_not_trained_again(undisturbed, monkeypatch):
    monkeypatch.setattr(Training, "step", lambda self: pytest.fail("trained again"))
    assert equal(train(SHORT, undisturbed[1]), undisturbed[0])


def test_a_work_file_of_another_recipe_is_refused(undisturbed):
    with pytest.raises(VosflowError, match="belongs to another training") as caught:
        train(replace(SHORT, updates=5), undisturbed[1])
    assert str(undisturbed[1]) in str(caught.value)


def test_a_damaged_work_file_is_named(tmp_path):
    (tmp_path / "run.pt").write_bytes(b"not a state")
    with pytest.raises(VosflowError, match="run.pt.*not a readable state"):
        Training.load(tmp_path / "run.pt")


def test_exported_weights_load_strictly(undisturbed, tmp_path):
    training, _ = undisturbed
    path = tmp_path / "weights.safetensors"
    export(training, path)
    assert path.stat().st_size < 4e6
    weights = load_file(path)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    model = instantiate(OmegaConf.load(CONFIG).model, _recursive_=True)
    model.load_state_dict(weights, strict=True)
    for parameter, average in zip(model.parameters(), training.average, strict=True):
        assert torch.equal(parameter.detach(), average.half().float())
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"config": "sam2_demo.yaml", "updates": "4", "seed": "0"}


def test_exporting_while_training_goes_on_uses_the_last_saved_state(undisturbed, tmp_path):
    export(Training.load(undisturbed[1]), tmp_path / "snapshot.safetensors")
    export(undisturbed[0], tmp_path / "direct.safetensors")
    snapshot, direct = (load_file(tmp_path / f"{name}.safetensors") for name in ("snapshot", "direct"))
    assert all(torch.equal(snapshot[name], direct[name]) for name in direct)


def test_batches_are_drawn_from_seeds_outside_the_dataset(monkeypatch):
    seeds = []
    render_clip = demo_sam2.render_clip

    def remember(seed, **options):
        seeds.append(seed)
        return render_clip(seed, **options)

    monkeypatch.setattr(demo_sam2, "render_clip", remember)
    draw_batch(SHORT, 0, SIZE)
    assert seeds and min(seeds) >= FIRST_SEED > max(DEMO_SEEDS.values())


@pytest.mark.parametrize("update", [0, 1000, 3000, 5499, 5500])
def test_batches_follow_the_curriculum(update):
    recipe = Recipe()
    batch = draw_batch(recipe, update, SIZE)
    phase = recipe.phase(update)
    assert (phase.frames, phase.clips) == {0: (3, 4), 1000: (5, 3), 3000: (8, 2)}.get(update, (10, 2))
    assert batch.images.shape == (phase.clips, phase.frames, 3, SIZE, SIZE)
    assert batch.masks.shape == (len(batch.clip_of), phase.frames, SIZE, SIZE)
    assert batch.clip_of.unique().tolist() == list(range(phase.clips))
    assert (batch.masks[:, 0].sum((1, 2)) >= recipe.smallest_prompt).all()
    assert abs(batch.images.mean()) < 1.5 and 0.3 < batch.images.std() < 2


def test_the_learning_rate_falls_twice():
    recipe = Recipe()
    rates = [recipe.rate(update) for update in range(recipe.total)]
    assert max(rates) == pytest.approx(recipe.learning_rate, rel=0.01) and rates.index(max(rates)) < 200
    assert rates[recipe.updates - 1] < 0.03 * recipe.learning_rate
    assert max(rates[recipe.updates :]) == pytest.approx(recipe.refine_learning_rate, rel=0.01)
    assert rates[-1] < 0.03 * recipe.refine_learning_rate


def test_every_row_of_memory_is_trained():
    """Gradients reach all seven temporal encodings in the last phase: a study of fewer memories needs them."""
    model = build_model()
    batch = draw_batch(Recipe(updates=10), 9, SIZE)
    batch = Batch(batch.images[:1], batch.clip_of[:1] * 0, batch.masks[:1])
    predictions = track(model, batch)
    frame_loss(predictions[-1], batch.masks[:, -1] | True)[0].backward()
    assert (model.maskmem_tpos_enc.grad.abs().amax((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("true_memory", [False, True])
def test_memory_is_made_of_predicted_or_of_true_masks(true_memory, monkeypatch):
    model = build_model()
    batch = draw_batch(SHORT, 3, SIZE)
    remembered = []
    encode = model._encode_memory_in_output

    def listen(features, sizes, points, run, masks, presence, output):
        remembered.append(masks.detach())
        encode(features, sizes, points, run, masks, presence, output)

    monkeypatch.setattr(model, "_encode_memory_in_output", listen)
    track(model, batch, true_memory=true_memory)
    assert len(remembered) == 2  # nothing is tracked after the last frame
    assert torch.equal(remembered[0] > 0, batch.masks[:, 0:1])  # the prompt
    assert torch.equal(remembered[1] > 0, batch.masks[:, 1:2]) is true_memory


def test_loss_is_small_for_the_truth_and_large_for_its_opposite():
    truth = torch.zeros(2, 32, 32, dtype=torch.bool)
    truth[0, 8:20, 4:24] = True
    truth[1, 12:16, 12:28] = True
    coarse = truth[:, ::4, ::4].float()[:, None].expand(2, 3, 8, 8)
    right = Prediction(coarse * 20 - 10, torch.ones(2, 3), torch.full((2,), 9.0))
    wrong = Prediction(10 - coarse * 20, torch.ones(2, 3), torch.full((2,), 9.0))
    good, log = frame_loss(right, truth)
    assert good < 0.01
    assert log[3] == 1
    assert frame_loss(wrong, truth)[0] > 10 * good + 1


def test_best_of_three_masks_counts_most():
    truth = torch.zeros(1, 32, 32, dtype=torch.bool)
    truth[0, 8:24, 8:24] = True
    coarse = truth[:, ::4, ::4].float() * 20 - 10
    ious = torch.tensor([[1.0, 0.0, 0.0]])
    one_right = Prediction(torch.stack([coarse, -coarse, -coarse], 1), ious, torch.full((1,), 9.0))
    all_wrong = Prediction(torch.stack([-coarse] * 3, 1), ious, torch.full((1,), 9.0))
    assert frame_loss(one_right, truth)[1][0] < 0.2 * frame_loss(all_wrong, truth)[1][0]


def test_absent_objects_count_for_presence_only():
    truth = torch.zeros(1, 32, 32, dtype=torch.bool)
    masks = torch.full((1, 3, 8, 8), 10.0, requires_grad=True)
    presence = torch.tensor([3.0], requires_grad=True)
    loss, log = frame_loss(Prediction(masks, torch.zeros(1, 3), presence), truth)
    loss.backward()
    assert masks.grad.abs().max() == 0
    assert log[0] == 0 and loss.item() == pytest.approx(np.log1p(np.exp(3)), rel=1e-5)
