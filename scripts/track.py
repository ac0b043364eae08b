"""Track the videos of a folder with any tracker. The options are those of `tools/vos_inference.py` of SAM 2.

Masks are written as {output_mask_dir}/{video}/{frame}.png. Run again, it continues after the last finished video;
what it knows of finished videos is in {output_mask_dir}/.vosflow.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.datasets.folder import folder_manifest
from vosflow.engine import Method, track_videos
from vosflow.errors import run_command
from vosflow.gpu import lease_device


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--tracker", required=True, help="static, flow, sam2, or the import path of your own: package.module:Class")
    add("--sam2_checkpoint", "--checkpoint", dest="checkpoint", help="weights: .pt or .safetensors")
    add("--sam2_cfg", "--config", dest="config", help="e.g. configs/sam2.1/sam2.1_hiera_b+.yaml, or your own YAML file")
    add("--base_video_dir", required=True, help="folder of videos: {video}/{frame}.jpg")
    add("--input_mask_dir", required=True, help="folder of prompts: {video}/{frame}.png, pixel value = object id")
    add("--video_list_file", help="one video per line (default: all folders in base_video_dir)")
    add("--output_mask_dir", required=True, type=Path, help="where the masks go")
    add("--use_all_masks", action="store_true", help="all input masks are prompts, not only each object's first one")
    add("--per_obj_png_file", action="store_true", help="masks, in and out, are {video}/{object}/{frame}.png")
    add("--track_object_appearing_later_in_video", action="store_true", help="objects start at their first mask")
    add("--score_thresh", type=float, help="a pixel is an object's above this logit (sam2; default 0)")
    add("--apply_postprocessing", action="store_const", const=True, help="replace unstable masks (sam2)")
    add("--dtype", choices=("float32", "bfloat16"), help="sam2; default float32, the authors use bfloat16 on a GPU")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting, e.g. num_maskmem=4; repeatable")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one (default)")
    args = parser.parse_args()
    if bad := [item for item in args.set if "=" not in item]:
        parser.error(f"--set takes KEY=VALUE, not {bad[0]!r}")
    return args


def main() -> None:
    args = parse()
    given = dict(score_thresh=args.score_thresh, apply_postprocessing=args.apply_postprocessing, precision=args.dtype)
    settings = {key: value for key, value in given.items() if value is not None}
    settings |= {key: yaml.safe_load(value) for key, value in (item.split("=", 1) for item in args.set)}
    weights = (
        {"id": Path(args.checkpoint).stem, "path": args.checkpoint, "config": args.config} if args.checkpoint else None
    )
    method = Method.of(args.tracker, settings, weights)
    late = args.track_object_appearing_later_in_video
    flags = dict(per_obj_png_file=args.per_obj_png_file, use_all_masks=args.use_all_masks, late_objects=late)
    manifest = folder_manifest(args.base_video_dir, args.input_mask_dir, videos=args.video_list_file, **flags)
    for note in method.settings.notes():
        print(f"note: {note}", file=sys.stderr)
    with lease_device(args.device) as device:
        names, records = [video.name for video in manifest.videos], args.output_mask_dir / ".vosflow"
        track_videos(method, manifest, names, records, device=device, masks=args.output_mask_dir)


if __name__ == "__main__":
    run_command(main)
