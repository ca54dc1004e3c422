"""Layouts whose masks are run lengths in one JSON file: YouTube-VIS (also OVIS, UVO and others) and BURST.

Sources: youtube-vos.org/dataset/vis (the format of COCO with a list of `segmentations` per object), and
ANNOTATION_FORMAT.md and burstapi/dataset.py of Ali2500/BURST-benchmark.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vosarena.base.errors import DataError
from vosarena.config.catalogs import Split
from vosarena.datasets.sequences import BoolMask
from vosarena.io import rle

_MARKS = {  # keys that all annotations of a format have
    "youtube-vis": (b'"videos"', b'"annotations"', b'"segmentations"'),
    "burst": (b'"sequences"', b'"all_image_paths"', b'"segmentations"'),
}
_IMAGES = ("JPEGImages", "frames", "images", ".")
_WHOLE = "all_classes.json"  # of BURST; files next to it have a part of the objects


class YoutubeVis:
    """One entry of `videos` is a sequence, named after the folder of its frames. Objects are numbered from 1 on."""

    def __init__(self, roots: Sequence[Path], split: Split) -> None:
        content = _read_annotations("youtube-vis", roots, split)
        self._roots, self._folders = roots, (split.images,) if split.images else _IMAGES
        self._videos = {_one_name(video["file_names"][0].rpartition("/")[0]): video for video in content["videos"]}
        if len(self._videos) < len(content["videos"]):
            raise DataError(f"{roots[0]}: two of the `videos` have their frames in the same folder; give each its own")
        self._objects: dict[Any, list[Any]] = {}
        for entry in sorted(content["annotations"], key=lambda entry: entry["id"]):
            self._objects.setdefault(entry["video_id"], []).append(entry["segmentations"])

    def sequences(self) -> Iterable[str]:
        """Return the names of the sequences."""
        return sorted(self._videos)

    def frames(self, name: str) -> Iterable[Path]:
        """Return the files of the frames."""
        files = self._videos[name]["file_names"]
        folder = _find(self._roots, self._folders, files[0])
        return [folder / file for file in files]

    def masks(self, name: str) -> Iterator[tuple[int, dict[int, BoolMask]]]:
        """Yield the objects of every annotated frame, which may be none, with the index of the frame."""
        video = self._videos[name]
        size, objects = (video["height"], video["width"]), self._objects.get(video["id"], [])
        for index in range(len(video["file_names"]) if objects else 0):
            masks = {number: segments[index] for number, segments in enumerate(objects, 1) if segments[index]}
            yield index, {number: _mask(found, size) for number, found in masks.items()}


class Burst:
    """A sequence is named `<dataset>-<name>`. Its objects have the numbers of their tracks."""

    def __init__(self, roots: Sequence[Path], split: Split) -> None:
        content = _read_annotations("burst", roots, split)
        self._roots = roots
        images = (split.images,) if split.images else _IMAGES
        self._folders = [f"{folder}/{part}" for folder in images for part in (content.get("split", ""), "")]
        self._videos = {_one_name(f"{video['dataset']}/{video['seq_name']}"): video for video in content["sequences"]}

    def sequences(self) -> Iterable[str]:
        """Return the names of the sequences."""
        return sorted(self._videos)

    def frames(self, name: str) -> Iterable[Path]:
        """Return the files of the frames."""
        video = self._videos[name]
        inside = f"{video['dataset']}/{video['seq_name']}"
        folder = _find(self._roots, self._folders, f"{inside}/{video['all_image_paths'][0]}")
        return [folder / inside / file for file in video["all_image_paths"]]

    def masks(self, name: str) -> Iterator[tuple[int, dict[int, BoolMask]]]:
        """Yield the objects of every annotated frame, which may be none, with the index of the frame."""
        video = self._videos[name]
        place = {file: index for index, file in enumerate(video["all_image_paths"])}
        for file, objects in zip(video["annotated_image_paths"], video["segmentations"], strict=True):
            size = video["height"], video["width"]
            yield place[file], {int(number): _mask(found["rle"], size) for number, found in objects.items()}


READERS: Mapping[str, Callable[[Sequence[Path], Split], Any]] = {"youtube-vis": YoutubeVis, "burst": Burst}
"""Reader by layout, which gets the folders of the data and the split."""


def annotations_in(folder: Path, layout: str) -> list[Path]:
    """Return the files of annotations of this layout in a folder, its subfolders and theirs.

    Those that have a part of another file's objects are left out (BURST).
    """
    files = [file for pattern in ("*.json", "*/*.json", "*/*/*.json") for file in sorted(folder.glob(pattern))]
    found = [file for file in files if _contains(file, _MARKS[layout])]
    whole = {file.parent for file in found if file.name == _WHOLE}
    return [file for file in found if file.name == _WHOLE or file.parent not in whole]


def _contains(file: Path, marks: Iterable[bytes]) -> bool:
    content = file.read_bytes()
    return all(mark in content for mark in marks)


def _read_annotations(layout: str, roots: Sequence[Path], split: Split) -> dict[str, Any]:
    if split.masks:
        files = [root / split.masks for root in roots if (root / split.masks).is_file()]
        if not files:
            raise DataError(f"{roots[0]}: no file {split.masks}; fix `masks` of {split}")
    else:
        files = [file for root in roots for file in annotations_in(root, layout)]
        if len(files) > 1:
            files = [file for file in files if file.parent.name == split.name] or files
        if len(files) != 1:
            keys = ", ".join(mark.decode().replace('"', "`") for mark in _MARKS[layout])
            names = ", ".join(str(file) for file in files[:3])
            problem = f"several files of annotations, {names}" if files else f"no JSON file with the keys {keys}"
            raise DataError(f"{roots[0]}: {problem}; name the file of {split} with `masks`")
    try:
        content: dict[str, Any] = json.loads(files[0].read_bytes())
    except ValueError as error:
        raise DataError(f"{files[0]}: not a JSON file ({error}); download it again") from None
    lists = ("sequences",) if layout == "burst" else ("videos", "annotations")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in lists):
        expected = " and ".join(f"`{key}`" for key in lists)
        raise DataError(f"{files[0]}: not the annotations of the layout {layout}; expected a mapping with {expected}")
    return content


def _one_name(path: str) -> str:
    return "-".join(PurePosixPath(path).parts)


def _find(roots: Sequence[Path], folders: Iterable[str], file: str) -> Path:
    """Return the folder that contains a file, or the first one if none does."""
    places = [root / folder for root in roots for folder in folders]
    return next((place for place in places if (place / file).is_file()), places[0])


def _mask(found: Any, size: tuple[int, int]) -> BoolMask:
    """Return a mask, bool (H, W): run lengths, compressed or not, alone or with their size."""
    height, width = size
    if isinstance(found, Mapping):
        height, width = found["size"]
        found = found["counts"]
    if isinstance(found, str):
        return rle.decode(found, height, width)
    if found and isinstance(found[0], int):
        runs = np.asarray(found, np.int64)
        if runs.min() >= 0 and runs.sum() == height * width:
            return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
    raise DataError(f"a mask is not run lengths of {height} x {width} pixels; polygons are not read, convert them")
