"""Track objects through one video or folder of frames, and show the result as a video."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vosarena.base.errors import DataError, TrackerError
from vosarena.base.files import check_folder
from vosarena.base.logs import progress_bar
from vosarena.datasets.facts import FRAME_RATE
from vosarena.datasets.sequences import FRAME_SUFFIXES, frame_files, numbered_files, read_sequence
from vosarena.inference.child import track_in_child
from vosarena.inference.job import Given, Job
from vosarena.inference.track import folder_task
from vosarena.io.frames import Frames, read_frame
from vosarena.io.masks import read_mask
from vosarena.io.video import decode_video, first_frame_of_video, frame_rate, write_video
from vosarena.trackers.base import Frame

OVERLAY = "overlay.mp4"

Blend = Callable[[Any, Any], np.ndarray[Any, Any]]  # frame and labels -> picture


def track_clip(
    clip: Path, masks: Path | None, output: Path, job: Job, blend: Blend, given: Given | None = None
) -> Path:
    """Track objects through a video or a folder of frames.

    Args:
        clip: The video, or the folder of its frames.
        masks: Mask of the first frame, or a folder of masks that are named like the frames. Masks of a video are named
            00000.png, 00001.png, ... None without masks.
        output: Folder for the masks, `<clip>/<frame>.png`, and for `overlay.mp4`.
        job: The model.
        blend: Returns the picture of a frame, uint8 (H, W, 3) RGB, with its labels, uint8 (H, W), painted over it.
        given: Boxes and clicks, in addition to the masks.

    Returns:
        Path of the overlay.

    Raises:
        DataError: The clip or a mask cannot be read.
        TrackerError: The model fails.
    """
    check_folder(output)
    with tempfile.TemporaryDirectory(prefix=".clip-", dir=output) as folder:
        root, name = Path(folder), clip.stem if clip.is_file() else clip.resolve().name
        images, prompts = root / "images" / name, root / "masks" / name
        if clip.is_dir():
            images.parent.mkdir()
            images.symlink_to(clip.resolve())
        else:
            decode_video(clip, images)
        frames = list(frame_files(images, FRAME_SUFFIXES))
        if not frames:
            raise DataError(f"{clip}: no frames in it; give a video or a folder of JPEG or PNG files")
        prompts.parent.mkdir()
        if masks is None:
            prompts.mkdir()
        elif masks.is_dir():
            prompts.symlink_to(masks.resolve())
        elif masks.is_file():
            prompts.mkdir()
            shutil.copyfile(masks, prompts / f"{frames[0]}.png")
        else:
            raise DataError(f"{masks}: no such file or folder; give the mask of the first frame")
        task = replace(folder_task(images.parent, prompts.parent, output, job, None, "never"), given=given or {})
        outcome = track_in_child(task)
        for reason in outcome.failed.values():
            raise TrackerError(f"{clip}: {reason}")
        files = read_sequence(images.parent, None, name)
        rate = frame_rate(clip) if clip.is_file() else FRAME_RATE
        with Frames(files.frames) as pictures:
            write_video(output / OVERLAY, _painted(pictures, files.frames, output / name, blend), rate)
    return output / OVERLAY


def first_frame(clip: Path) -> Frame:
    """Return the first frame of a video or of a folder of frames, uint8 (H, W, 3) RGB.

    Raises:
        DataError: It cannot be read.
    """
    if clip.is_file():
        return first_frame_of_video(clip)
    files = numbered_files(clip, FRAME_SUFFIXES)
    if not files:
        raise DataError(f"{clip}: no frames in it; give a video or a folder of JPEG or PNG files")
    return read_frame(files[0])


def _painted(pictures: Frames, paths: Any, masks: Path, blend: Blend) -> Iterator[np.ndarray[Any, Any]]:
    with progress_bar(total=len(paths), desc=OVERLAY, unit="frame") as bar:
        for index, path in enumerate(paths):
            yield blend(pictures[index], read_mask(masks / f"{path.stem}.png"))
            bar.update()
