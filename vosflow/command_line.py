"""The options of scripts/track.py: those of SAM 2's and SAM2Long's `tools/vos_inference.py`, and what they mean."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from vosflow.catalog import known
from vosflow.config import ExecutionConfig
from vosflow.datasets.folder import video_names
from vosflow.errors import VosflowError
from vosflow.manifest import LABEL_MAPS, PER_OBJECT, Manifest
from vosflow.method import Method, parse_assignments, parse_settings
from vosflow.trackers.base import Part
from vosflow.trackers.registry import load_tracker
from vosflow.weights import fetched_checkpoint, id_of_file, parts_of

SETTINGS = ("score_thresh", "apply_postprocessing", "precision", "num_pathway", "iou_thre", "uncertainty")


def track_parser(description: str) -> argparse.ArgumentParser:
    """The parser of scripts/track.py."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--tracker", required=True, help="static, flow, sam2, sam2long, rde, sam_pt, or your own: package.module:Class")
    add(
        "--sam2_checkpoint",
        "--checkpoint",
        dest="checkpoint",
        nargs="+",
        default=[],
        metavar="FILE",
        help="weights: .pt or .safetensors; for a tracker of several networks ROLE=FILE ..., else those in --data",
    )
    add("--sam2_cfg", "--config", dest="config", help="e.g. configs/sam2.1/sam2.1_hiera_b+.yaml, or your own YAML file")
    add("--base_video_dir", required=True, help="folder of videos: {video}/{frame}.jpg")
    add("--input_mask_dir", required=True, help="folder of prompts: {video}/{frame}.png, pixel value = object id")
    add("--video_list_file", help="one video per line (default: all folders in base_video_dir)")
    add("--output_mask_dir", required=True, type=Path, help="where the masks go")
    add("--overwrite", action="store_true", help="replace masks in it that are of other settings or of other origin")
    add("--use_all_masks", action="store_true", help="all input masks are prompts, not only each object's first one")
    add("--per_obj_png_file", action="store_true", help="masks, in and out, are {video}/{object}/{frame}.png")
    add(
        "--track_object_appearing_later_in_video",
        action="store_true",
        help="objects start at their first mask (sam2long, sam_pt: always)",
    )
    add("--score_thresh", type=float, help="a pixel is an object's above this logit (sam2; default 0)")
    add("--apply_postprocessing", action="store_const", const=True, help="replace unstable masks (sam2)")
    add("--dtype", dest="precision", choices=("float32", "bfloat16"), help="default float32; on a GPU the authors use "
        "bfloat16 (sam2)")  # fmt: skip
    add("--num_pathway", type=int, help="hypotheses that live on (sam2long; default 3)")
    add("--iou_thre", type=float, help="predicted IoU from which frames are remembered (sam2long; default 0.1)")
    add("--uncertainty", type=float, help="object scores up to this are uncertain (sam2long; default 2)")
    add("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="any settings, e.g. num_maskmem=4")
    add("--num_nodes", type=int, default=1, help="the list of videos is cut into num_nodes x num_chunks pieces")
    add("--node_id", type=int, default=0, help="from 0; this call tracks piece node_id x num_chunks + chunk_id")
    add("--num_chunks", type=int, default=1, help="pieces of each node (default 1)")
    add("--chunk_id", type=int, default=0, help="from 0")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one (default)")
    add("--threads", type=int, default=1, help="CPU threads (default 1: masks then depend on no machine's cores)")
    add("--data", default="data", help="folder to which scripts/fetch.py fetches weights (default data)")
    add("--cache", help="folder of what is costly and the same in other calls (default: cache in --data)")
    add(
        "--cache_gigabytes",
        type=float,
        default=ExecutionConfig().cache_gigabytes,
        help="its limit in GB (default %(default)g); 0 keeps nothing",
    )
    add("--annotations", help="ground truth: the masks are scored at once, as by scripts/evaluate.py")
    add("--protocol", help="with --annotations: the rules to score by (default davis2017)")
    add("--meta", help="with --annotations: the publisher's JSON file, for protocols that need one")
    add("--scores", help="with --annotations: folder for the files of scores (default: only a table)")
    return parser


def given_method(arguments: argparse.Namespace) -> Method:
    """The tracker with its settings and weights.

    Raises:
        VosflowError: unknown tracker, settings or roles, or weights that are missing or given in the wrong form.
    """
    a = arguments
    settings = given_settings(a)
    kind = load_tracker(a.tracker)
    parts = parts_of(kind, parse_settings(kind, a.tracker, settings))
    if parts is not None:
        return Method.of(a.tracker, settings, _weights_by_role(a, parts))
    if len(a.checkpoint) > 1:
        raise VosflowError(
            f"tracker {a.tracker} takes one checkpoint, and {len(a.checkpoint)} are given", remedy="name one of them"
        )
    if a.checkpoint and not kind.needs_checkpoint:
        raise VosflowError(
            f"tracker {a.tracker} takes no checkpoint", path=a.checkpoint[0], remedy="leave out --checkpoint"
        )
    weights = {**_facts_of(a.checkpoint[0]), "config": a.config} if a.checkpoint else None
    return Method.of(a.tracker, settings, weights)


def _weights_by_role(a: argparse.Namespace, parts: Mapping[str, Part]) -> dict[str, dict[str, object]]:
    given = {}
    for item in a.checkpoint:
        role, equals, file = item.partition("=")
        if not equals:
            raise VosflowError(
                f"for which role of tracker {a.tracker} is {item}?",
                expected="--checkpoint " + " ".join(f"{role}=FILE" for role in parts),
                remedy="name the role; roles that are left out get weights of the catalog",
            )
        given[known(role, parts, f"role of weights in tracker {a.tracker} under these settings")] = _facts_of(file)
    left = {role: part for role, part in parts.items() if role not in given}
    fetched = {role: fetched_checkpoint(part.checkpoint, a.data) for role, part in left.items()}
    return given | {role: dataclasses.asdict(source) for role, source in fetched.items()}


def _facts_of(file: str) -> dict[str, object]:
    return {"id": id_of_file(file), "path": file}


def given_settings(arguments: argparse.Namespace) -> dict[str, object]:
    """The tracker's settings among the arguments; what is not given is left to the tracker.

    Raises:
        VosflowError: a setting that is given as --set without a value, or in both ways.
    """
    flags = {key: getattr(arguments, key) for key in SETTINGS if getattr(arguments, key) is not None}
    assigned = parse_assignments(arguments.set)
    for key in flags.keys() & assigned.keys():
        raise VosflowError(
            f"{key} is given twice, as an option of its own and as --set {key}=...",
            expected="each setting once",
            remedy="leave out one of the two",
        )
    return flags | assigned


def videos_of_piece(arguments: argparse.Namespace) -> Sequence[str] | str | None:
    """The videos that one of several calls is for; for a single call whatever it was given.

    As SAM2Long's script does, but for two things: folders are sorted if there is no list of videos, and the pieces are
    right for any number of chunks per node, where the script multiplies `node_id` by 8.

    Raises:
        VosflowError: numbers that are not of each other, or no videos.
    """
    a = arguments
    for number, count in (("node_id", "num_nodes"), ("chunk_id", "num_chunks")):
        if not 0 <= getattr(a, number) < getattr(a, count):
            raise VosflowError(
                f"--{number} {getattr(a, number)} is none of --{count} {getattr(a, count)}",
                expected=f"--{count} of 1 or more, and --{number} from 0 to one less than it",
                remedy="mend the numbers",
            )
    pieces = a.num_nodes * a.num_chunks
    if pieces == 1:
        return a.video_list_file
    if not Path(a.base_video_dir).is_dir():
        raise VosflowError("the folder is missing", path=a.base_video_dir, remedy="correct the path")
    names = video_names(Path(a.base_video_dir), a.video_list_file)
    return consecutive_piece(names, pieces, a.node_id * a.num_chunks + a.chunk_id)


def ground_truth(arguments: argparse.Namespace, names: Sequence[str]) -> Manifest | None:
    """What to score the videos `names` against, in the order of the annotations; None without --annotations.

    Raises:
        VosflowError: ground truth of a video is missing, the protocol does not score such masks, the folder for
            scores lies among the masks, or options of scoring are given without --annotations.
    """
    a = arguments
    if a.annotations is None:
        for option in ("protocol", "meta", "scores"):
            if getattr(a, option) is not None:
                raise VosflowError(
                    f"--{option} is given without --annotations: nothing would be scored",
                    expected="--annotations FOLDER, with the ground truth of these videos",
                    remedy=f"add it, or leave out --{option}",
                )
        return None
    from vosflow.evaluation.annotations import annotated_folder
    from vosflow.evaluation.protocols import load_protocol
    from vosflow.evaluation.run import check_output

    protocol = a.protocol or "davis2017"
    layout, wanted = PER_OBJECT if a.per_obj_png_file else LABEL_MAPS, load_protocol(protocol).layouts
    if layout not in wanted:
        raise VosflowError(
            f"protocol {protocol} scores masks of layout {' or '.join(wanted)}, and these are {layout}",
            expected="--per_obj_png_file for sav, and for no other protocol",
            remedy="use the protocol of the dataset's publisher",
        )
    if a.scores is not None:
        check_output(a.scores, a.output_mask_dir)
    truth = annotated_folder(a.annotations, protocol=protocol, videos=a.video_list_file, meta=a.meta)
    for name in names:
        truth.video(name)
    return dataclasses.replace(truth, videos=tuple(video for video in truth.videos if video.name in set(names)))


def consecutive_piece(names: Sequence[str], pieces: int, index: int) -> list[str]:
    """Piece number `index` (from 0) of `names` cut into consecutive pieces; the first are one longer if need be."""
    length, longer = divmod(len(names), pieces)
    start = index * length + min(index, longer)
    return list(names[start : start + length + (index < longer)])
