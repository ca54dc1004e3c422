"""Predict masks with one tracker, without a study: of folders of sequences, or of frames in memory."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from vosarena.base.errors import ConfigError, DataError, Stopped, TrackerError
from vosarena.base.files import check_folder
from vosarena.base.text import nearest
from vosarena.datasets.sequences import in_resolution, mask_root, sequence_names
from vosarena.inference.job import Job, ShardTask
from vosarena.inference.outputs import label_map_check, prompted_ids
from vosarena.inference.run import failure_report, track_sequences
from vosarena.io.masks import LabelMap
from vosarena.predictions.manifest import ModelDefinition
from vosarena.trackers.base import Frame, prompt_kinds_of, tracker_class
from vosarena.trackers.prompts import ObjectPrompt, as_prompts, check_kinds

FramePrompts = Mapping[int, LabelMap | Mapping[int, ObjectPrompt]]
"""Frame index -> labels, or object id -> prompts."""


@dataclass(frozen=True)
class Tracked:
    """Result of tracking folders.

    Attributes:
        output: Folder of the masks: `<sequence>/<frame>.png`, with the manifest `<sequence>.json`.
        finished: Names of the sequences whose masks are there.
        failed: Reasons of the other sequences, by name.
    """

    output: Path
    finished: tuple[str, ...]
    failed: Mapping[str, str] = field(default_factory=dict)


@overload
def track(
    images: str | Path,
    masks: str | Path,
    output: str | Path,
    *,
    tracker: str,
    options: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    sequences: Iterable[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    resize: str = "never",
    allow_failures: bool = False,
) -> Tracked: ...
@overload
def track(
    images: Sequence[Frame],
    masks: LabelMap | FramePrompts,
    *,
    tracker: str,
    options: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> list[LabelMap]: ...
def track(
    images: str | Path | Sequence[Frame],
    masks: str | Path | LabelMap | FramePrompts,
    output: str | Path | None = None,
    *,
    tracker: str,
    options: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    sequences: Iterable[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    resize: str = "never",
    allow_failures: bool = False,
) -> Tracked | list[LabelMap]:
    """Track objects through videos, given their first masks.

    Videos are either folders of frames on disk, as for the command `vosarena track`, or one video in memory. On disk,
    sequences that are already in the output folder are kept, and a sequence that fails does not stop the others.

    Args:
        images: Folder with one folder of frames per sequence; or the frames of one video, uint8 (H, W, 3), RGB.
        masks: Folder with one folder of masks (PNG) per sequence; or the labels of the first frame, uint8 (H, W); or
            such labels by frame index, for objects that appear later. For trackers that take boxes and clicks, a frame
            index may also have a mapping of object ids to lists of `vosarena.Prompt`.
        output: Folder for the masks. Needed with folders.
        tracker: `static`, `flow`, `empty`, `cutie`, `sam2`, an installed plug-in, or `path/to/file.py:Class`.
        options: Options of the tracker.
        weights: Weights file of the tracker.
        sequences: Names of the sequences to track; None tracks all.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        threads: Number of CPU threads of the model; None lets its libraries choose.
        resize: `never` or `nearest`: masks whose size differs from their frame's.
        allow_failures: Return even if sequences failed; see `Tracked.failed`.

    Returns:
        For folders, what is finished and what failed. For frames, the labels of every frame, uint8 (H, W).

    Raises:
        ConfigError: An argument is missing.
        DataError: A folder, sequence or mask is missing or wrong.
        TrackerError: The tracker cannot be built or fails, or sequences failed (unless `allow_failures`).

    Examples:
        >>> import numpy as np
        >>> import vosarena
        >>> frames = [np.zeros((48, 64, 3), np.uint8)] * 3
        >>> labels = np.zeros((48, 64), np.uint8)
        >>> labels[10:20, 10:20] = 1
        >>> masks = vosarena.track(frames, labels, tracker="static")
        >>> len(masks), int(masks[2].sum())
        (3, 100)
    """
    job = Job(
        ModelDefinition(tracker, dict(options or {})), Path(weights) if weights else None, device, precision, threads
    )
    if isinstance(images, str | Path):
        if output is None or not isinstance(masks, str | Path):
            raise ConfigError("with a folder of images, `masks` and `output` must be folders too")
        return _track_folders(Path(images), Path(masks), Path(output), job, sequences, resize, allow_failures)
    if isinstance(masks, str | Path) or output is not None:
        raise ConfigError("with frames in memory, `masks` must be arrays too, and `output` is not used")
    return _track_frames(images, masks, job)


def _track_folders(
    images: Path,
    masks: Path,
    output: Path,
    job: Job,
    sequences: Iterable[str] | None,
    resize: str,
    allow_failures: bool,
) -> Tracked:
    task = folder_task(images, masks, output, job, sequences, resize)
    try:
        outcome = track_sequences(task)
    except Stopped as error:
        raise TrackerError(f"{error}; finished sequences are kept in {output}") from None
    if outcome.failed and not allow_failures:
        raise TrackerError(failure_report(outcome, output))
    return Tracked(output, tuple(outcome.masks), outcome.failed)


def folder_task(
    images: Path, masks: Path, output: Path, job: Job, sequences: Iterable[str] | None, resize: str
) -> ShardTask:
    """The task of tracking folders of sequences.

    Raises:
        DataError: A folder or a sequence is missing, no sequence has masks, or `output` cannot be written to.
    """
    images, masks = in_resolution(images), mask_root(masks)
    known = sequence_names(images)
    if not any((masks / name).is_dir() for name in known):
        raise DataError(f"{masks}: no masks of any sequence in {images}; expected a folder {known[0]}/ of PNG masks")
    names = tuple(known if sequences is None else sequences)
    for name in names:
        if name not in known:
            raise DataError(f"no sequence {name!r} in {images}; {nearest(name, known)}")
    check_folder(output)
    return ShardTask(names, images, masks, job, output, resize)


def _track_frames(frames: Sequence[Frame], masks: LabelMap | FramePrompts, job: Job) -> list[LabelMap]:
    prompts: FramePrompts = masks if isinstance(masks, Mapping) else {0: masks}
    size = frames[0].shape[:2]
    for index, labels in prompts.items():
        if not 0 <= index < len(frames):
            raise DataError(f"masks: there is no frame {index}; expected 0 to {len(frames) - 1}")
        if isinstance(labels, Mapping):
            needed = {kind for given in labels.values() for prompt in as_prompts(given) for kind in prompt.kinds}
            name = job.definition.tracker
            check_kinds(name, prompt_kinds_of(tracker_class(name)), sorted({*needed, "click"}))
        elif labels.shape != size or labels.dtype != np.uint8:
            raise DataError(
                f"masks: frame {index} has {labels.dtype} {labels.shape}; expected uint8 labels {size} like the frame"
            )
    ids = {number for labels in prompts.values() for number in prompted_ids(labels)}
    check = label_map_check(size, ids)
    found: list[LabelMap] = []
    copied: Any = copy.deepcopy(prompts)  # a tracker may write into the prompts
    for labels in job.build().track(frames, copied):
        if wrong := check(labels):
            raise TrackerError(f"frame {len(found)}: the tracker gave {wrong}")
        found.append(labels)
    if len(found) != len(frames):
        raise TrackerError(f"the tracker gave {len(found)} masks for {len(frames)} frames")
    return found
