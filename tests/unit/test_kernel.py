"""The compiled counting against the slow reference; where its machine code lies; that it stays within its arrays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit import slow_measures
from vosflow.evaluation import machine_code
from vosflow.evaluation.measures import (
    Element,
    FrameCounts,
    areas,
    boundary_radius,
    count_frame,
    count_masks,
    count_pairs,
    disk,
    score_frame,
)

HOUSE = Path(__file__).resolve().parents[2]


def offsets(element: Element) -> list[tuple[int, int]]:
    return [(dy, dx) for dy, first, last in element.rows for dx in range(first, last + 1)]


def counted(counts: FrameCounts, tolerance: int, index: int | tuple[int, int]) -> tuple[int, ...]:
    """The numbers of one object at one tolerance, in the order of `slow_measures.counts`."""
    areas_and_lengths = (counts.truth_area, counts.guess_area, counts.intersection, counts.truth_length)
    matched = (counts.truth_matched[tolerance], counts.guess_matched[tolerance])
    return tuple(int(array[index]) for array in (*areas_and_lengths, counts.guess_length, *matched))


@st.composite
def frames(draw: st.DrawFn, ids: tuple[int, ...] = (0, 1, 2, 3)) -> tuple[np.ndarray, np.ndarray]:
    """Two label maps of one size, 1 to 1200 pixels wide, few pixels in all.

    Rectangles, single pixels and noise: empty and full frames, objects that touch, that are cut by the border, and
    that lie in the last row and column, all come up often.
    """
    width = draw(st.one_of(st.integers(1, 40), st.integers(1, 1200)))
    height = draw(st.integers(1, max(1, 3000 // width)))
    pair = []
    for _ in range(2):
        label_map = np.full((height, width), draw(st.sampled_from((0, 0, 0, *ids))), np.uint8)
        for _ in range(draw(st.integers(0, 4))):
            top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
            bottom, right = draw(st.integers(top, height - 1)), draw(st.integers(left, width - 1))
            if draw(st.booleans()):
                bottom, right = top, left
            label_map[top : bottom + 1, left : right + 1] = draw(st.sampled_from(ids))
        share = draw(st.sampled_from([0, 0, 0, 0.02, 0.3, 1]))
        noise = np.random.default_rng(draw(st.integers(0, 2**16)))
        where = noise.random((height, width)) < share
        label_map[where] = noise.choice(ids, where.sum())
        pair.append(label_map)
    return pair[0], pair[1]


@settings(max_examples=150, deadline=None)
@given(frames(), st.integers(0, 18))
def test_one_tolerance(pair: tuple[np.ndarray, np.ndarray], radius: int) -> None:
    truth, guess = pair
    counts = count_frame(truth, guess, [3, 1, 2], disk(radius))
    for index, object_id in enumerate([3, 1, 2]):
        slow = slow_measures.counts(truth == object_id, guess == object_id, slow_measures.disk_offsets(radius))
        assert counted(counts, 0, index) == slow


@settings(max_examples=60, deadline=None)
@given(frames(ids=(0, 1, 2, 9, 254, 255)))
def test_scores_at_the_tolerance_of_davis(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """With gaps in the ids, and ids that are not asked for: they are background."""
    truth, guess = pair
    J, F = score_frame(truth, guess, (1, 3, 254))
    assert J.dtype == F.dtype == np.float64
    slow = [slow_measures.score(truth == object_id, guess == object_id) for object_id in (1, 3, 254)]
    assert list(zip(J.tolist(), F.tolist(), strict=True)) == slow


@st.composite
def elements(draw: st.DrawFn) -> Element:
    """Any rows, in any order: not symmetric, some far off, perhaps without the centre, perhaps none at all."""
    rows = {}
    for dy in draw(st.lists(st.integers(-25, 25), max_size=4, unique=True)):
        first = draw(st.integers(-90, 90))
        rows[dy] = (dy, first, draw(st.integers(first, first + 150)))
    return Element(tuple(rows.values()))


@settings(max_examples=60, deadline=None)
@given(frames(), elements(), st.lists(elements(), min_size=3, max_size=3))
def test_any_tolerances_together(pair: tuple[np.ndarray, np.ndarray], shared: Element, each: list[Element]) -> None:
    """One for all objects and one for each, in one call."""
    truth, guess = pair
    counts = count_frame(truth, guess, (1, 2, 3), shared, each, disk(1))
    assert counts.truth_matched.shape == counts.guess_matched.shape == (3, 3)
    for index, object_id in enumerate((1, 2, 3)):
        for tolerance, element in enumerate((shared, each[index], disk(1))):
            slow = slow_measures.counts(truth == object_id, guess == object_id, offsets(element))
            assert counted(counts, tolerance, index) == slow


@settings(max_examples=40, deadline=None)
@given(frames(), elements())
def test_pairs(pair: tuple[np.ndarray, np.ndarray], element: Element) -> None:
    truth, guess = pair
    counts = count_pairs(truth, guess, (3, 1), (1, 2, 7), disk(2), element)
    assert counts.intersection.shape == (2, 3)
    assert counts.truth_matched.shape == (2, 2, 3)
    for row, truth_id in enumerate((3, 1)):
        for column, guess_id in enumerate((1, 2, 7)):
            for tolerance, which in enumerate((disk(2), element)):
                slow = slow_measures.counts(truth == truth_id, guess == guess_id, offsets(which))
                assert counted(counts, tolerance, (row, column)) == slow


@settings(max_examples=60, deadline=None)
@given(frames())
def test_masks_are_counted_like_label_maps(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, guess = pair
    counts = count_masks(truth == 2, guess == 2, disk(2))
    assert counted(counts, 0, 0) == counted(count_frame(truth, guess, (1, 2), disk(2)), 0, 1)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**16))
@example(0)
def test_255_objects(seed: int) -> None:
    """Every possible id, each in some small pieces, touching each other."""
    noise = np.random.default_rng(seed)
    truth, guess = (np.kron(noise.integers(0, 256, (20, 30)), np.ones((2, 3))).astype(np.uint8) for _ in range(2))
    guess[:20] = np.roll(truth, 1, axis=1)[:20]
    counts = count_frame(truth, guess, range(1, 256), disk(1))
    assert areas(truth, range(1, 256)).tolist() == [int((truth == object_id).sum()) for object_id in range(1, 256)]
    for object_id in range(1, 256):
        slow = slow_measures.counts(truth == object_id, guess == object_id, slow_measures.disk_offsets(1))
        assert counted(counts, 0, object_id - 1) == slow


@pytest.mark.parametrize("size, radius", [((1080, 1920), 18), ((480, 854), 8)])
def test_whole_frames(size: tuple[int, int], radius: int) -> None:
    """Large frames take other paths: many blocks of words, and words that do not begin where rows do."""
    noise = np.random.default_rng(radius)
    pair = []
    for _ in range(2):
        label_map = np.zeros(size, np.uint8)
        for object_id in (1, 2):
            top, left = noise.integers(0, size[0] - 40), noise.integers(0, size[1] - 40)
            label_map[top : top + noise.integers(40, 400), left : left + noise.integers(40, 700)] = object_id
        label_map[noise.random(size) < 1e-4] = 2
        pair.append(label_map)
    truth, guess = pair
    assert boundary_radius(*size) == radius
    counts = count_frame(truth, guess, (1, 2), disk(radius))
    for index, object_id in enumerate((1, 2)):
        slow = slow_measures.counts(truth == object_id, guess == object_id, slow_measures.disk_offsets(radius))
        assert counted(counts, 0, index) == slow


def test_arrays_that_are_not_contiguous() -> None:
    noise = np.random.default_rng(0)
    truth, guess = noise.integers(0, 3, (2, 40, 60), dtype=np.uint8)
    expected = score_frame(truth.copy(), guess.copy(), (1, 2))
    np.testing.assert_array_equal(score_frame(np.asfortranarray(truth), guess, (1, 2)), expected)
    np.testing.assert_array_equal(score_frame(truth[::-1][::-1], guess, (1, 2)), expected)
    misaligned = np.frombuffer(b"x" + truth.tobytes(), np.uint8, offset=1).reshape(truth.shape)
    np.testing.assert_array_equal(score_frame(misaligned, guess, (1, 2)), expected)


@pytest.mark.parametrize("object_ids", [(0,), (256,), (1, 1), (-1,)])
def test_ids_that_cannot_be_counted(object_ids: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="distinct object ids from 1 to 255"):
        count_frame(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), object_ids)


def test_one_element_for_each_object() -> None:
    with pytest.raises(ValueError, match="1 elements for 2 objects"):
        count_frame(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), (1, 2), [disk(1)])


def test_no_objects() -> None:
    assert count_frame(np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8), (), disk(1)).truth_area.shape == (0,)


# --- the machine code -------------------------------------------------------------------------------------------------

LOAD = """
import sys
from vosflow.evaluation.machine_code import prepare
from vosflow.evaluation.measures import score_masks
import numpy as np
mask = np.eye(9, dtype=bool)
assert score_masks(mask, mask) == (1.0, 1.0)
print("numba" in sys.modules)
"""


def test_machine_code_is_made_once(tmp_path: Path) -> None:
    """In fresh processes of a copy of the package: the first compiles, the second does not even import numba."""
    shutil.copytree(HOUSE / "vosflow", tmp_path / "vosflow", ignore=shutil.ignore_patterns("__pycache__"))
    had_to_compile = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", LOAD],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": "", "XDG_CACHE_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert done.returncode == 0, done.stderr
        had_to_compile.append(done.stdout.strip())
    assert had_to_compile == ["True", "False"]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a source file, whose machine code (some bytes) has been saved beside it."""
    (tmp_path / "kernel.py").write_text("source")
    monkeypatch.setattr(machine_code, "SOURCE", tmp_path / "kernel.py")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    machine_code._save(b"machine code")
    return tmp_path


@pytest.mark.parametrize("lost", ["nothing", "__pycache__", "cache"])
def test_machine_code_is_kept_for_the_checkout_and_for_the_user(kept: Path, lost: str) -> None:
    shutil.rmtree(kept / lost, ignore_errors=True)
    assert machine_code._saved_code() == b"machine code"


def test_machine_code_of_another_source_is_not_used(kept: Path) -> None:
    (kept / "kernel.py").write_text("another source")
    assert machine_code._saved_code() is None


def test_machine_code_of_another_processor_is_not_used(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "_processor", lambda: ("another", "+less"))
    assert machine_code._saved_code() is None


@pytest.mark.parametrize("damage", [lambda code: code[:-1], lambda code: b"M" + code[1:], lambda code: b""])
def test_damaged_machine_code_is_not_run(kept: Path, damage: Callable[[bytes], bytes]) -> None:
    for saved in kept.rglob("kernel.*.o"):
        saved.write_bytes(damage(saved.read_bytes()))
    assert machine_code._saved_code() is None


def test_nowhere_to_keep_machine_code(kept: Path) -> None:
    for name in ("__pycache__", "cache"):
        shutil.rmtree(kept / name)
        (kept / name).write_text("no folder can be made here, even by root")
    machine_code._save(b"machine code")
    assert machine_code._saved_code() is None


def test_machine_code_without_a_home(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number that is no user's."""
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert machine_code._saved_code() == b"machine code"
    assert [path.parent for path in machine_code._places()] == [kept / "__pycache__"]


# The kernel has no bounds checks. Run as plain Python, on arrays that refuse what lies outside them, it shows that it
# needs none. Pixels, places and counts become Python's integers, which do not overflow; words stay 64-bit.
GUARDED = """
import warnings
import numpy as np
from vosflow.evaluation import kernel, machine_code

warnings.simplefilter("ignore")  # words overflow, as they should

class Guarded:
    def __init__(self, array):
        self.array = array.reshape(-1)
    def __getitem__(self, index):
        assert 0 <= index < len(self.array), (index, len(self.array))
        value = self.array[int(index)]
        return value if self.array.dtype == np.uint64 else int(value)
    def __setitem__(self, index, value):
        assert 0 <= index < len(self.array), (index, len(self.array))
        self.array[int(index)] = value

def call(function, types):
    def guarded(*arguments):
        assert len(arguments) == len(types)
        words = {kernel.WORDS: np.uint64, kernel.BYTES: np.uint8, kernel.PLACES: np.int32, kernel.COUNTS: np.int64}
        values = []
        for value, kind in zip(arguments, types):
            if isinstance(value, np.ndarray):
                flat = value.reshape(-1)
                if kind == kernel.WORDS and flat.dtype == np.uint8:
                    flat = flat[: len(flat) // 8 * 8].view(np.uint64)
                assert flat.dtype == words[kind], (flat.dtype, kind)
                value = Guarded(flat)
            values.append(value)
        return function(*values)
    return guarded

machine_code.load = lambda name: call(*next(item for item in kernel.ENTRIES.items() if item[0].__name__ == name))

from tests.unit import slow_measures, test_kernel
from vosflow.evaluation.measures import count_frame, disk
noise = np.random.default_rng(0)
for size in [(1, 1), (1, 2), (2, 1), (1, 9), (9, 1), (2, 8), (3, 8), (7, 9), (5, 16), (4, 23), (9, 70), (40, 3)]:
    for share in (0, 0.1, 1):
        truth, guess = np.where(noise.random((2, *size)) < share, noise.integers(0, 4, (2, *size)), 3).astype(np.uint8)
        for element in (disk(1), disk(3), disk(2.7)):
            counts = count_frame(truth, guess, (3, 1, 2), element, [disk(2)] * 3)
            for index, object_id in enumerate((3, 1, 2)):
                slow = slow_measures.counts(truth == object_id, guess == object_id, test_kernel.offsets(element))
                assert test_kernel.counted(counts, 0, index) == slow
from tests.unit.test_png import encode
from vosflow.evaluation.png import read_ids
import tempfile
for colour, depth in ((3, 1), (3, 2), (3, 4), (3, 8), (0, 8)):
    for size in [(1, 1), (1, 9), (5, 3), (4, 17)]:
        ids = noise.integers(0, 1 << depth, size, dtype=np.uint8)
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            file.write(encode(ids, colour, depth, [noise.integers(0, 5) for _ in range(size[0])]))
            file.flush()
            assert (read_ids(file.name) == ids).all()
"""


def test_the_kernel_stays_within_its_arrays() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GUARDED],
        cwd=HOUSE,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
