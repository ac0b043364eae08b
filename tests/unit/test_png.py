"""The fast PNG reader against Pillow: every depth and filter, damage, and whatever it leaves to Pillow."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vosflow.errors import VosflowError
from vosflow.evaluation import png
from vosflow.evaluation.png import read_ids
from vosflow.masks import DAVIS_PALETTE, read_label_map

GREY, PALETTE = 0, 3


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def filtered(rows: np.ndarray, filters: Sequence[int]) -> bytes:
    """Rows of bytes, uint8 [H, B], each filtered as the PNG specification defines it, for pixels of at most a byte."""
    lines = []
    padded = np.zeros((rows.shape[0] + 1, rows.shape[1] + 1), np.int64)
    padded[1:, 1:] = rows
    here, left, up, corner = padded[1:, 1:], padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    distances = np.abs(np.stack([up - corner, left - corner, left + up - 2 * corner]))  # of left, up, corner
    nearest = np.choose(distances.argmin(axis=0), [left, up, corner])  # argmin takes the first of equals
    guesses = [np.zeros_like(here), left, up, (left + up) // 2, nearest]
    for y, kind in enumerate(filters):
        lines.append(bytes([kind]) + ((here[y] - guesses[kind][y]) % 256).astype(np.uint8).tobytes())
    return b"".join(lines)


def encode(ids: np.ndarray, colour: int, depth: int, filters: Sequence[int], pieces: int = 1) -> bytes:
    """A PNG file; its data in so many IDAT chunks."""
    height, width = ids.shape
    bits = np.unpackbits(ids[..., None], axis=-1)[..., 8 - depth :].reshape(height, -1)
    data = zlib.compress(filtered(np.packbits(bits, axis=-1), filters))
    size = -(-len(data) // pieces)
    return b"".join(
        [
            png.SIGNATURE,
            chunk(b"IHDR", struct.pack(">II5B", width, height, depth, colour, 0, 0, 0)),
            *([chunk(b"PLTE", bytes(DAVIS_PALETTE[: 3 << depth]))] if colour == PALETTE else []),
            *(chunk(b"IDAT", data[at : at + size]) for at in range(0, len(data), size)),
            chunk(b"IEND", b""),
        ]
    )


@pytest.fixture
def forbid_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise AssertionError("this file should not need Pillow")

    monkeypatch.setattr(png, "read_label_map", refuse)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([(PALETTE, 1), (PALETTE, 2), (PALETTE, 4), (PALETTE, 8), (GREY, 1), (GREY, 8)]),
    size=st.tuples(st.integers(1, 12), st.integers(1, 40)),
    pieces=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_every_depth_and_filter(
    tmp_path: Path, forbid_pillow: None, kind: tuple[int, int], size: tuple[int, int], pieces: int, seed: int
) -> None:
    colour, depth = kind
    noise = np.random.default_rng(seed)
    ids = noise.integers(0, 1 << depth, size, dtype=np.uint8)
    path = tmp_path / "mask.png"
    path.write_bytes(encode(ids, colour, depth, noise.integers(0, 5, size[0]), pieces))
    read = read_ids(path)
    assert read.dtype == np.uint8
    assert read.tolist() == ids.tolist() == read_label_map(path)[0].tolist()


@pytest.mark.parametrize("mode", ["P", "L", "1"])
@pytest.mark.parametrize("optimize", [False, True])
def test_what_pillow_writes(tmp_path: Path, forbid_pillow: None, mode: str, optimize: bool) -> None:
    ids = np.zeros((37, 61), np.uint8)
    ids[5:20, 9:33] = 1
    ids[11:30, 30:50] = 3
    image = Image.fromarray(ids > 0) if mode == "1" else Image.fromarray(ids)
    if mode == "P":
        image.putpalette(DAVIS_PALETTE)
    image.save(tmp_path / "mask.png", optimize=optimize)
    assert read_ids(tmp_path / "mask.png").tolist() == np.array(image, np.uint8).tolist()


def grey_ramp(depth: int) -> np.ndarray:
    return (np.arange(12).reshape(3, 4) % (1 << depth)).astype(np.uint8)


@pytest.mark.parametrize("depth", [2, 4])
def test_grey_of_few_bits_is_scaled_as_pillow_does(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(encode(grey_ramp(depth), GREY, depth, [0, 0, 0]))
    expected = grey_ramp(depth) * (255 // ((1 << depth) - 1))
    assert read_ids(path).tolist() == expected.tolist() == read_label_map(path)[0].tolist()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
def test_other_images_are_refused_as_ever(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "mask.png"
    Image.new(mode, (9, 5)).save(path)
    with pytest.raises(VosflowError, match=rf"the mask is a {mode} image") as error:
        read_ids(path)
    assert error.value.path == str(path)


def test_interlaced_images_and_other_formats_are_left_to_pillow(tmp_path: Path) -> None:
    ids = grey_ramp(8)
    # Adam7 of an image of one pixel is the image itself.
    data = chunk(b"IHDR", struct.pack(">II5B", 1, 1, 8, GREY, 0, 0, 1)) + chunk(b"IDAT", zlib.compress(b"\0\7"))
    (tmp_path / "interlaced.png").write_bytes(png.SIGNATURE + data + chunk(b"IEND", b""))
    assert read_ids(tmp_path / "interlaced.png").tolist() == [[7]]
    Image.fromarray(ids).save(tmp_path / "really_a.bmp")
    (tmp_path / "really_a.bmp").rename(tmp_path / "mask.png")
    assert read_ids(tmp_path / "mask.png").tolist() == ids.tolist()


def test_cut_off_anywhere(tmp_path: Path) -> None:
    """Wherever a file ends, it is an error as Pillow's, or (without its last chunk) the right image as with Pillow."""
    ids = np.random.default_rng(0).integers(0, 4, (20, 30), dtype=np.uint8)
    whole = encode(ids, PALETTE, 2, [0] * 20, pieces=2)
    path = tmp_path / "mask.png"
    complete = 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            expected = read_label_map(path)[0]
        except VosflowError as error:
            with pytest.raises(VosflowError) as found:
                read_ids(path)
            assert str(found.value) == str(error)
        else:
            assert read_ids(path).tolist() == expected.tolist() == ids.tolist()
            complete += 1
    assert complete < 30


def test_a_flipped_bit_is_never_read_as_an_image(tmp_path: Path) -> None:
    """Every bit of every chunk is under a checksum; Pillow does not look at those of the pixels."""
    ids = np.random.default_rng(0).integers(0, 4, (6, 10), dtype=np.uint8)
    whole = bytearray(encode(ids, PALETTE, 2, [0, 1, 2, 3, 4, 0]))
    path = tmp_path / "mask.png"
    start = whole.index(b"IHDR") - 4
    for position in range(start, len(whole)):
        damaged = whole.copy()
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            assert read_ids(path).tolist() == ids.tolist()  # a length that Pillow need not read
        except VosflowError as error:
            assert "the mask is " in error.problem
            assert error.path == str(path)


def test_wrong_checksum_is_named(tmp_path: Path) -> None:
    whole = bytearray(encode(grey_ramp(8), GREY, 8, [0, 0, 0]))
    whole[whole.index(b"IDAT") + 6] ^= 1
    (tmp_path / "mask.png").write_bytes(whole)
    with pytest.raises(VosflowError, match=r"the mask is unreadable \(wrong checksum in its IDAT chunk\)") as error:
        read_ids(tmp_path / "mask.png")
    assert error.value.path == str(tmp_path / "mask.png")
    assert error.value.remedy


@pytest.mark.parametrize("content", [b"", b"not a PNG", png.SIGNATURE])
def test_no_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mask.png").write_bytes(content)
    with pytest.raises(VosflowError, match="the mask is unreadable"):
        read_ids(tmp_path / "mask.png")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(VosflowError, match="the mask is missing"):
        read_ids(tmp_path / "mask.png")


@pytest.mark.parametrize(
    "data",
    [b"\0\1\2\3\0\4", b"\0\1\2\3\0\4\5\6\0", b"\7\1\2\3\0\4\5\6", b""],
    ids=["too little", "too much", "unknown filter", "none"],
)
def test_data_that_do_not_fit_the_header_are_judged_by_pillow(tmp_path: Path, data: bytes) -> None:
    header = chunk(b"IHDR", struct.pack(">II5B", 3, 2, 8, GREY, 0, 0, 0))
    path = tmp_path / "mask.png"
    path.write_bytes(png.SIGNATURE + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))
    try:
        expected = read_label_map(path)[0].tolist()
    except VosflowError as error:
        with pytest.raises(VosflowError) as found:
            read_ids(path)
        assert str(found.value) == str(error)
    else:
        assert read_ids(path).tolist() == expected
