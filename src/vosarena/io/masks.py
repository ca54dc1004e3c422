"""Label maps as PNG files: reading, writing and their digest.

A label map is a uint8 array (H, W): 0 is background, 1 to 255 are object ids. 255 means "ignore" in some datasets;
protocols decide that, here it is an id like any other. Files are PNGs of one channel: palette images of 1, 2, 4 or 8
bits, whose *indices* are the labels, and greyscale images of at most 8 bits, whose grey values are the labels (1 bit:
0 and 1). All other images are refused, because an RGB or 16-bit PNG does not say which object a pixel belongs to.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vosarena.base.errors import MaskError
from vosarena.io import png
from vosarena.io.runs import Runs

LabelMap = np.ndarray[Any, np.dtype[np.uint8]]
Decoded = TypeVar("Decoded")

_AT_ONCE = 2**16  # bytes of a file
LEAST_GREY = 64  # a map without a label as high has no smoothed edges


def read_mask(path: str | Path) -> LabelMap:
    """Read the labels in a PNG file, uint8 (H, W). Raises MaskError, which names the file."""
    return decode_mask(_bytes(path), str(path))


def read_runs(path: str | Path) -> Runs:
    """As `read_mask`, but as runs of equal labels, of which the scores are computed."""
    return _decode(png.decode_runs, _bytes(path), str(path))


def _bytes(path: str | Path) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY)  # a third of the time of `Path.read_bytes`
        try:
            parts = []
            while part := os.read(file, _AT_ONCE):
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(file)
    except OSError as error:
        raise MaskError(f"mask {path} cannot be read ({error.strerror}): provide this PNG file") from error


def decode_mask(data: bytes, name: str) -> LabelMap:
    """Decode the labels in the bytes of a PNG file, uint8 (H, W). Raises MaskError with `name` in its message."""
    return np.ascontiguousarray(_decode(png.decode_rows, data, name)[:, 1:])


def _decode(decoder: Callable[[bytes], Decoded], data: bytes, name: str) -> Decoded:
    if not data:
        raise MaskError(f"mask {name} is empty (zero bytes): write or download this PNG again")
    if not data.startswith(png.SIGNATURE):
        raise MaskError(f"mask {name} is not a PNG: expected a palette or 8-bit greyscale PNG")
    try:
        return decoder(data)
    except png.OtherKindError as error:
        raise MaskError(f"mask {name} {error}") from None
    except png.PngError as error:
        raise MaskError(f"mask {name} is damaged ({error}): write or download this PNG again") from error


def object_ids(labels: LabelMap) -> list[int]:
    """Return the labels above 0 in uint8 (H, W), sorted; twenty times as fast as `np.unique` for a few objects."""
    data = labels.tobytes()
    return [number for number in range(1, int(labels.max(initial=0)) + 1) if bytes((number,)) in data]


def has_smooth_edges(labels: LabelMap) -> bool:
    """Whether labels look like a picture with smoothed edges, whose grey values are not object ids.

    In such a picture most labels occur along edges only and never fill a block of 2x2 pixels.
    """
    pixels = np.bincount(labels.ravel(), minlength=256)
    present = np.flatnonzero(pixels[1:]) + 1
    if len(present) < 6 or present[-1] < LEAST_GREY:
        return False
    corner = labels[:-1, :-1]
    inside = (corner == labels[1:, :-1]) & (corner == labels[:-1, 1:]) & (corner == labels[1:, 1:])
    thin = 2 * np.bincount(corner[inside], minlength=256)[present] < pixels[present]
    n_thin = int(thin.sum())
    return len(present) > n_thin >= 5 and 2 * n_thin > len(present)


def smooth_edges_message(name: str | Path) -> str:
    """The error message for such a mask."""
    return (
        f"mask {name} has smoothed edges, whose grey values would count as objects; save it without smoothing, or, if "
        "every mask shows one object, set `binary: true` for the dataset or give `vosarena evaluate` --binary"
    )


@cache
def davis_palette() -> bytes:
    """The 256 RGB colours of DAVIS and PASCAL VOC annotations: the bits of the index, spread over the channels."""
    colours = np.zeros((256, 3), np.uint8)
    for index in range(256):
        value, red, green, blue = index, 0, 0, 0
        for shift in range(7, -1, -1):
            red |= (value & 1) << shift
            green |= (value >> 1 & 1) << shift
            blue |= (value >> 2 & 1) << shift
            value >>= 3
        colours[index] = red, green, blue
    return colours.tobytes()


def write_mask(path: str | Path, labels: LabelMap) -> None:
    """Write labels, uint8 (H, W), as a palette PNG with the colours of DAVIS."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise MaskError(f"mask for {path} is {labels.dtype} {labels.shape}: expected uint8 (height, width)")
    Path(path).write_bytes(png.encode_palette(labels, davis_palette()))


class MasksDigest:
    """Digest of the labels in the masks of a sequence, however their files are encoded."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=20)

    def update(self, name: str, mask: Runs) -> None:
        """Add one mask; the masks of a sequence are added in numeric order of their frames."""
        self.add(hashed_bytes(name, mask))

    def add(self, mask: bytes) -> None:
        """Add one mask as `hashed_bytes`."""
        self._hash.update(mask)

    def hexdigest(self) -> str:
        """40 hexadecimal digits."""
        return self._hash.hexdigest()


def hashed_bytes(name: str, mask: Runs) -> bytes:
    """Return what MasksDigest hashes of a mask."""
    runs = mask.merged()
    # Name and counts are hashed too, so that no two different sequences hash the same bytes.
    head = f"{name}\0{runs.height} {runs.width} {len(runs.labels)}\0".encode()
    return head + runs.starts.astype("<i4").tobytes() + runs.labels.tobytes()


def masks_digest(files: Iterable[tuple[str, Path]]) -> str:
    """MasksDigest of (name, PNG path) pairs, given in numeric order of the frames. Raises MaskError."""
    digest = MasksDigest()
    for name, path in files:
        digest.update(name, read_runs(path))
    return digest.hexdigest()
