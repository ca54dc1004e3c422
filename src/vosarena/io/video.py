"""Video files: as frames, every frame once, in the order of presentation, without loss; and made from frames."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vosarena.base.errors import ConfigError, DataError, VosarenaError
from vosarena.base.files import atomic_path

_PLAYABLE = {"movflags": "faststart"}  # a browser begins before it has the whole file
_COUNTED = (".mp4", ".mov", ".m4v")  # these count their frames exactly; others only estimate from their duration


def decode_video(path: Path, folder: Path) -> None:
    """Write the frames of a video as `00000.png`, `00001.png`, ... into `folder`.

    PNG, because a second JPEG compression would change pixels. The rotation that a phone notes in the file is applied,
    and so is an edit list, which hides frames of a video that was cut without encoding it again.
    Raises DataError if the file cannot be decoded to its end, VosarenaError if frames cannot be written.
    """
    with _opened(path) as video:
        announced = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        folder.mkdir(parents=True, exist_ok=True)
        count = 0
        while True:
            there, frame = video.read()
            if not there:
                break
            if not cv2.imwrite(str(folder / f"{count:05d}.png"), frame, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
                raise VosarenaError(f"{folder}: frame {count} of {path} cannot be written; is the disk full?")
            count += 1
    counted = path.suffix.lower() in _COUNTED
    if not count or (counted and count < announced and not _hides_frames(path, announced)):
        raise DataError(f"{path}: only {count} of {announced} frames can be decoded; it is damaged, fetch it again")


def frame_rate(path: Path) -> float:
    """Return the frames per second of a video. Raises DataError if it cannot be decoded."""
    with _opened(path) as video:
        return float(video.get(cv2.CAP_PROP_FPS)) or 24.0


def first_frame_of_video(path: Path) -> NDArray[np.uint8]:
    """Return the first frame of a video, uint8 (H, W, 3) RGB. Raises DataError if it cannot be decoded."""
    with _opened(path) as video:
        there, frame = video.read()
    if not there:
        raise DataError(f"{path}: no frame can be decoded; convert it to H.264 in mp4")
    return np.ascontiguousarray(frame[..., ::-1], np.uint8)


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], rate: float, quality: int = 18) -> None:
    """Write a video that browsers play: H.264 in mp4. The same frames give the same bytes on every machine.

    Args:
        path: The file.
        frames: uint8 (H, W, 3), RGB. A last row or column that makes a side odd is left out, because H.264 needs even
            sides.
        rate: Frames per second.
        quality: Constant rate factor of x264: 18 is nearly the quality of the frames, 23 its default.

    Raises:
        ConfigError: The package av is not installed.
    """
    try:
        import av
    except ImportError:
        raise ConfigError(f"{path}: videos are written with the package av; pip install 'vosarena[trackers]'") from None

    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4", options=_PLAYABLE) as file:
        stream: Any = None
        for frame in frames:
            height, width = (side // 2 * 2 for side in frame.shape[:2])
            if stream is None:
                stream = file.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.options = {"crf": str(quality), "preset": "veryfast", **_without_avx512()}
                stream.codec_context.thread_count = 1  # the bytes depend on it, and the default on the machine
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            file.mux(stream.encode(picture))
        if stream is not None:
            file.mux(stream.encode(None))


def _without_avx512() -> dict[str, str]:
    """Return options that keep x264 from AVX-512, with which the same frames gave other bytes in every run."""
    from llvmlite import binding as llvm

    return {"x264-params": "asm=avx2"} if llvm.get_host_cpu_features().get("avx512f") else {}


@contextmanager
def _opened(path: Path, options: str = "") -> Iterator[cv2.VideoCapture]:
    """A video; options are FFmpeg's."""
    if not path.is_file():
        raise DataError(f"{path}: no file; expected a video")
    known = os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS")
    if options:
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = options  # OpenCV reads it when it opens a file
    video = cv2.VideoCapture(os.path.abspath(path))  # noqa: PTH100 (FFmpeg takes `a:b.mp4` for an address)
    try:
        if not video.isOpened():
            raise DataError(f"{path}: not a video that can be decoded; convert it to H.264 in mp4")
        yield video
    finally:
        video.release()
        if options:
            os.environ.pop("OPENCV_FFMPEG_CAPTURE_OPTIONS")
            os.environ |= {"OPENCV_FFMPEG_CAPTURE_OPTIONS": known} if known is not None else {}


def _hides_frames(path: Path, announced: int) -> bool:
    """Whether a file from which fewer frames are decoded than it announces is whole, and hides some by an edit list.

    Without that list all frames are decoded, or all but the first ones, which may need frames that were cut away.
    """
    with _opened(path, "ignore_editlist;1") as video:
        count, last = 0, 0.0
        while video.grab():
            count, last = count + 1, video.get(cv2.CAP_PROP_POS_MSEC)
        reached = round(last / 1000 * video.get(cv2.CAP_PROP_FPS)) + 1
    if count >= announced or reached < announced:
        return count >= announced
    with _opened(path, "ignore_editlist;1") as video:
        video.set(cv2.CAP_PROP_FORMAT, -1)  # encoded frames, as they are in the file
        return sum(1 for _ in iter(video.grab, False)) >= announced
