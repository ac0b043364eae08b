"""Runs as the report reads them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit import report_folder
from tests.unit.report_folder import read_rows
from vosflow.errors import VosflowError
from vosflow.report import results

study = report_folder.study


def test_video_scores_are_means_over_objects(study):
    run = results.load_run(study[1])
    rows = read_rows(study[1].parent / "scores.csv")
    for video, score in run.video_scores.items():
        values = [(float(row["J"]) + float(row["F"])) / 2 for row in rows if row["video"] == video]
        assert score == pytest.approx(np.mean(values), abs=1e-12)
    frame = [
        (float(row["J"]) + float(row["F"])) / 2 for row in rows if (row["video"], row["frame"]) == ("zoom", "00003")
    ]
    assert run.frame_scores["zoom"]["00003"] == pytest.approx(np.mean(frame), abs=1e-12)


def test_a_run_given_twice_is_refused(study):
    with pytest.raises(VosflowError, match="given twice"):
        results.load_runs([*study, study[0]])
