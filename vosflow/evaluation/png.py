"""Reading label maps fast: PNG files of one channel, with libdeflate and compiled filters; all others with Pillow.

Scoring spends most of its time on decoding. Pillow inflates with zlib; libdeflate takes a quarter of the time (isa-l
half). Values are those of `vosflow.masks.read_label_map`, which stays what trackers read their prompts with.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import deflate
import numpy as np

from vosflow.errors import VosflowError
from vosflow.masks import read_label_map

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">II5B")  # width, height, depth, colour type, compression, filter, interlace
CHUNK = struct.Struct(">I4s")  # length, type; then the data and their checksum
GREY, PALETTE = 0, 3
PLAIN = {(GREY, 1), (GREY, 8), (PALETTE, 1), (PALETTE, 2), (PALETTE, 4), (PALETTE, 8)}  # Pillow scales other greys
MOST_PIXELS = 2**26  # of larger images Pillow's protection against bombs decides


def read_ids(path: str | Path) -> np.ndarray:
    """The pixel values of a palette, grey or 1-bit image, uint8 [H, W].

    Raises:
        VosflowError: the file is missing, damaged, a JPEG, or has more than one channel or 8 bits; or a checksum in it
            is wrong, which Pillow does not notice everywhere.
    """
    try:
        data = Path(path).read_bytes()
    except OSError:
        data = b""  # Pillow meets the same error, and `read_label_map` explains it
    chunks = _chunks(data, path)
    ids = None if chunks is None else _decode(chunks)
    return read_label_map(path)[0] if ids is None else ids


def _chunks(data: bytes, path: str | Path) -> dict[bytes, bytes] | None:
    """The chunks of a PNG file by type, data of equal types joined; None if it is no PNG file or is cut off.

    Raises:
        VosflowError: a checksum is wrong.
    """
    if data[:8] != SIGNATURE:
        return None
    chunks: dict[bytes, bytes] = {}
    at = len(SIGNATURE)
    while b"IEND" not in chunks:
        body = at + CHUNK.size
        if body > len(data):
            return None
        length, kind = CHUNK.unpack_from(data, at)
        end = body + length
        if end + 4 > len(data):
            return None
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4]):
            raise VosflowError(
                f"the mask is unreadable (wrong checksum in its {kind.decode('ascii', 'replace')} chunk)",
                path=path,
                expected="a complete PNG with object ids",
                remedy="the file is damaged: restore or recompute it",
            )
        chunks[kind] = chunks.get(kind, b"") + data[body:end]
        at = end + 4
    return chunks


def _decode(chunks: dict[bytes, bytes]) -> np.ndarray | None:
    """The pixel values, uint8 [H, W]; None if the image is unusual or its data are not what the header promises."""
    from vosflow.evaluation.machine_code import load  # here, because planning a study loads protocols, but scores none

    if len(chunks.get(b"IHDR", b"")) != HEADER.size or b"acTL" in chunks:
        return None
    width, height, depth, colour, compression, filtering, interlace = HEADER.unpack(chunks[b"IHDR"])
    if (colour, depth) not in PLAIN or compression or filtering or interlace or not 0 < width * height <= MOST_PIXELS:
        return None
    if colour == PALETTE and b"PLTE" not in chunks:
        return None
    row_bytes = (width * depth + 7) // 8
    size = height * (row_bytes + 1)
    try:
        raw = deflate.zlib_decompress(chunks.get(b"IDAT", b""), size)
    except deflate.DeflateError:
        return None
    if len(raw) != size:
        return None
    ids = np.empty((height, width), np.uint8)
    unknown_filter = load("unfilter")(np.frombuffer(raw, np.uint8), height, row_bytes, depth, width, ids)
    return None if unknown_filter else ids
