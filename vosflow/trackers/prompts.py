"""Prompts of a video in temporal order, checked once for every tracker."""

from __future__ import annotations

from vosflow.errors import VosflowError
from vosflow.manifest import Prompt
from vosflow.video import Video


def prompts_by_frame(video: Video) -> dict[int, list[Prompt]]:
    """The prompts on each frame index that has some; frames in temporal order, objects by id.

    Raises:
        VosflowError: there are no prompts, one is on a frame that the video lacks, or an object first appears after
            the others in a dataset whose objects all start together.
    """
    index_of = {name: index for index, name in enumerate(video.frame_names)}
    by_frame: dict[int, list[Prompt]] = {}
    for prompt in sorted(video.prompts, key=lambda prompt: prompt.object):
        if prompt.frame not in index_of:
            raise VosflowError(
                f"object {prompt.object} of video {video.name} has its prompt on frame {prompt.frame}, "
                "which the video does not have",
                path=prompt.mask,
                expected=f"one of the video's {len(video)} frames, {video.frame_names[0]} to {video.frame_names[-1]}",
                remedy="restore the frame, or write the manifest again",
            )
        by_frame.setdefault(index_of[prompt.frame], []).append(prompt)
    if not by_frame:
        raise VosflowError(
            f"video {video.name} has no prompt",
            expected="the mask of at least one object on one frame",
            remedy="add an annotation, or leave the video out",
        )
    by_frame = dict(sorted(by_frame.items()))
    if not video.late_objects:
        _check_common_start(video, by_frame)
    return by_frame


def first_index(video: Video, by_frame: dict[int, list[Prompt]]) -> int:
    """Index of the first frame with masks: every frame where objects may appear late, else the first prompted one."""
    return 0 if video.late_objects else min(by_frame)


def _check_common_start(video: Video, by_frame: dict[int, list[Prompt]]) -> None:
    first, *later = by_frame.values()
    started = {prompt.object for prompt in first}
    for prompt in (prompt for prompts in later for prompt in prompts):
        if prompt.object not in started:
            raise VosflowError(
                f"object {prompt.object} of video {video.name} first appears on frame {prompt.frame}, "
                f"after the others (frame {first[0].frame})",
                path=prompt.mask,
                expected=f"prompts of all objects on frame {first[0].frame}",
                remedy="declare the dataset as one with late objects (track_object_appearing_later_in_video)",
            )
