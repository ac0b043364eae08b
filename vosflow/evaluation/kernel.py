"""The inner loops of scoring, compiled by numba: counting areas and boundaries of a frame, and undoing PNG's filters.

Nobody imports this module to score: `vosflow.evaluation.machine_code` compiles it once and keeps the result. Functions
take pointers to flat arrays and integers, as in C; they allocate nothing, raise nothing and need no interpreter.

What is counted is defined in `vosflow.evaluation.measures`; here stands why counting it this way is exact.

Slots. The objects to count are slots 1..n; every other pixel value is slot 0, the background. A table of 256 entries
per label map says which value is which slot.

Words. Label maps are constant almost everywhere. Eight pixels are read as one 64-bit word (little-endian, as on all
machines that numba supports): comparing words decides for eight pixels at once that nothing happens there, and only
where something does are pixels looked at one by one.

Boundaries. A pixel belongs to the boundary of an object if the object's mask differs between the pixel and its right,
lower or lower right neighbour. In the window of these four pixels that is so for exactly the slots that occur in it,
unless one slot fills it: an object that does not occur has four zeros; an object that does has a one and, somewhere, a
zero, and the first pixel equals only one of the two. So the boundaries of all objects come from one pass over windows.

Matching. A boundary pixel is matched if the other side's boundary has a pixel within the tolerance, which is to say:
if that boundary, dilated, covers it. Dilating costs the frame's area times the tolerance's; asking at the boundary
pixels alone costs the length of the contour. The other side's boundary is drawn into a bitmap, 64 pixels per word, and
each row of the tolerance, a range of pixels, is one or two words under a mask. The nearest rows are asked first; the
first hit ends the search. One bitmap serves all objects in turn. It has a margin on each side, as wide as the
tolerance reaches, in which no bit is ever set: so no range needs clipping at the border of the frame.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types

INTEGER = types.int64
BYTES = types.CPointer(types.uint8)
WORDS = types.CPointer(types.uint64)
PLACES = types.CPointer(types.int32)
COUNTS = types.CPointer(types.int64)

ONE_OF_EACH = np.uint64(0x0101010101010101)  # times a byte: a word of eight such bytes
LOW_BYTE = np.uint64(0xFF)
ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)

compiled = numba.njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)


@compiled
def count(
    truth,
    truth_words,
    truth_slots,
    truth_slot_count,
    guess,
    guess_words,
    guess_slots,
    guess_slot_count,
    height,
    width,
    pairs,
    pair_count,
    ranges,
    spans,
    tolerance_count,
    margin,
    areas,
    truth_start,
    guess_start,
    truth_matched,
    guess_matched,
    truth_boundary,
    guess_boundary,
    places,
    owners,
    bitmap,
    flags,
    block_size,
):
    """Count one frame.

    Args:
        truth, guess: label maps, height * width; truth_words and guess_words are the same memory.
        truth_slots, guess_slots: the slot of each of 256 values; slots go up to truth_slot_count and guess_slot_count.
        pairs: a slot of the truth and one of the guess whose boundaries are matched, pair_count times.
        ranges: first and last bit of each row of each tolerance, relative to a place in the bitmap; nearest rows first.
        spans: first row and end in `ranges` of tolerance k of pair p, at 2 * (k * pair_count + p).
        margin: how far the tolerances reach at most, in pixels.
        areas: zeroed; pixels of slot a in the truth and b in the guess, at a * (guess_slot_count + 1) + b.
        truth_start, guess_start, truth_boundary, guess_boundary: see `trace`.
        truth_matched, guess_matched: zeroed; boundary pixels within tolerance k of pair p, at k * pair_count + p.
        places, owners, flags, block_size: room to work in, see `trace`.
        bitmap: zeroed words, at least one more than (height + 2 * margin) * (width + 2 * margin) bits need.
    """
    columns = guess_slot_count + 1
    count_areas(truth, truth_words, truth_slots, guess, guess_words, guess_slots, height * width, columns, areas)
    trace(
        truth, truth_words, height, width, truth_slots, truth_slot_count, margin, flags, block_size, places, owners,
        truth_start, truth_boundary,
    )  # fmt: skip
    trace(
        guess, guess_words, height, width, guess_slots, guess_slot_count, margin, flags, block_size, places, owners,
        guess_start, guess_boundary,
    )  # fmt: skip
    for p in range(pair_count):
        t_first, t_end = truth_start[pairs[2 * p]], truth_start[pairs[2 * p] + 1]
        g_first, g_end = guess_start[pairs[2 * p + 1]], guess_start[pairs[2 * p + 1] + 1]
        if t_first == t_end or g_first == g_end:
            continue  # nothing to match with
        draw(truth_boundary, t_first, t_end, bitmap)
        for k in range(tolerance_count):
            at = k * pair_count + p
            guess_matched[at] = count_near(
                guess_boundary, g_first, g_end, bitmap, ranges, spans[2 * at], spans[2 * at + 1]
            )
        erase(truth_boundary, t_first, t_end, bitmap)
        draw(guess_boundary, g_first, g_end, bitmap)
        for k in range(tolerance_count):
            at = k * pair_count + p
            truth_matched[at] = count_near(
                truth_boundary, t_first, t_end, bitmap, ranges, spans[2 * at], spans[2 * at + 1]
            )
        erase(guess_boundary, g_first, g_end, bitmap)


@compiled
def count_areas(truth, truth_words, truth_slots, guess, guess_words, guess_slots, pixels, columns, areas):
    """Add the number of pixels in slot a of the truth and slot b of the guess to areas[a * columns + b].

    truth_words and guess_words are the same memory as truth and guess.
    """
    # Runs of the same two values are counted in a register and added when they end.
    a, b = np.uint64(0), np.uint64(0)
    slots, run = truth_slots[0] * columns + guess_slots[0], 0
    for j in range(pixels // 8):
        if truth_words[j] == a and guess_words[j] == b:
            run += 8
        elif is_constant(truth_words[j]) and is_constant(guess_words[j]):
            areas[slots] += run
            a, b = truth_words[j], guess_words[j]
            slots, run = truth_slots[truth[8 * j]] * columns + guess_slots[guess[8 * j]], 8
        else:
            for i in range(8 * j, 8 * j + 8):
                areas[truth_slots[truth[i]] * columns + guess_slots[guess[i]]] += 1
    areas[slots] += run
    for i in range(pixels // 8 * 8, pixels):
        areas[truth_slots[truth[i]] * columns + guess_slots[guess[i]]] += 1


@compiled
def is_constant(word):
    """Whether the eight pixels of a word are equal."""
    return word == (word & LOW_BYTE) * ONE_OF_EACH


@compiled
def trace(pixels, words, height, width, slots, slot_count, margin, flags, block_size, places, owners, start, boundary):
    """The boundary pixels of all objects of a label map, as places in a bitmap of rows of width + 2 * margin bits.

    Args:
        pixels, words: the label map, twice the same memory.
        flags: room for block_size words: as many are compared at once.
        places, owners: room for 4 * height * width: the boundary pixels as they are found, and whose they are.
        start: zeroed, for slot_count + 2: where each slot begins in `boundary`, and where the last one ends.
        boundary: room for 4 * height * width: the boundary of slot 1, then that of slot 2, ...; each in raster order.
    """
    found = 0
    count = height * width
    below, corner = width // 8, (width + 1) // 8  # the lower neighbours lie so many words further on,
    below_bits, corner_bits = np.uint64(8 * (width % 8)), np.uint64(8 * ((width + 1) % 8))  # and so many bits
    whole = max(count // 8 - corner - 1, 0)  # words whose neighbours lie in whole words
    y, row_end = 0, width
    for block in range(0, whole, block_size):
        size = min(block_size, whole - block)
        for j in range(size):
            here = words[block + j]
            right = unaligned(here, words[block + j + 1], np.uint64(8))
            lower = unaligned(words[block + j + below], words[block + j + below + 1], below_bits)
            lower_right = unaligned(words[block + j + corner], words[block + j + corner + 1], corner_bits)
            flags[j] = (here ^ right) | (here ^ lower) | (here ^ lower_right)
        for j in range(size):
            if flags[j]:
                for byte in range(8):
                    # Right of the last column is the next row's first pixel, so a flag there may be a false alarm;
                    # that none is missing is enough, for `look` decides by the frame's borders.
                    if (flags[j] >> np.uint64(8 * byte)) & LOW_BYTE:
                        i = 8 * (block + j) + byte
                        while i >= row_end:
                            y += 1
                            row_end += width
                        found = look(pixels, height, width, slots, margin, y, i - y * width, places, owners, found)
    for i in range(8 * whole, count):  # the last row, and what of the row before shares words with it
        found = look(pixels, height, width, slots, margin, i // width, i % width, places, owners, found)
    # Sort by slot, keeping the order within each: count, add up, distribute.
    for f in range(found):
        start[owners[f] + 1] += 1
    for slot in range(slot_count + 1):
        start[slot + 1] += start[slot]
    for f in range(found):
        boundary[start[owners[f]]] = places[f]
        start[owners[f]] += 1
    for slot in range(slot_count + 1, 0, -1):  # each start has moved to its end, which is the next one's start
        start[slot] = start[slot - 1]
    start[0] = 0


@compiled
def unaligned(word, following, bits):
    """The eight pixels that begin `bits` / 8 pixels after those of `word`, for bits = 0, 8, ..., 56."""
    # Two shifts, because one by 64 bits is not defined.
    return (word >> bits) | ((following << (np.uint64(63) - bits)) << np.uint64(1))


@compiled
def look(pixels, height, width, slots, margin, y, x, places, owners, found):
    """Add pixel (y, x) to the boundary of each object whose boundary it is; returns the new number of entries.

    In the last row only the right neighbour counts, in the last column only the lower one, at the last pixel none:
    those that do not count are taken to equal the pixel.
    """
    i = y * width + x
    a = slots[pixels[i]]
    b = c = d = a
    if x < width - 1:
        b = slots[pixels[i + 1]]
    if y < height - 1:
        c = slots[pixels[i + width]]
        if x < width - 1:
            d = slots[pixels[i + width + 1]]
    if a == b and a == c and a == d:
        return found
    place = (y + margin) * (width + 2 * margin) + x + margin
    if a != 0:
        places[found], owners[found] = place, a
        found += 1
    if b != 0 and b != a:
        places[found], owners[found] = place, b
        found += 1
    if c != 0 and c != a and c != b:
        places[found], owners[found] = place, c
        found += 1
    if d != 0 and d != a and d != b and d != c:
        places[found], owners[found] = place, d
        found += 1
    return found


@compiled
def draw(boundary, first, end, bitmap):
    """Set the bits of these places."""
    for f in range(first, end):
        bitmap[boundary[f] >> 6] |= np.uint64(1) << np.uint64(boundary[f] & 63)


@compiled
def erase(boundary, first, end, bitmap):
    """Clear what `draw` set."""
    for f in range(first, end):
        bitmap[boundary[f] >> 6] = np.uint64(0)


@compiled
def count_near(boundary, first, end, bitmap, ranges, row_first, row_end):
    """How many boundary pixels have a set bit within a tolerance."""
    near = 0
    for f in range(first, end):
        for row in range(row_first, row_end):
            if any_bit(bitmap, boundary[f] + ranges[2 * row], boundary[f] + ranges[2 * row + 1]):
                near += 1
                break
    return near


@compiled
def any_bit(bitmap, first, last):
    """Whether any of the bits first..last is set."""
    low, high = first >> 6, last >> 6
    low_mask, high_mask = ALL_BITS << np.uint64(first & 63), ALL_BITS >> np.uint64(63 - (last & 63))
    if low == high:
        return bitmap[low] & low_mask & high_mask != 0
    found = bitmap[low] & low_mask | bitmap[high] & high_mask
    for word in range(low + 1, high):
        found |= bitmap[word]
    return found != 0


@compiled
def unfilter(raw, height, row_bytes, depth, width, pixels):
    """Undo the filters of a PNG image of one channel and unpack its pixels (PNG specification, sections 7.2 and 9).

    Args:
        raw: the inflated data: per row one byte that names the filter, and row_bytes bytes; changed in place.
        depth: bits per pixel, 1, 2, 4 or 8: the leftmost pixel is in the highest bits.
        pixels: room for height * width values.

    Returns:
        0, or the number of a filter that does not exist.
    """
    for y in range(height):
        row = y * (row_bytes + 1) + 1
        above = row - (row_bytes + 1)
        kind = raw[row - 1]
        if kind > 4:
            return kind
        if kind != 0:
            for i in range(row_bytes):
                # Neighbours outside the image are 0. With at most 8 bits per pixel the left one is a byte away.
                left = np.int64(raw[row + i - 1]) if i > 0 else np.int64(0)
                up = np.int64(raw[above + i]) if y > 0 else np.int64(0)
                if kind == 1:
                    guess = left
                elif kind == 2:
                    guess = up
                elif kind == 3:
                    guess = (left + up) >> 1
                else:
                    guess = paeth(left, up, np.int64(raw[above + i - 1]) if i > 0 and y > 0 else np.int64(0))
                raw[row + i] = np.uint8((raw[row + i] + guess) & 255)
        if depth == 8:
            for x in range(width):
                pixels[y * width + x] = raw[row + x]
        else:
            for x in range(width):
                bit = x * depth
                pixels[y * width + x] = (raw[row + (bit >> 3)] >> (8 - depth - (bit & 7))) & ((1 << depth) - 1)
    return 0


@compiled
def paeth(left, up, up_left):
    """The one of the three that is nearest to left + up - up_left; the first of equals."""
    to_left, to_up, to_up_left = abs(up - up_left), abs(left - up_left), abs(left + up - 2 * up_left)
    if to_left <= to_up and to_left <= to_up_left:
        return left
    return up if to_up <= to_up_left else up_left


ENTRIES = {
    count: (
        (BYTES, WORDS, BYTES, INTEGER) * 2
        + (INTEGER, INTEGER, COUNTS, INTEGER, COUNTS, COUNTS, INTEGER, INTEGER)
        + (COUNTS,) * 5
        + (PLACES, PLACES, PLACES, BYTES, WORDS, WORDS, INTEGER)
    ),
    count_areas: (BYTES, WORDS, BYTES) * 2 + (INTEGER, INTEGER, COUNTS),
    unfilter: (BYTES, INTEGER, INTEGER, INTEGER, INTEGER, BYTES),
}
"""The functions that are called from outside, and the types of their arguments."""
