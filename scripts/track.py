"""Track the videos of a folder with any tracker; the options are those of SAM 2's and SAM2Long's vos_inference.py.

Masks are written as {output_mask_dir}/{video}/{frame}.png. Run again, it continues after the last finished video;
what it knows of finished videos is in {output_mask_dir}/.vosflow. With --annotations it scores them, too.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.artefacts import open_store
from vosflow.command_line import given_method, ground_truth, track_parser, videos_of_piece
from vosflow.datasets.folder import folder_manifest
from vosflow.engine import track_videos
from vosflow.errors import run_command
from vosflow.evaluation.live import LiveScorer
from vosflow.evaluation.protocols import load_protocol
from vosflow.evaluation.run import evaluate_run
from vosflow.evaluation.table import print_evaluation
from vosflow.gpu import lease_device, limit_cpu_threads
from vosflow.records import RunFolder, check_output_folder
from vosflow.trackers.registry import load_tracker


def main() -> None:
    """Parse arguments and track."""
    a = track_parser(__doc__).parse_args()
    limit_cpu_threads(a.threads)
    method = given_method(a)
    notes = [*method.settings.notes(), *method.licence_notes]
    print("".join(f"note: {note}\n" for note in notes), end="", file=sys.stderr)
    videos = videos_of_piece(a)
    if videos == []:
        print("there are fewer videos than pieces: none is left for this one", file=sys.stderr)
        return
    late = a.track_object_appearing_later_in_video or getattr(load_tracker(a.tracker), "starts_objects_late", False)
    layout = {"per_obj_png_file": a.per_obj_png_file, "late_objects": late, "use_all_masks": a.use_all_masks}
    folders, records = (a.base_video_dir, a.input_mask_dir), a.output_mask_dir / ".vosflow"
    manifest = folder_manifest(*folders, videos=videos, **layout)
    names = [video.name for video in manifest.videos]
    check_output_folder(RunFolder(records, a.output_mask_dir), folders, names, method.marks, overwrite=a.overwrite)
    truth = ground_truth(a, names)
    scorer = LiveScorer(truth, load_protocol(truth.protocol)) if truth else None
    with lease_device(a.device if method.uses_gpu else "cpu") as device:
        shown = scorer.add if scorer else None
        store = open_store(a.cache or f"{a.data}/cache", a.cache_gigabytes)
        places = {"masks": a.output_mask_dir, "store": store}
        track_videos(method, manifest, names, records, device=device, on_masks=shown, **places)
    if scorer:
        print_evaluation(evaluate_run(truth, a.output_mask_dir, a.scores, scored=scorer.rows), truth)


if __name__ == "__main__":
    run_command(main)
