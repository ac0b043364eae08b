"""RDE-VOS: recurrent dynamic embedding for VOS (Li et al., CVPR 2022, arXiv 2205.03761), on an own network.

The probabilities are those of the authors' code (https://github.com/Limingxing00/RDE-VOS-CVPR2022, 548a889, MIT) in
float32, but for rounding. What objects can share is computed once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint, Masks, TrackerSettings
from vosflow.video import Video

if TYPE_CHECKING:
    from vosflow.trackers.rde.computing import Computing
    from vosflow.trackers.rde.network import RdeNetwork

FOR_LATE_OBJECTS = "preset: youtubevos2019, or only policy: youtube"
DAVIS = {
    "policy": "davis",
    "mode": "two-frames-compress",
    "mem_every": 3,
    "top_k": 40,
    "frames": "all",
    "short_side": None,
}
PRESETS = {
    "davis2017": DAVIS,  # eval_davis.py, val and test-dev
    "davis2016": DAVIS,  # eval_davis_2016.py, whose own default of top is 20, not the 40 of the command
    "youtubevos2019": {  # eval_youtube.py, whose own default of mem_every is 3, not the 4 of the command
        "policy": "youtube",
        "mode": "two-frames-compress",
        "mem_every": 4,
        "top_k": 20,
        "frames": "required",  # without the flag --output_all
        "short_side": 480,
    },
}


class Settings(TrackerSettings):
    """Settings of RDE-VOS.

    Attributes:
        preset: the authors' command (README) for this dataset: where the settings come from that are not given. None:
            the defaults below, which are those of DAVIS.
        mode: what is read of the memory, in the words of the authors' --mode, see `memory.BLOCKS`; "stm" is the memory
            of STM and STCN, which grows with the video.
        mem_every: every so many frames one is remembered.
        top_k: each place of a frame reads from this many places of the memory.
        policy: when frames are remembered, see `policies`; "davis" for objects that are all given on one frame,
            "youtube" for objects that may be given later.
        frames: those that masks are given of: all, or those that a submission must hold. The others are then computed
            where they are remembered; the masks are the same.
        short_side: pixels; frames are resized to this shorter side (None: as they are).
        speed: "exact" computes what the authors' code does, "fast" on a GPU in bfloat16, with channels last, compiled.
            (Other trackers call this `mode`; here that is the authors' word for something else.)
        precision: "bfloat16" rounds all but keys and probabilities; the authors' commands use automatic mixed precision
            in float16 (--amp). None: float32, but bfloat16 in fast mode on a GPU that computes in it.
        compile: the network is compiled by torch.compile when it is loaded, which takes a minute or more the first time
            on a machine, and needs a C compiler. None: in fast mode on a GPU.
    """

    preset: Literal["davis2017", "davis2016", "youtubevos2019"] | None = None
    mode: Literal["two-frames-compress", "gt-compress", "last-compress", "compress", "stm"] = "two-frames-compress"
    mem_every: int = Field(3, strict=True, ge=1)
    top_k: int = Field(40, strict=True, ge=1)
    policy: Literal["davis", "youtube"] = "davis"
    frames: Literal["all", "required"] = "all"
    short_side: int | None = Field(None, strict=True, ge=32, le=4096)
    speed: Literal["exact", "fast"] = "exact"
    precision: Literal["float32", "bfloat16"] | None = None
    compile: bool | None = Field(None, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        """What is not given comes from the preset; an unknown preset is refused by its type."""
        if not isinstance(given, dict):
            return given
        return {**PRESETS.get(str(given.get("preset")), {}), **given}

    def precision_on(self, device: str) -> str:
        """See `TrackerSettings.precision_on`."""
        if self.precision is not None or self.speed == "exact" or device == "cpu":
            return self.precision or "float32"
        import torch

        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"

    def lacking_for_late_objects(self) -> str | None:
        """See `TrackerSettings.lacking_for_late_objects`."""
        return FOR_LATE_OBJECTS if self.policy == "davis" else None

    def compiles_on(self, device: str) -> bool:
        """Whether the network is compiled on `device`, "cpu" or "cuda"."""
        return self.speed == "fast" and device != "cpu" if self.compile is None else self.compile

    def notes(self) -> list[str]:
        """See `TrackerSettings.notes`."""
        notes = []
        if self.preset is not None:
            preset = PRESETS[self.preset]
            changed = {key: getattr(self, key) for key in preset if getattr(self, key) != preset[key]}
            but = ", but " + ", ".join(f"{key}={value}" for key, value in changed.items()) if changed else ""
            notes.append(
                f"preset {self.preset}: the values of the authors' command for this dataset{but}. Their numbers are of "
                "mixed precision (float16)."
            )
        if self.mode == "stm":
            notes.append("mode stm: the memory grows with the video, as that of STM and STCN does; SAM is not used.")
        if self.speed == "fast":
            notes.append(
                "speed fast: on a GPU in bfloat16 where precision is not given; keys, which decide what is read of the "
                "memory, and probabilities stay in float32."
            )
        if self.compile or (self.compile is None and self.speed == "fast"):
            where = "" if self.compile else "on a GPU "
            notes.append(
                f"the network is {where}compiled by torch.compile, which rounds otherwise; that takes a minute or more "
                "where it was not done before, so that for short shards compile: false is faster."
            )
        return notes


class RdeTracker:
    """RDE-VOS as a tracker.

    Args:
        settings: see `Settings`.
        checkpoint: weights by the names of the authors' network (.pth, .pt or .safetensors).
        device: "cpu" or "cuda".
    """

    Settings = Settings
    needs_checkpoint = True
    network = "rde"
    uses_gpu = True

    def __init__(self, settings: Settings, checkpoint: Checkpoint | None, device: str) -> None:
        if checkpoint is None:
            raise VosflowError(
                "the tracker rde needs a checkpoint",
                expected="weights of RDE-VOS",
                remedy="name a checkpoint in the study, or give --checkpoint to scripts/track.py",
            )
        self.settings = settings
        self.checkpoint = checkpoint
        self.device = device
        self._network: RdeNetwork | None = None
        self._computing: Computing | None = None
        self._remarks: list[str] = []

    def load(self) -> None:
        """Build the network and load its weights; does nothing if that was done.

        Raises:
            VosflowError: no GPU where one is demanded, or an unusable checkpoint.
        """
        if self._network is None:
            from vosflow.trackers.rde.checkpoint import build_network
            from vosflow.trackers.rde.computing import resolve_computing

            self._computing = resolve_computing(self.settings, self.device)
            network, self._remarks = build_network(self.checkpoint, self.settings.mode)
            network = self._computing.prepare(network)
            if self._computing.compiles:
                from vosflow.trackers.rde.compiling import compile_parts

                compile_parts(network, self._computing)
                self._remarks.append("the network was compiled by torch.compile")
            self._network = network

    def track(self, video: Video) -> Iterator[tuple[str, Masks]]:
        """Track one video, see `vosflow.trackers.base.Tracker.track`; from the first prompt on.

        Raises:
            VosflowError: bad video, prompts that the policy does not take, or whatever `load` raises.
        """
        self.load()
        from vosflow.trackers.rde.tracking import track_video

        for remark in self._remarks:
            video.remark(remark)
        yield from track_video(self._network, self._computing, video, self.settings)
