"""When RDE-VOS remembers: the order of work on a video, for videos as in DAVIS and for those as in YouTube-VOS.

Both follow the authors' two inference cores (https://github.com/Limingxing00/RDE-VOS-CVPR2022, 548a889), with what may
look like slips and is part of the published method:

- DAVIS counts frames from the first one (t % mem_every), YouTube-VOS from the last one that was remembered or given,
  since there any frame may bring prompts, and is then remembered out of turn.
- The video's final frame is never remembered, as nothing is tracked after it.
- On a frame where an object is given later, the others are tracked first and then remembered with it, whatever
  mem_every says: their values depend on where the new one is. Where its mask lies, they are not (`tracking.Tracking`).
- Given masks go through soft aggregation like tracked ones, so that the value encoder gets one kind of mask: never
  quite 0 or 1 (`tracking.Tracking`).
- The frame of the prompts is read twice: the one whose masks are not predicted weighs double
  (`memory.COPIES_AT_FIRST`).
- "Last" in a mode's name is the last frame that was remembered, not the one before: that one has no values, which
  would cost the value encoder on every frame (`memory.BLOCKS`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from vosflow.errors import VosflowError
from vosflow.manifest import Prompt
from vosflow.trackers.prompts import prompts_by_frame
from vosflow.trackers.rde import FOR_LATE_OBJECTS
from vosflow.video import Video


@dataclass(frozen=True)
class Step:
    """The work on one frame.

    Attributes:
        index: of the frame.
        prompts: masks that are given on it, of new objects.
        tracks: objects that were given earlier are tracked.
        remembers: the frame joins the memory of these.
    """

    index: int
    prompts: tuple[Prompt, ...] = ()
    tracks: bool = True
    remembers: bool = False


Policy = Callable[[Mapping[int, tuple[Prompt, ...]], int, int], list[Step]]
"""(prompts by frame index, number of frames, mem_every) -> steps, in temporal order, from the first prompt on."""


def davis_steps(prompts: Mapping[int, tuple[Prompt, ...]], frames: int, mem_every: int) -> list[Step]:
    """See `Policy`; all prompts are on one frame."""
    ((first, given),) = prompts.items()
    later = [
        Step(index, remembers=(index - first) % mem_every == 0 and index < frames - 1)
        for index in range(first + 1, frames)
    ]
    return [Step(first, given, tracks=False), *later]


def youtube_steps(prompts: Mapping[int, tuple[Prompt, ...]], frames: int, mem_every: int) -> list[Step]:
    """See `Policy`; objects may be given on any frame."""
    first = remembered = min(prompts)
    steps = [Step(first, prompts[first], tracks=False)]
    for index in range(first + 1, frames):
        remembers = (index in prompts or index - remembered >= mem_every) and index < frames - 1
        steps.append(Step(index, prompts.get(index, ()), remembers=remembers))
        remembered = index if remembers else remembered
    return steps


POLICIES: dict[str, Policy] = {"davis": davis_steps, "youtube": youtube_steps}


def plan_steps(video: Video, policy: str, mem_every: int, wanted: Collection[int]) -> list[Step]:
    """The work on `video`, in temporal order.

    Args:
        policy: a key of `POLICIES`.
        wanted: indices of the frames whose masks are wanted. Other frames are left out if no wanted one depends on
            them.

    Raises:
        VosflowError: bad prompts, see `prompts_by_frame`; an object has several, or the policy does not take them.
    """
    prompts = {index: tuple(given) for index, given in prompts_by_frame(video).items()}
    _check_one_prompt_each(video, prompts)
    if policy == "davis" and len(prompts) > 1:
        first, second = list(prompts)[:2]
        raise VosflowError(
            f"objects of video {video.name} are given on frames {video.frame_names[first]} and "
            f"{video.frame_names[second]}, and the memory policy davis takes all of them on one",
            expected="the prompts of all objects on the first frame",
            remedy=f"track with the settings {FOR_LATE_OBJECTS} (--set policy=youtube)",
        )
    steps = POLICIES[policy](prompts, len(video), mem_every)
    last = max((step.index for step in steps if step.index in wanted), default=-1)
    return [step for step in steps if step.index in wanted or (step.index < last and (step.prompts or step.remembers))]


def _check_one_prompt_each(video: Video, prompts: Mapping[int, tuple[Prompt, ...]]) -> None:
    seen: dict[int, Prompt] = {}
    for prompt in (prompt for given in prompts.values() for prompt in given):
        earlier = seen.setdefault(prompt.object, prompt)
        if earlier is not prompt:
            raise VosflowError(
                f"object {prompt.object} of video {video.name} has masks on frames {earlier.frame} and {prompt.frame}",
                path=prompt.mask,
                expected="one mask of each object, where it first appears: the method takes no more",
                remedy="leave out use_all_masks, or the later masks",
            )
