"""Video files as frames: every frame once, in the order of presentation, without loss."""

from pathlib import Path

import cv2

from vosarena.errors import DataError


def decode_video(path: Path, folder: Path) -> None:
    """Write the frames of a video as `00000.png`, `00001.png`, ... into `folder`.

    PNG, because a second JPEG compression would change pixels. The rotation that a phone notes in the file is applied.
    Raises DataError if the file cannot be decoded to its end.
    """
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened():
            raise DataError(f"{path}: not a video that can be decoded; convert it to H.264 in mp4")
        announced = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        folder.mkdir(parents=True, exist_ok=True)
        count = 0
        while True:
            there, frame = video.read()
            if not there:
                break
            if not cv2.imwrite(str(folder / f"{count:05d}.png"), frame, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
                raise DataError(f"{folder}: frame {count} of {path} cannot be written; is the disk full?")
            count += 1
    finally:
        video.release()
    # mp4 and mov count their frames exactly; other containers only estimate from their duration.
    exact = path.suffix.lower() in (".mp4", ".mov", ".m4v")
    if not count or (exact and count < announced):
        raise DataError(f"{path}: only {count} of {announced} frames can be decoded; it is damaged, fetch it again")
