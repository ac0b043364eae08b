"""The options of scripts/track.py: settings of trackers, and which videos a call is for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vosflow.command_line import (
    consecutive_piece,
    given_method,
    given_settings,
    ground_truth,
    track_parser,
    videos_of_piece,
)
from vosflow.errors import VosflowError
from vosflow.method import Method
from vosflow.trackers.sam2long import Settings


def arguments(*options: str) -> object:
    needed = ["--tracker", "sam2long", "--base_video_dir", "b", "--input_mask_dir", "m", "--output_mask_dir", "o"]
    return track_parser("").parse_args([*needed, *options])


def test_flags_of_the_authors_script_are_settings(tmp_path: Path) -> None:
    a = arguments("--num_pathway", "2", "--iou_thre", "0.3", "--uncertainty", "1", "--set", "num_maskmem=4")
    (tmp_path / "tiny.pt").write_bytes(b"weights, not read here")
    settings = Method.of("sam2long", given_settings(a), {"id": "tiny", "path": tmp_path / "tiny.pt"}).settings
    assert settings == Settings(num_pathway=2, iou_thre=0.3, uncertainty=1.0, num_maskmem=4)
    assert given_settings(arguments()) == {}
    with pytest.raises(VosflowError, match="iou_thre is given twice"):
        given_settings(arguments("--iou_thre", "0.3", "--set", "iou_thre=0.1"))


def test_values_of_settings_are_yaml() -> None:
    assert given_settings(arguments("--set", "a={iters: 12}", "b=[1, x]", "c=")) == {
        "a": {"iters": 12}, "b": [1, "x"], "c": None,
    }  # fmt: skip
    for wrong, words in (("a={iters", "'a={iters' is not readable"), ("a", "not a setting"), ("=3", "not a setting")):
        with pytest.raises(VosflowError, match=words):
            given_settings(arguments("--set", wrong))


def test_weights_for_a_tracker_without_are_refused() -> None:
    assert given_method(arguments("--tracker", "static")).checkpoint is None
    with pytest.raises(VosflowError, match="w.pt: tracker static takes no checkpoint"):
        given_method(arguments("--tracker", "static", "--checkpoint", "w.pt"))


@pytest.mark.parametrize("option", ["--protocol", "--meta", "--scores"])
def test_options_of_scoring_need_ground_truth(option: str) -> None:
    assert ground_truth(arguments(), ["a"]) is None
    with pytest.raises(VosflowError, match=f"{option} is given without --annotations"):
        ground_truth(arguments(option, "davis2016"), ["a"])


@given(count=st.integers(0, 30), pieces=st.integers(1, 12))
def test_pieces_are_consecutive_and_the_first_ones_longer(count: int, pieces: int) -> None:
    names = [f"v{n}" for n in range(count)]
    parts = [consecutive_piece(names, pieces, index) for index in range(pieces)]
    assert [name for part in parts for name in part] == names
    lengths = [len(part) for part in parts]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] <= 1


def test_pieces_of_nodes_and_chunks(tmp_path: Path) -> None:
    for name in "gfedcba":
        (tmp_path / name).mkdir()
    (tmp_path / "list.txt").write_text("\n".join("gfedcba"))

    def piece(*options: str) -> object:
        a = arguments(*options)
        a.base_video_dir = str(tmp_path)
        return videos_of_piece(a)

    split = ["--num_nodes", "2", "--num_chunks", "3"]
    listed = ["--video_list_file", str(tmp_path / "list.txt")]
    assert piece() is None and piece(*listed) == listed[1]
    assert piece(*split, *listed) == ["g", "f"] and piece(*split) == ["a", "b"]  # as listed, or sorted
    assert piece(*split, *listed, "--chunk_id", "2") == ["d"]
    assert piece(*split, *listed, "--node_id", "1", "--chunk_id", "2") == ["a"]  # piece 5, not 10
    assert piece("--num_chunks", "9", "--chunk_id", "8") == []
    for wrong in (
        ["--chunk_id", "1"],
        ["--node_id", "-1"],
        ["--num_chunks", "0"],
        ["--num_nodes", "2", "--node_id", "2"],
    ):
        with pytest.raises(VosflowError, match="is none of --num_"):
            piece(*wrong)
