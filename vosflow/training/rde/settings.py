"""What decides a stage of RDE-VOS's training, with the authors' values as presets. Read at planning: no torch.

Source of all values: README and defaults of https://github.com/Limingxing00/RDE-VOS-CVPR2022 (548a889). Where the two
differ, the README's commands are taken.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

CHAINS = ((0, 1, 2), (0, 3))
"""Orders of stages: 0 still images, 1 BL30K, 2 DAVIS and YouTube-VOS after it; 3 the same without BL30K before it."""
SETS = {0: ("static",), 1: ("bl30k",), 2: ("davis", "youtube"), 3: ("davis", "youtube")}
"""The training sets of each stage."""

SHARED = ("batch_size", "processes")
"""How the clips of an iteration are shared out. Their product decides the weights; each alone only last bits."""

PRACTICAL = (
    *SHARED,
    "skip_unreadable",
    "measure_every",
    "log_every",
    "save_every",
    "workers",
    "threads",
    "hours",
)
"""Settings that do not decide the weights (threads but for last bits): a stage under way, or done, may change them.

skip_unreadable decides nothing up to the first file that cannot be read, where training ends without it: it must be
possible to go on from there.
"""

Count = Annotated[int, Field(strict=True, ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class StageSettings(BaseModel):
    """One stage of the training.

    Attributes:
        iterations: updates of the weights.
        learning_rate: of Adam; a tenth of it after each of `milestones` (iterations).
        warmup: iterations in which the rate rises from 0 to that.
        batch_size: clips in one iteration on each process.
        processes: GPUs that train together, one process each; on a CPU processes, too. A stage under way may change to
            another number, if batch_size changes with it: as many clips are in an iteration, and the same ones.
        bootstrap: until the first iteration all pixels count; from there fewer, until at the second only the `hardest`
            share of them does.
        kl_weight: of the pull of values of perturbed masks towards those of the true ones.
        f2_weight, f4_weight: of the pull of what is read of the compressed memory on frames 2 and 4 towards what is
            read of the whole one.
        crop: side of the training images in pixels, a multiple of 16.
        crop_area: share of a frame's area in such a crop, from and to.
        max_jump: most frames between two of a clip at first, then from each of `jump_changes`, (share of the
            iterations, frames), on.
        weight_decay: of Adam.
        clip_gradient: largest norm of the gradient; None: any.
        compression: how SAM begins, if the weights before have none. "random" as the authors' does, "average": it
            begins as the mean of both memories, which does not blow up. See `vosflow.training.rde.start.next_network`.
        precision: of the network on a GPU; "float16" is the authors' automatic mixed precision. What is in float32,
            all of it or the part that must be, has its convolutions in TF32 (torch's default). A CPU computes in
            float32 whatever this says.
        held_out: videos (or images), the last of the set, that are not trained on, but on which J is measured.
        seed: of the order of clips, of crops and of random weights.
        skip_unreadable: go on with another clip where one cannot be read, and say so; else end with an error.
        measure_every, log_every, save_every: iterations between measurements of J, rows of the curves, and work files.
        workers: processes that read clips for each process.
        threads: CPU threads of each process; sums depend on them in their last bits.
        hours: what a scheduler is asked for. A stage that takes longer goes on when it is started again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    iterations: Count
    learning_rate: float = Field(gt=0)
    milestones: tuple[Count, ...] = ()
    warmup: int = Field(0, ge=0)
    batch_size: Count
    processes: Count = 1
    bootstrap: tuple[int, int] = (20_000, 70_000)
    hardest: Share = 0.15
    kl_weight: float = Field(10, ge=0)
    f2_weight: float = Field(10, ge=0)
    f4_weight: float = Field(10, ge=0)
    crop: int = Field(384, ge=32, multiple_of=16)
    crop_area: tuple[Share, Share] = (0.36, 1.0)
    max_jump: Count = 5
    jump_changes: tuple[tuple[Share, Count], ...] = ()
    weight_decay: float = Field(1e-7, ge=0)
    clip_gradient: float | None = Field(None, gt=0)
    compression: Literal["random", "average"] = "random"
    precision: Literal["float32", "float16", "bfloat16"] = "float16"
    held_out: int = Field(0, ge=0)
    seed: int = Field(14159265, ge=0)
    skip_unreadable: bool = False
    measure_every: Count = 5_000
    log_every: Count = 100
    save_every: Count = 1_000
    workers: int = Field(8, ge=0)
    threads: Count = 1
    hours: float = Field(48, gt=0)

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        for name in ("bootstrap", "crop_area"):
            first, last = getattr(self, name)
            if first > last:
                raise ValueError(f"{name}: the first value must not be above the second ({first} > {last})")
        return self

    @property
    def clips(self) -> int:
        """Clips in one iteration, on all processes."""
        return self.batch_size * self.processes

    @property
    def deciding(self) -> dict[str, Any]:
        """What of the settings decides the weights, as plain data."""
        return {**self.model_dump(mode="json", exclude=set(PRACTICAL)), "clips": self.clips}

    @property
    def practical(self) -> dict[str, Any]:
        """The other ones."""
        return self.model_dump(mode="json", include=set(PRACTICAL))


def _jumps(last: float) -> tuple[tuple[float, int], ...]:
    return ((0.1, 10), (0.2, 15), (0.3, 20), (0.4, 25), (last, 5))


AUTHORS: dict[int, dict[str, Any]] = {
    0: {
        "iterations": 75_000,
        "learning_rate": 2e-5,
        "milestones": (37_500,),
        "batch_size": 16,
        "processes": 4,
        "bootstrap": (5_000, 17_500),
    },
    1: {
        "iterations": 500_000,
        "learning_rate": 1e-5,
        "milestones": (400_000,),
        "batch_size": 4,
        "processes": 2,
        "bootstrap": (20_000, 70_000),
        "crop_area": (0.25, 1.0),
        "jump_changes": _jumps(0.8),
    },
    2: {
        "iterations": 75_000,
        "learning_rate": 2e-5,
        "milestones": (62_500,),
        "batch_size": 8,
        "processes": 2,
        "bootstrap": (5_000, 17_500),
        "jump_changes": _jumps(0.9),
    },
    3: {
        "iterations": 150_000,
        "learning_rate": 2e-5,
        "milestones": (125_000,),
        "batch_size": 4,
        "processes": 2,
        "bootstrap": (20_000, 70_000),
        "jump_changes": _jumps(0.9),
    },
}
RELEASED = {"kl_weight": 5, "f2_weight": 5, "f4_weight": 5}
PRESETS = {
    "paper": AUTHORS,  # 10, 10, 10: what the README says of the paper's weights, and the defaults of the code
    "released": {
        **AUTHORS,
        2: {**AUTHORS[2], **RELEASED},
    },  # of the authors' rerun: J&F 85.7 on DAVIS 2017 val, not 86.1; their commands say 5 for stage 2 alone
}
