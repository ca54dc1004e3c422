"""Video files as frames: every frame once, in the order of presentation, without loss."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from vosarena.base.errors import DataError, VosarenaError

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
