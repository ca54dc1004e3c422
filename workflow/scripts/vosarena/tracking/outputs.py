"""What a tracker gives, checked and named: one label map per frame, or a mask per frame and object (SA-V)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vosarena.data.masks import LabelMap
from vosarena.data.sequences import SequenceFiles
from vosarena.errors import TrackerError
from vosarena.logs import progress_bar
from vosarena.trackers.base import Frame, Tracker

Prompts = Mapping[int, Any]
"""Frame index -> label map, or -> object id -> boolean mask for a sequence whose objects may overlap."""


def prompts_of(files: SequenceFiles) -> Prompts:
    """The prompts of a sequence in the form that its masks have. Raises DataError."""
    return files.object_prompts() if files.objects else files.prompts()


def prompted_ids(prompt: Any) -> list[int]:
    """Object ids of one frame's prompt."""
    return sorted(prompt) if isinstance(prompt, Mapping) else sorted({int(label) for label in np.unique(prompt)} - {0})


def output_names(files: SequenceFiles, prompts: Prompts) -> list[str]:
    """Names (without `.png`) of the masks of a sequence: `<frame>`, or `<object folder>/<frame>`."""
    stems = [path.stem for path in files.frames]
    if not files.objects:
        return stems
    numbers = sorted(number for prompt in prompts.values() for number in prompt)
    return [f"{files.object_folder(number)}/{stem}" for number in numbers for stem in stems]


def track_sequence(
    tracker: Tracker, frames: Sequence[Frame], files: SequenceFiles, prompts: Prompts, title: str
) -> Iterator[tuple[str, LabelMap]]:
    """Yield (name, uint8 (H, W)) for every mask of output_names, as soon as it exists, with a progress bar.

    Overlapping objects go to the tracker's `track_objects`; one that has none tracks them one by one.
    Raises TrackerError if the tracker does not give one mask of the frame's size per frame.
    """
    stems = [path.stem for path in files.frames]
    if not files.objects:
        yield from zip(stems, _checked(tracker.track(frames, prompts), files, title), strict=True)
    elif hasattr(tracker, "track_objects"):
        together = tracker.track_objects(frames, prompts)
        folders = {number: files.object_folder(number) for prompt in prompts.values() for number in prompt}
        for stem, masks in zip(stems, _checked(together, files, title), strict=True):
            for number, folder in folders.items():
                yield f"{folder}/{stem}", masks[number].astype(np.uint8)
    else:
        for index, prompt in prompts.items():
            for number, mask in prompt.items():
                folder = files.object_folder(number)
                alone = tracker.track(frames, {index: mask.astype(np.uint8)})
                for stem, labels in zip(stems, _checked(alone, files, f"{title} {folder}"), strict=True):
                    yield f"{folder}/{stem}", labels


def _checked(outputs: Iterator[Any], files: SequenceFiles, title: str) -> Iterator[Any]:
    count, total = 0, len(files.frames)
    with progress_bar(total=total, desc=title, unit="frame") as bar:
        for output in outputs:
            if count == total:
                raise TrackerError(f"sequence {files.name}: the tracker gave more masks than the {total} frames")
            masks = output.values() if isinstance(output, Mapping) else [output]
            for mask in masks:
                if mask.shape != files.size or mask.dtype not in (np.uint8, np.bool_):
                    raise TrackerError(
                        f"sequence {files.name}, frame {files.frames[count].stem}: the tracker gave {mask.dtype} "
                        f"{mask.shape}, expected uint8 {files.size}"
                    )
            count += 1
            bar.update()
            yield output
    if count != total:
        raise TrackerError(f"sequence {files.name}: the tracker gave {count} masks for {total} frames")
