"""What changes while a stage is trained, as functions of the iteration: nothing to save, nothing to get out of step."""

from __future__ import annotations

from vosflow.training.rde.settings import StageSettings


def learning_rate(settings: StageSettings, iteration: int) -> float:
    """Adam's rate in an iteration, counted from 0: a tenth after each milestone, rising linearly in the warm-up."""
    passed = sum(iteration >= milestone for milestone in settings.milestones)
    rising = min(1.0, (iteration + 1) / settings.warmup) if settings.warmup else 1.0
    return settings.learning_rate * 0.1**passed * rising


def counted_share(settings: StageSettings, iteration: int) -> float:
    """The share of pixels, those with the largest cross-entropy, that count in an iteration (as in STCN)."""
    start, end = settings.bootstrap
    if iteration < start:
        return 1.0
    if iteration >= end:
        return settings.hardest
    return settings.hardest + (1 - settings.hardest) * (end - iteration) / (end - start)


def max_jump(settings: StageSettings, iteration: int) -> int:
    """Most frames from one of a clip to the next.

    The authors change it between epochs; here it changes at the same shares of the training, wherever epochs end.
    """
    jump = settings.max_jump
    for share, value in settings.jump_changes:
        if iteration >= share * settings.iterations:
            jump = value
    return jump
