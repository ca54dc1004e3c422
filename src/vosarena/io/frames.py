"""The frames of one sequence: image files read lazily, decoded ahead by a small thread pool."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, overload

import numpy as np
from PIL import Image, UnidentifiedImageError

from vosarena.base.errors import DataError

_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # SyntaxError: a damaged PNG
_START_OF_IMAGE, _START_OF_SCAN, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_MOST_WORKERS = 3  # keep ahead of 100 frames per second at 1080p

T = TypeVar("T")


def read_frame(path: Path) -> np.ndarray:
    """Read an image file as uint8 (H, W, 3), RGB.

    The pixels are Pillow's, as in the official code of SAM 2 and Cutie. simplejpeg decodes JPEGs in half of the time:
    both use libjpeg-turbo. Greyscale is repeated over the three channels, Pillow converts CMYK and palettes, alpha is
    dropped, and an EXIF rotation is ignored (as upstream does: masks are drawn on the stored pixels).

    Raises:
        DataError: The file is missing, empty, truncated, not an image or deeper than 8 bits per channel.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"Frame {path.stem} cannot be read: {path}: {error.strerror}; put it back.") from error
    if not data:
        raise DataError(f"Frame {path.stem} is an empty file (0 bytes): {path}; fetch or export it again.")
    whole = data.endswith(_END_OF_IMAGE) or not data.startswith(_START_OF_IMAGE)
    if not whole and data.rfind(_END_OF_IMAGE) < data.rfind(_START_OF_SCAN):
        # A file cut and padded with zeros, as interrupted downloads leave it, decodes without an error.
        raise DataError(f"Frame {path.stem} is truncated (no end-of-image marker): {path}; fetch or export it again.")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(
                    f"Frame {path.stem} has more than 8 bits per channel (Pillow mode {image.mode}): {path}; "
                    "convert the frames to 8-bit RGB or greyscale."
                )
            ordinary = image.format == "JPEG" and image.mode in ("RGB", "L")
            quick = _decode_quickly(data) if ordinary and _simplejpeg_equals_pillow() else None
            return np.array(image.convert("RGB")) if quick is None else quick
    except UnidentifiedImageError as error:
        raise DataError(f"Frame {path.stem} is not an image: {path}; expected JPEG or PNG.") from error
    except _UNREADABLE as error:
        raise DataError(f"Frame {path.stem} is damaged ({error}): {path}; fetch or export it again.") from error


def _decode_quickly(data: bytes) -> np.ndarray | None:
    """Decode a JPEG with simplejpeg, or return None if libjpeg-turbo warns of damage, which Pillow is to judge."""
    import simplejpeg  # only the extra `data` has it

    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError:
        return None
    return pixels


@cache
def _simplejpeg_equals_pillow() -> bool:
    """Whether simplejpeg decodes JPEGs as Pillow here: a build of Pillow may use another library or another version."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    for subsampling in ("4:2:0", "4:2:2", "4:4:4"):
        for progressive in (False, True):
            file = io.BytesIO()
            Image.fromarray(noise).save(file, "JPEG", subsampling=subsampling, progressive=progressive)
            quick = _decode_quickly(file.getvalue())
            if quick is None or not np.array_equal(quick, np.array(Image.open(file))):
                return False
    return True


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image file, from its header. Raises DataError as `read_frame` does."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except _UNREADABLE:
        return read_frame(path).shape[:2]  # says what is wrong with it


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Frames(Sequence[np.ndarray]):
    """Lazy random access to image files as uint8 (H, W, 3) RGB arrays of one size.

    A frame that cannot be decoded (see `read_frame`), or whose size differs from the first frame's, raises DataError
    when it is read, not before, so the frames before it stay usable. Use one object per thread, except for `read`.

    Args:
        paths: The frames in temporal order.
        prefetch: Number of frames that are decoded ahead in the background while frames are read in order; 0 starts
            no thread. At most `prefetch` + 1 decoded frames are held in memory.
        workers: Threads that decode, and that trackers prepare frames in; None for one per available CPU, up to 3.
        mask_size: (height, width) of the masks that a tracker is to give; None for that of the frames.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        prefetch: int = 8,
        workers: int | None = None,
        mask_size: tuple[int, int] | None = None,
    ) -> None:
        self.paths = [Path(path) for path in paths]
        self.workers = workers or min(_MOST_WORKERS, available_cpus())
        self._prefetch = prefetch
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: dict[int, Future[np.ndarray]] = {}
        self._current: tuple[int, np.ndarray] | None = None
        self._prepared: dict[int, tuple[Callable[[np.ndarray], Any], Any]] = {}
        self._size: tuple[int, int] | None = None
        self._mask_size = mask_size

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame, from the header of the first."""
        if self._size is None:
            self._size = image_size(self.paths[0])
        return self._size

    @property
    def mask_size(self) -> tuple[int, int]:
        """(height, width) of the masks that a tracker is to give."""
        return self._mask_size or self.size

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Frames: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Frames:
        if isinstance(index, slice):
            return Frames(self.paths[index], self._prefetch, self.workers, self._mask_size)
        index = range(len(self.paths))[index]  # IndexError, and negative numbers from the end
        if self._current is not None and self._current[0] == index:
            return self._current[1]
        in_order = index == (0 if self._current is None else self._current[0] + 1)
        pending = self._ahead.pop(index, None)
        self._look_ahead(range(index + 1, min(index + 1 + self._prefetch, len(self.paths))) if in_order else range(0))
        frame = self.read(index) if pending is None else pending.result()
        self._current = (index, frame)
        return frame

    def _look_ahead(self, window: range) -> None:
        for index in [index for index in self._ahead if index not in window]:
            self._ahead.pop(index).cancel()
        for index in window:
            if index not in self._ahead:
                self._pool = self._pool or ThreadPoolExecutor(self.workers, thread_name_prefix="frames")
                self._ahead[index] = self._pool.submit(self.read, index)

    def read(self, index: int) -> np.ndarray:
        """Decode one frame now, whatever is decoded ahead. Several threads may call this."""
        frame = read_frame(self.paths[index])
        if frame.shape[:2] != self.size:
            height, width = self.size
            raise DataError(
                f"Frame {self.paths[index].stem} is {frame.shape[1]}x{frame.shape[0]} but the first frame of its "
                f"sequence is {width}x{height}: {self.paths[index]}; all frames of a sequence must have one size."
            )
        return frame

    def prepare(self, index: int, function: Callable[[np.ndarray], Any]) -> None:
        """Keep what a function makes of a frame until `prepared` asks for it."""
        self._prepared[index] = function, function(self.read(index))

    def prepared(self, index: int, function: Callable[[np.ndarray], T]) -> T:
        """Return what a function makes of a frame, or what `prepare` kept of that, which is then forgotten.

        Several threads may call this.
        """
        kept = self._prepared.pop(index, None)
        if kept is None or kept[0] != function:
            return function(self.read(index))
        result: T = kept[1]
        return result

    def close(self) -> None:
        """Stop decoding ahead and free the decoded frames. Frames can still be read afterwards."""
        self._look_ahead(range(0))
        self._prepared.clear()
        self._current = None
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Frames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
