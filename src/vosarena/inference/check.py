"""Check in seconds whether a tracker does what the workflow expects of it, and say what to fix."""

from __future__ import annotations

import time
import weakref
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from vosarena.base.errors import Stopped
from vosarena.datasets.sequences import ANNOTATIONS, IMAGES, SequenceFiles, read_sequence
from vosarena.demo.clips import make_clip
from vosarena.demo.synthesize import write_clip
from vosarena.inference.job import Job
from vosarena.inference.outputs import Prompts, prompted_ids, prompts_of, track_sequence
from vosarena.inference.process import restored_process
from vosarena.inference.usage import memory_in_use
from vosarena.io.frames import Frames
from vosarena.io.masks import LabelMap
from vosarena.predictions.failures import reason_of
from vosarena.trackers.base import Tracker

SHORT, LATE, LONG = "short", "late", "long"
FRAMES, LONG_FRAMES = 24, 200
_SECONDS = 60.0  # after which the long clip is cut short
_FEWEST = 40  # frames of the long clip from which memory can be judged
_MOST_KEPT = 64  # frames; models with a memory keep features, not frames
_GROWTH, _NOISE = 0.25, 25.0  # MiB per frame, and MiB that allocators hold back anyway
_SAME = 0.5  # IoU of the first mask with its prompt


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: What was checked.
        passed: Whether the tracker passed.
        detail: What was measured, or what to fix.
    """

    name: str
    passed: bool
    detail: str


def check_tracker(job: Job, folder: Path) -> Iterator[Finding]:
    """Run a tracker on tiny clips and yield what was found. An error of the tracker is the last finding.

    Args:
        job: The model.
        folder: Empty folder for the clips.
    """
    _write_clips(folder)
    try:
        with restored_process():
            started = time.perf_counter()
            tracker = job.build()
            yield Finding("loads", True, f"{time.perf_counter() - started:.1f} s")
            yield from _check_clips(tracker, folder)
            yield from _check_long_clip(_Clip(folder, LONG), tracker)
    except (Stopped, KeyboardInterrupt):
        raise
    except BaseException as error:  # a tracker may call sys.exit
        yield Finding("runs", False, reason_of(error, job.definition.tracker))


def _write_clips(folder: Path) -> None:
    write_clip(folder, SHORT, make_clip(1, frames=FRAMES, size=(96, 160), objects=2))
    write_clip(folder, LATE, make_clip(2, frames=FRAMES, size=(160, 96), objects=2, events=("late",)))
    there_and_back = [*range(FRAMES), *range(FRAMES - 2, 0, -1)]
    for kind, suffix, count in ((IMAGES, "jpg", LONG_FRAMES), (ANNOTATIONS, "png", 1)):
        (folder / kind / LONG).mkdir()
        for index in range(count):
            source = folder / kind / SHORT / f"{there_and_back[index % len(there_and_back)]:05d}.{suffix}"
            (folder / kind / LONG / f"{index:05d}.{suffix}").symlink_to(source)


class _WatchedFrames(Frames):
    """Frames that know which of them were read, are still held, or were written into."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(paths)
        self.seen: set[int] = set()
        self.changed: set[int] = set()
        self._given: list[weakref.ref[np.ndarray]] = []

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Frames: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Frames:
        self.compare()
        return super().__getitem__(index)

    def read(self, index: int) -> np.ndarray:
        frame = super().read(index)
        self.seen.add(index)
        self._given.append(weakref.ref(frame))
        return frame

    def compare(self) -> None:
        """Note if the frame that was given last differs from its file."""
        if self._current is not None and not np.array_equal(self._current[1], super().read(self._current[0])):
            self.changed.add(self._current[0])

    def held(self) -> int:
        """Return the number of frames that somebody still holds."""
        return sum(given() is not None for given in self._given)


class _Clip:
    """One of the clips, and the masks that a tracker gives for it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.files: SequenceFiles = read_sequence(folder / IMAGES, folder / ANNOTATIONS, name)
        self.prompts: Prompts = prompts_of(self.files, {})
        self.frames = _WatchedFrames(self.files.frames)

    def masks(self, tracker: Tracker) -> Generator[LabelMap]:
        """Yield the masks, each checked as in a run."""
        for _, labels in track_sequence(tracker, self.frames, self.files, self.prompts, self.files.name):
            yield labels.copy()
        self.frames.compare()
        self.frames.close()


def _check_clips(tracker: Tracker, folder: Path) -> Iterator[Finding]:
    short, late = _Clip(folder, SHORT), _Clip(folder, LATE)
    first = list(short.masks(tracker))
    yield Finding("one mask per frame", True, f"{len(first)} of uint8, {first[0].shape[0]} x {first[0].shape[1]}")
    yield _check_first_masks(first, short)
    yield _check_late_objects(list(late.masks(tracker)), late)
    changed = sorted(short.frames.changed)
    fix = f"the tracker writes into frame {changed[0] if changed else 0}; work on a copy, frame.copy()"
    yield Finding("frames are not changed", not changed, fix if changed else "")
    again = list(_Clip(folder, SHORT).masks(tracker))
    pixels = sum(int((one != two).sum()) for one, two in zip(first, again, strict=True))
    fix = f"{pixels} pixels differ when a clip is tracked again; reset the state in `track` and seed random numbers"
    yield Finding("same masks again", not pixels, fix if pixels else "also after another clip")


def _check_first_masks(masks: Sequence[LabelMap], clip: _Clip) -> Finding:
    worst, index, number = min(
        (_iou(masks[index] == number, prompt == number), index, number)
        for index, prompt in clip.prompts.items()
        for number in prompted_ids(prompt)
    )
    found = f"IoU with the prompt at least {worst:.2f}"
    fix = f"object {number} of frame {index} has an IoU of {worst:.2f} with its prompt; look for swapped axes or ids"
    return Finding("prompts are followed", worst >= _SAME, found if worst >= _SAME else fix)


def _iou(one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]) -> float:
    return float((one & two).sum() / max(1, (one | two).sum()))


def _check_late_objects(masks: Sequence[LabelMap], clip: _Clip) -> Finding:
    name = "late objects"
    for start, prompt in clip.prompts.items():
        for number in prompted_ids(prompt):
            if any((labels == number).any() for labels in masks[:start]):
                return Finding(name, False, f"object {number} is there before its prompt in frame {start}")
            if not any((labels == number).any() for labels in masks[start:]):
                fix = f"object {number} never appears; `prompts` has its first mask, for frame {start}"
                return Finding(name, False, fix)
    return Finding(name, True, f"one appears in frame {max(clip.prompts)}")


def _check_long_clip(clip: _Clip, tracker: Tracker) -> Iterator[Finding]:
    started, used, read_first = time.perf_counter(), [memory_in_use()], 0
    masks = clip.masks(tracker)
    for count, _ in enumerate(masks, 1):
        if count == 1:
            started, read_first = time.perf_counter(), len(clip.frames.seen)
        used.append(memory_in_use())
        if count >= _FEWEST and time.perf_counter() - started > _SECONDS:
            break
    seconds, held = time.perf_counter() - started, clip.frames.held()
    masks.close()
    fix = f"{read_first} of {LONG_FRAMES} frames are read before the first mask; read a frame, yield its mask"
    yield Finding("masks one by one", read_first <= _MOST_KEPT, fix if read_first > _MOST_KEPT else "")
    half = len(used) // 2
    growth = used[-1] - used[half]
    each = growth / (len(used) - half)
    leaks = held > _MOST_KEPT or (each > _GROWTH and growth > _NOISE)
    found = f"{max(0.0, each):.2f} MiB per frame over {len(used) - 1} frames"
    fix = f"memory grows by {each:.2f} MiB per frame, and {held} frames are still held; drop what is no longer needed"
    yield Finding("constant memory", not leaks, fix if leaks else found)
    yield Finding("speed", True, f"{(len(used) - 2) / seconds:.1f} frames per second at 160 x 96")
