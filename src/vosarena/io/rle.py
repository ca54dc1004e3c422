"""Run lengths of masks in COCO's compressed form, as pycocotools and SA-V use it.

A mask is read column by column. Its runs are the lengths of alternating stretches of background and object, beginning
with background. Every run after the third is stored as the difference from the one before the last of the same kind,
and each number as characters of 5 bits and a bit that says that more follow, lowest bits first, 48 added.

Source of the format: cocodataset/cocoapi, common/maskApi.c (`rleToString`).
"""

from typing import Any

import numpy as np

from vosarena.base.errors import MaskError

BoolMask = np.ndarray[Any, np.dtype[np.bool_]]
Runs = np.ndarray[Any, np.dtype[np.int64]]

_MOST_CHARACTERS = 13  # of a number of 64 bits


def encode(mask: BoolMask) -> str:
    """Return the compressed run lengths of a mask, bool (H, W)."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate([[0] if flat.size and flat[0] else [], changes, [flat.size]]).astype(np.int64)
    return _pack(np.diff(ends, prepend=0))


def decode(counts: str, height: int, width: int) -> BoolMask:
    """Return the mask, bool (H, W), of compressed run lengths.

    Raises:
        MaskError: They are not the run lengths of a mask of this size.
    """
    found = runs(counts)
    if found.sum() != height * width:
        raise MaskError(f"run lengths of {found.sum()} pixels, but the mask has {height} x {width}; write them again")
    flat = np.repeat(np.arange(len(found)) % 2 == 1, found)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def area(counts: str) -> int:
    """Return the number of pixels of the object. Raises MaskError as `runs` does."""
    return int(runs(counts)[1::2].sum())


def runs(counts: str) -> Runs:
    """Return the lengths of the runs, background first, int64 (n,).

    Raises:
        MaskError: The text is not made of run lengths.
    """
    try:
        codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise MaskError("run lengths with characters outside ASCII; write them again") from None
    last = np.flatnonzero((codes & 32) == 0)
    if not len(codes) or (codes < 0).any() or (codes > 63).any() or last[-1:] != len(codes) - 1:
        raise MaskError("text that is not run lengths of COCO; write it again")
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _MOST_CHARACTERS - 1:
        raise MaskError("text that is not run lengths of COCO; write it again")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(first, lengths))
    values = np.add.reduceat((codes & 31) << shifts, first)
    values -= np.where(codes[last] & 16, 1 << 5 * lengths, 0)
    for start in (1, 2):  # runs of the same kind; the first run of all is not a part of a sum
        values[start::2] = np.cumsum(values[start::2])
    if (values < 0).any():
        raise MaskError("run lengths below zero; write them again")
    return values


def _pack(lengths: Runs) -> str:
    """Return the characters of run lengths."""
    values = lengths.copy()
    values[3:] -= lengths[1:-2]
    characters = np.zeros((len(values), _MOST_CHARACTERS), np.uint8)  # 0: none
    left = np.ones(len(values), bool)
    for place in range(_MOST_CHARACTERS):
        low = values & 31
        values >>= 5
        more = np.where(low & 16, values != -1, values != 0)
        characters[left, place] = (low + 32 * more + 48)[left]
        left &= more
        if not left.any():
            break
    return characters[characters > 0].tobytes().decode("ascii")
