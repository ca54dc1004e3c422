"""Label maps as runs of equal labels: a thousandth of the pixels, which the scores need only in sums and at edges."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vosarena.base.compiled import as_argument, compiled

Labels = np.ndarray[Any, np.dtype[np.uint8]]
_KERNELS = "vosarena.io.run_kernels"
_MOST = 2**27  # pixels; sums of larger maps do not fit into 64 bits
_FEWEST, _PER_RUN = 4096, 16  # room for runs when a map is decompressed: this many, or one per 16 pixels


class _Space:
    """Buffers to decompress streams of at most `most` bytes to at most `room` runs."""

    def __init__(self, most: int, room: int) -> None:
        self.most, self.room = most, room
        self.stream = bytearray(most + 24 - most % 8)
        self.starts, self.labels = np.empty(room + 1, np.int32), np.empty(room, np.uint8)
        self.work = np.empty((4, 1024), np.int32)
        self.first = as_argument(np.frombuffer(self.stream, np.uint64))
        self.last = b"".join(map(as_argument, (self.starts, self.labels, self.work)))

    def inflate(self, stream: bytes | memoryview, step: int, size: int) -> int:
        """Write the runs of a stream to `starts` and `labels`. Returns their number, or -1 if others have to do it."""
        length = len(stream)
        self.stream[:length] = stream
        self.stream[length : length + 16] = bytes(16)
        return compiled(_KERNELS, "inflate_runs")(self.first, length, step, size, self.last)


_kept = threading.local()  # the space of each thread


@dataclass(frozen=True)
class Runs:
    """A label map as runs of equal labels, in the order of its pixels. Runs next to each other may have equal labels.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        starts: Where each run begins, and at the end H * (1 + W), int32 (n + 1,). Each row has one more pixel, of label
            0, before it: pixel (y, x) is at y * (1 + W) + 1 + x.
        labels: The label of each run, uint8 (n,).
    """

    height: int
    width: int
    starts: np.ndarray[Any, np.dtype[np.int32]]
    labels: Labels

    @classmethod
    def of_rows(cls, rows: Labels) -> Runs:
        """The runs of rows of pixels, uint8 (H, 1 + W), whose first column is ignored."""
        height, step = rows.shape
        starts, labels = np.empty(rows.size + 2, np.int32), np.empty(rows.size + 1, np.uint8)
        changes = np.zeros(64 * ((step + 63) // 64), np.uint8)
        flat = np.ascontiguousarray(rows).reshape(-1)
        number = compiled(_KERNELS, "find_runs")(flat, height, step, changes, starts, labels)
        return cls(height, step - 1, starts[: number + 1], labels[:number])

    @classmethod
    def of_stream(cls, stream: bytes | memoryview, height: int, width: int) -> Runs | None:
        """The runs of the image data of a PNG with 8 bits per pixel, without writing its pixels.

        Args:
            stream: The compressed data, with their checksum, which is checked.
            height: Height in pixels.
            width: Width in pixels.

        Returns:
            None if the data have to be decompressed another way, or are damaged.
        """
        size = height * (1 + width)
        if size > _MOST:
            return None
        room, space = max(_FEWEST, size // _PER_RUN), getattr(_kept, "space", None)
        if space is None or space.room != room or space.most < len(stream):
            space = _kept.space = _Space(2 * len(stream), room)
        number = space.inflate(stream, 1 + width, size)
        if number < 0:
            return None
        return cls(height, width, space.starts[: number + 1].copy(), space.labels[:number].copy())

    def rows(self) -> Labels:
        """The pixels, uint8 (H, 1 + W); the first column is 0."""
        return np.repeat(self.labels, np.diff(self.starts)).reshape(self.height, 1 + self.width)

    def merged(self) -> Runs:
        """The same map with the fewest runs: neighbours have different labels."""
        first = np.empty(len(self.labels), bool)
        first[:1] = True
        np.not_equal(self.labels[1:], self.labels[:-1], out=first[1:])
        starts = np.append(self.starts[:-1][first], self.starts[-1])
        return replace(self, starts=starts, labels=self.labels[first])

    def map(self, table: Labels) -> Runs:
        """The map with table[label] instead of each label; uint8 (256,), table[0] must be 0."""
        return replace(self, labels=table[self.labels])

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width
