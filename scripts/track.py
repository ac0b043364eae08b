"""Track the videos of a folder with any tracker; the options are those of SAM 2's tools/vos_inference.py.

Masks are written as {output_mask_dir}/{video}/{frame}.png. Run again, it continues after the last finished video;
what it knows of finished videos is in {output_mask_dir}/.vosflow.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.datasets.folder import folder_manifest
from vosflow.engine import Method, parse_assignments, track_videos
from vosflow.errors import run_command
from vosflow.gpu import lease_device, limit_cpu_threads
from vosflow.records import RunFolder, check_output_folder


def main() -> None:
    """Parse arguments and track."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--tracker", required=True, help="static, flow, sam2, or the import path of your own: package.module:Class")
    add("--sam2_checkpoint", "--checkpoint", dest="checkpoint", help="weights: .pt or .safetensors")
    add("--sam2_cfg", "--config", dest="config", help="e.g. configs/sam2.1/sam2.1_hiera_b+.yaml, or your own YAML file")
    add("--base_video_dir", required=True, help="folder of videos: {video}/{frame}.jpg")
    add("--input_mask_dir", required=True, help="folder of prompts: {video}/{frame}.png, pixel value = object id")
    add("--video_list_file", help="one video per line (default: all folders in base_video_dir)")
    add("--output_mask_dir", required=True, type=Path, help="where the masks go")
    add("--overwrite", action="store_true", help="replace masks in it that are of other settings or of other origin")
    add("--use_all_masks", action="store_true", help="all input masks are prompts, not only each object's first one")
    add("--per_obj_png_file", action="store_true", help="masks, in and out, are {video}/{object}/{frame}.png")
    add("--track_object_appearing_later_in_video", action="store_true", help="objects start at their first mask")
    add("--score_thresh", type=float, help="a pixel is an object's above this logit (sam2; default 0)")
    add("--apply_postprocessing", action="store_const", const=True, help="replace unstable masks (sam2)")
    add("--dtype", choices=("float32", "bfloat16"), help="sam2; default float32, the authors use bfloat16 on a GPU")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting, e.g. num_maskmem=4; repeatable")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one (default)")
    add("--threads", type=int, default=1, help="CPU threads (default 1: masks then depend on no machine's cores)")
    a = parser.parse_args()
    limit_cpu_threads(a.threads)
    flags = {"score_thresh": a.score_thresh, "apply_postprocessing": a.apply_postprocessing, "precision": a.dtype}
    settings = {key: value for key, value in flags.items() if value is not None}
    settings |= parse_assignments(a.set)
    weights = {"id": Path(a.checkpoint).stem, "path": a.checkpoint, "config": a.config} if a.checkpoint else None
    method = Method.of(a.tracker, settings, weights)
    print("".join(f"note: {note}\n" for note in method.settings.notes()), end="", file=sys.stderr)
    late = {"late_objects": a.track_object_appearing_later_in_video, "use_all_masks": a.use_all_masks}
    folders, records = (a.base_video_dir, a.input_mask_dir), a.output_mask_dir / ".vosflow"
    manifest = folder_manifest(*folders, videos=a.video_list_file, per_obj_png_file=a.per_obj_png_file, **late)
    names = [video.name for video in manifest.videos]
    check_output_folder(RunFolder(records, a.output_mask_dir), folders, names, method.marks, overwrite=a.overwrite)
    with lease_device(a.device if method.uses_gpu else "cpu") as device:
        track_videos(method, manifest, names, records, device=device, masks=a.output_mask_dir)


if __name__ == "__main__":
    run_command(main)
