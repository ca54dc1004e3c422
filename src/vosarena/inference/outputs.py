"""Check and name the output of trackers: one label map per frame, or a mask per frame and object (SA-V)."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vosarena.base.errors import TrackerError
from vosarena.base.logs import progress_bar
from vosarena.datasets.sequences import SequenceFiles
from vosarena.inference.job import Given
from vosarena.inference.real_time import RealTime
from vosarena.io.masks import LabelMap, object_ids, read_mask
from vosarena.trackers.base import Frame, Tracker
from vosarena.trackers.prompts import as_prompts, by_object

Prompts = Mapping[int, Any]
"""Frame index -> label map, or object id -> ObjectPrompt where objects may overlap or there are boxes and clicks."""


def prompts_of(files: SequenceFiles, options: Mapping[str, Any], given: Given | None = None) -> Prompts:
    """Return the prompts of a sequence for a tracker with these options.

    These are the first masks of each object, or with the option `use_all_masks`, which any tracker may have, all masks.

    Args:
        files: The sequence.
        options: Options of the tracker.
        given: Boxes and clicks in addition to the masks, or in place of them if there are none.

    Raises:
        DataError: There is nothing to track, or a mask is damaged.
    """
    if not given:
        every = bool(options.get("use_all_masks"))
        return files.object_prompts(every=every) if files.objects else files.prompts(every=every)
    masks = prompts_of(files, options) if files.masks or files.objects else {}
    prompts = {index: dict(by_object(labels)) for index, labels in masks.items()}
    for index, objects in given.items():
        for number, prompt in objects.items():
            first = prompts.setdefault(index, {}).get(number)
            prompts[index][number] = (*(as_prompts(first) if first is not None else ()), prompt)
    return dict(sorted(prompts.items()))


def given_json(prompt: Any) -> dict[str, Any]:
    """Return boxes and clicks of the prompt of one frame by object id, for manifests; empty for masks."""
    if not isinstance(prompt, Mapping):
        return {}
    found = {str(n): [item.to_json() for item in as_prompts(given)] for n, given in sorted(prompt.items())}
    return {number: items for number, items in found.items() if any(items)}


def prompted_ids(prompt: Any) -> list[int]:
    """Return the object ids of the prompt of one frame."""
    return sorted(prompt) if isinstance(prompt, Mapping) else object_ids(prompt)


def output_names(files: SequenceFiles, prompts: Prompts, stems: Sequence[str] | None = None) -> list[str]:
    """Return the names, without `.png`, of the masks of a sequence: `<frame>`, or `<object folder>/<frame>`.

    Args:
        files: The sequence.
        prompts: Its prompts.
        stems: Names of the frames; all by default.
    """
    stems = [path.stem for path in files.frames] if stems is None else list(stems)
    if not files.objects:
        return stems
    numbers = sorted({number for prompt in prompts.values() for number in prompt})
    return [f"{files.object_folder(number)}/{stem}" for number in numbers for stem in stems]


def track_sequence(
    tracker: Tracker,
    frames: Sequence[Frame],
    files: SequenceFiles,
    prompts: Prompts,
    title: str,
    real_time: RealTime | None = None,
) -> Iterator[tuple[str, LabelMap]]:
    """Yield name and uint8 (H, W) of every mask of `output_names`, with a progress bar.

    Objects that may overlap are tracked by `track_objects` of the tracker, or one by one if it has no such method.

    Args:
        tracker: The tracker.
        frames: The frames.
        files: The sequence.
        prompts: Its prompts.
        title: Title of the progress bar.
        real_time: Decides which mask a frame gets if the tracker's is late; None if it has all the time.

    Raises:
        TrackerError: The tracker does not yield, for every frame, one mask of its size with prompted objects only, or
            its objects overlap and it cannot track them together in real time.
    """

    def timed(outputs: Any) -> Any:
        return outputs if real_time is None else real_time.hold(outputs, prompts)

    stems = [path.stem for path in files.frames]
    prompts = copy.deepcopy(prompts)  # the tracker may write into them
    if not files.objects:
        ids = {number for prompt in prompts.values() for number in prompted_ids(prompt)}
        check = label_map_check(files.size, ids)
        yield from zip(stems, timed(_checked(tracker.track(frames, prompts), files, title, check)), strict=True)
    elif hasattr(tracker, "track_objects"):
        together = tracker.track_objects(frames, prompts)
        folders = {number: files.object_folder(number) for prompt in prompts.values() for number in prompt}
        check = _objects_check(files.size, set(folders))
        for stem, masks in zip(stems, timed(_checked(together, files, title, check)), strict=True):
            for number, folder in folders.items():
                yield f"{folder}/{stem}", masks[number].astype(np.uint8)
    elif real_time is not None:
        raise TrackerError("its objects overlap; `real_time` needs a tracker with `track_objects`", sequence=files.name)
    else:
        check = label_map_check(files.size, {1})
        for number in dict.fromkeys(number for prompt in prompts.values() for number in prompt):
            folder = files.object_folder(number)
            own = {index: _alone(prompt[number]) for index, prompt in prompts.items() if number in prompt}
            alone = tracker.track(frames, own)
            for stem, labels in zip(stems, _checked(alone, files, f"{title} {folder}", check), strict=True):
                yield f"{folder}/{stem}", labels


def _alone(given: Any) -> Any:
    """Return the prompt of an object as that of object 1."""
    return given.astype(np.uint8) if isinstance(given, np.ndarray) else {1: given}


def combine_masks(
    combiner: Any, files: SequenceFiles, prompts: Prompts, sources: Sequence[Path], title: str
) -> Iterator[tuple[str, LabelMap]]:
    """Yield name and uint8 (H, W) of every mask of `output_names`, combined from stored masks.

    Args:
        combiner: What combines them; see trackers.stored.
        files: The sequence.
        prompts: Its prompts.
        sources: Folders of masks of this sequence.
        title: Title of the progress bar.

    Raises:
        TrackerError: A mask has another size than its frame, or objects that are not prompted.
    """
    stems = [path.stem for path in files.frames]
    numbers = {number for prompt in prompts.values() for number in prompted_ids(prompt)}
    objects = [f"{files.object_folder(number)}/" for number in sorted(numbers)] if files.objects else [""]
    check = label_map_check(files.size, {1} if files.objects else numbers)
    for folder in objects:
        names = [f"{folder}{stem}" for stem in stems]
        made = (combiner.combine([read_mask(source / f"{name}.png") for source in sources]) for name in names)
        yield from zip(names, _checked(made, files, f"{title} {folder}".strip(), check), strict=True)


Check = Callable[[Any], str]
"""Returns what is wrong with the output for one frame, as the end of a sentence; empty if nothing is."""


def label_map_check(size: tuple[int, int], ids: set[int]) -> Check:
    """Return the check for label maps of a size (height, width) with these object ids."""
    expected = f"expected uint8, {size[0]} x {size[1]} (height x width), one per frame"
    unexpected = np.ones(256, np.bool_)
    unexpected[[0, *ids]] = False
    highest = int(unexpected.argmax()) - 1 if unexpected.any() else 255  # no label up to this one is unexpected

    def check(labels: Any) -> str:
        if not isinstance(labels, np.ndarray) or labels.shape != size:
            return f"{_description(labels)}, {expected}"
        if labels.dtype != np.uint8:
            hint = "; convert it with .astype(np.uint8)" if np.issubdtype(labels.dtype, np.integer) else ""
            hint = "; write the object's id where it is True" if labels.dtype == np.bool_ else hint
            return f"{_description(labels)}, {expected}{hint}"
        # The first test is fifty times as fast and nearly always enough; the second is faster than np.unique.
        if labels.max() > highest and unexpected.take(labels).any():
            found = set(prompted_ids(labels)) - ids
            return f"object {_id_list(found)}, but the prompts of this sequence have only object {_id_list(ids)}"
        return ""

    return check


def _objects_check(size: tuple[int, int], ids: set[int]) -> Check:
    """Return the check for label maps of a size (height, width) with these object ids."""
    expected = f"expected bool, {size[0]} x {size[1]} (height x width), for each object and frame"

    def check(masks: Any) -> str:
        if not isinstance(masks, Mapping):
            return f"{_description(masks)}, expected one mapping per frame, object id -> bool mask"
        if set(masks) != ids:
            return f"masks of object {_id_list(masks)}, but the prompts of this sequence have object {_id_list(ids)}"
        for number, mask in masks.items():
            if not isinstance(mask, np.ndarray) or mask.shape != size or mask.dtype not in (np.bool_, np.uint8):
                return f"{_description(mask)} for object {number}, {expected}"
        return ""

    return check


def _description(thing: Any) -> str:
    if isinstance(thing, np.ndarray):
        return f"{thing.dtype}, {' x '.join(map(str, thing.shape))}"
    return "None" if thing is None else f"a {type(thing).__name__}"


def _id_list(ids: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(ids))) or "none"


def _checked(outputs: Any, files: SequenceFiles, title: str, check: Check) -> Iterator[Any]:
    if not isinstance(outputs, Iterable):
        raise TrackerError(
            f"the tracker gave {_description(outputs)}, expected masks one by one; `yield` each of them",
            sequence=files.name,
        )
    count, total = 0, len(files.frames)
    with progress_bar(total=total, desc=title, unit="frame") as bar:
        for output in outputs:
            if count == total:
                raise TrackerError(f"the tracker gave more masks than the {total} frames", sequence=files.name)
            if wrong := check(output):
                frame = files.frames[count].stem
                raise TrackerError(f"frame {frame}: the tracker gave {wrong}", sequence=files.name)
            count += 1
            bar.update()
            yield output
    if count != total:
        raise TrackerError(f"the tracker gave {count} masks for {total} frames", sequence=files.name)
