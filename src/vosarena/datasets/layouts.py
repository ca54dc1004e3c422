"""Layouts of datasets on disk: where the frames, masks and metadata of each sequence of a split are."""

import json
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from vosarena.base.errors import DataError
from vosarena.base.names import escape_unprintable
from vosarena.base.text import summarise_names
from vosarena.config.catalogs import Split
from vosarena.datasets.readers import CheckedReader, is_read_by_class
from vosarena.datasets.rle_layouts import READERS
from vosarena.datasets.sequences import (
    ANNOTATIONS,
    ATTRIBUTES,
    FRAME_SUFFIXES,
    IMAGES,
    in_resolution,
    is_hidden,
    read_names,
)

READER = "reader"  # in place of a layout: any file may be needed
# Names of the folders of frames and of masks; the first that exists counts.
_IMAGES = {"sa-v": ("JPEGImages_24fps",), "folder": (IMAGES, "images", "frames", "."), "video": ("videos", IMAGES, ".")}
_MASKS = {"sa-v": ("Annotations_6fps",)} | dict.fromkeys(("folder", "video"), (ANNOTATIONS, "masks", "annotations"))
_VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
_OTHER_VIDEOS = (".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".m2ts", ".3gp", ".ogv", ".vob", ".mxf", ".gif")
_LONGEST_NAME = 200  # bytes; names of result files are longer, and file systems allow 255
_MOST_FOLDERS = 100  # searched per level
_LEVELS = 4  # searched for frames and masks: the top of an archive and three folders below


@dataclass(frozen=True)
class SequenceSource:
    """Where one sequence is in the dataset.

    Attributes:
        images: Folder of frames, or video file.
        masks: Folder of masks, if there is one. In layout `sa-v` it has one folder per object.
        problem: Why the sequence cannot be used, or empty.
        full_images: Folder of the same frames in a larger size.
        full_masks: Folder of their masks.
        reader: Gives frames and masks in place of `images` and `masks`, if it has that layout.
        name: What the reader calls the sequence.
    """

    images: Path
    masks: Path | None
    problem: str = ""
    full_images: Path | None = None
    full_masks: Path | None = None
    reader: CheckedReader | None = None
    name: str = ""


@dataclass
class DatasetContents:
    """Contents of a dataset's folders.

    Attributes:
        sequences: Where each sequence is, by name.
        attributes: Attributes by sequence.
        meta: Entry of the dataset's meta file by sequence, unchanged: `objects` by id with `category` and `frames`
            (which the server expects; YouTube-VOS) or with `frame_range` (LVOS).
        warnings: What was found but is not used.
    """

    sequences: dict[str, SequenceSource] = field(default_factory=dict)
    attributes: dict[str, list[str]] = field(default_factory=dict)
    meta: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def is_needed_member(name: str, layout: str, folders: Iterable[str] = ()) -> bool:
    """Whether a member of an archive is needed: a frame, a mask, a list or a meta file.

    Args:
        name: Path of the member in the archive.
        layout: Layout of the dataset.
        folders: Folders of frames and masks in the catalog, if they are not those of the layout.
    """
    path = PurePosixPath(name)
    if path.suffix.lower() in (".json", ".txt"):
        return True
    if layout == READER:
        return True
    if layout in ("folder", "video", *READERS):
        return path.suffix.lower() in (*FRAME_SUFFIXES, *_VIDEOS)
    known = {*_image_folders(layout), *_mask_folders(layout)}
    known |= {part for folder in folders for part in PurePosixPath(folder).parts}
    return path.suffix.lower() in FRAME_SUFFIXES and not known.isdisjoint(path.parts)


def _image_folders(layout: str) -> tuple[str, ...]:
    return _IMAGES.get(layout, (IMAGES,))


def _mask_folders(layout: str) -> tuple[str, ...]:
    return _MASKS.get(layout, (ANNOTATIONS,))


def discover(split: Split, roots: Sequence[Path]) -> DatasetContents:
    """Find the frames and masks of a split.

    Args:
        split: The split.
        roots: Folders of its extracted archives, or the user's folder.

    Returns:
        Its sequences, in the order of their names, with their attributes and metadata.

    Raises:
        DataError: Something is missing; the message names it.
    """
    if is_read_by_class(split):
        return _read(split, roots)
    roots = [_find_root(root, split) for root in roots]
    contents = DatasetContents()
    frames = _folders(roots, split.images, _image_folders(split.layout))
    if not frames:
        expected = split.images or _image_folders(split.layout)[0]
        videos = sorted(path.name for path in roots[0].iterdir() if path.suffix.lower() in _VIDEOS)
        hint = f"; found {videos[0]}: set `layout: video`" if videos else ""
        raise DataError(f"{roots[0]}: no folder {expected}/; expected one folder of frames per sequence in it{hint}")
    labels = _folders(roots, split.masks, _mask_folders(split.layout))
    masks = _sequence_paths(labels, videos=False)
    images = _find_images(split, roots, frames, {*labels, *(path for paths in masks.values() for path in paths)})
    if labels and images == {split.dataset: frames[:1]}:  # a single sequence: its masks need no subfolder
        masks.setdefault(split.dataset, labels[:1])
    if split.masks and not masks:
        raise DataError(f"{roots[0]}: no folder {split.masks}/ with masks; fix `masks` of {split}")
    if not masks and split.ground_truth != "none":
        raise DataError(
            f"{roots[0]}: no folder {_mask_folders(split.layout)[0]}/; expected one folder of masks per sequence in "
            "it, at least for the first frame"
        )
    names = _read_list(split, roots) or sorted(images)
    if not names:
        raise DataError(_no_sequences_message(frames[0], split.layout))
    _check_listed(names, images, split, roots)
    contents.sequences = dict(_source(name, images[name], masks.get(name, []), split.layout) for name in names)
    if split.full_images:
        _add_full_resolution(contents, split, roots)
    if alone := sorted(set(masks) - set(images)):
        names_alone = escape_unprintable(summarise_names(alone, 1))
        contents.warnings.append(f"{split}: {len(alone)} folders of masks have no frames: {names_alone}")
    _read_meta(contents, split, roots)
    return contents


def _read(split: Split, roots: Sequence[Path]) -> DatasetContents:
    reader, contents = CheckedReader(split, roots), DatasetContents()
    known = reader.sequences()
    names = _read_list(split, roots) or sorted(known)
    _check_listed(names, known, split, roots)
    for name in names:
        shown, source = _source(name, [roots[0]], [], split.layout)
        contents.sequences[shown] = replace(source, reader=reader, name=name)
        if attributes := reader.attributes(name):
            contents.attributes[shown] = attributes
    return contents


def _check_listed(names: Sequence[str], known: Collection[str], split: Split, roots: Sequence[Path]) -> None:
    missing = sorted(set(names) - set(known))
    if missing:
        raise DataError(
            f"{split}: no frames of {len(missing)} listed sequences in {roots[0]}: {summarise_names(missing)}; "
            "add the frames or remove the names from the list"
        )


def _add_full_resolution(contents: DatasetContents, split: Split, roots: Sequence[Path]) -> None:
    images, masks = (
        _sequence_paths(_folders(roots, folder, ()), videos=False) for folder in (split.full_images, split.full_masks)
    )
    for key, folder, found in (("images", split.full_images, images), ("masks", split.full_masks, masks)):
        if not found:
            raise DataError(f"{roots[0]}: no folders of sequences in {folder or '?'}/; fix `full_{key}` of {split}")
    for name, source in contents.sequences.items():
        if name in images and name in masks:
            contents.sequences[name] = replace(source, full_images=images[name][0], full_masks=masks[name][0])


def _find_images(
    split: Split, roots: Sequence[Path], folders: Sequence[Path], others: Collection[Path]
) -> dict[str, list[Path]]:
    """Return the folders of frames, or videos, by sequence. `others`: folders that contain masks."""
    first = folders[0]
    if split.layout == "folder" and any(
        path.suffix.lower() in FRAME_SUFFIXES and not is_hidden(path.name) for path in first.iterdir()
    ):
        return {split.dataset: [first]}  # the frames of a single sequence
    found = _sequence_paths(folders, split.layout == "video", others)
    if first in roots:  # the folder of masks is next to the folders of frames
        for name in (*_mask_folders(split.layout), split.masks):
            found.pop(name or "", None)
    return found


def _sequence_paths(folders: Iterable[Path], videos: bool, others: Collection[Path] = ()) -> dict[str, list[Path]]:
    """Return the folders of sequences, or videos, by name; several paths if a folder has several of one name.

    If two archives contain a sequence, the later one counts. Sequences are not opened, because a file server may hold
    thousands.
    """
    found: dict[str, list[Path]] = {}
    for folder in folders:
        here: dict[bool, dict[str, list[Path]]] = {False: {}, True: {}}
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122 (of thousands of names)
            is_video = suffix.lower() in (*_VIDEOS, *_OTHER_VIDEOS) and (videos or not entry.is_dir())
            if is_hidden(entry.name):
                continue
            if is_video or entry.is_dir() or (entry.is_symlink() and not entry.is_file()):  # the link may be broken
                here[is_video].setdefault(stem if is_video else entry.name, []).append(folder / entry.name)
        for name, paths in here[videos].items():
            found[name] = paths + [path for path in here[not videos].get(name, []) if path not in others]
    return found


def _source(name: str, images: list[Path], masks: list[Path], layout: str) -> tuple[str, SequenceSource]:
    """Return the name of a sequence, shortened or escaped if necessary, and its source."""
    problem, shown = "", escape_unprintable(name)
    for paths in (images, masks):
        if len(paths) > 1:
            problem = f"{paths[0]} and {paths[1]} are both sequence {shown}; keep one of them or rename it"
    if layout == "video" and images[0].suffix.lower() in _OTHER_VIDEOS:
        problem = f"{images[0]}: a video must be {', '.join(_VIDEOS[:-1])} or {_VIDEOS[-1]}; convert it to H.264 in mp4"
    if shown != name:
        problem = f"{images[0]}: its name is not UTF-8 or has control characters; rename it"
    if len(shown.encode()) > _LONGEST_NAME:
        problem = f"{images[0]}: its name has more than {_LONGEST_NAME} bytes; rename it"
        start = shown.encode()[: _LONGEST_NAME // 2].decode(errors="ignore")
        shown = f"{start}-{sha256(shown.encode()).hexdigest()[:8]}"
    return shown, SequenceSource(images[0], masks[0] if masks else None, escape_unprintable(problem))


def _no_sequences_message(folder: Path, layout: str) -> str:
    """Return the message that a folder has no sequences, and what it has instead."""
    found = sorted(path.name for path in folder.iterdir() if not is_hidden(path.name))
    inside = f"; found {escape_unprintable(', '.join(found[:3]))}" if found else ""
    if layout == "video":
        return f"{folder}: no video in it; expected {', '.join(_VIDEOS[:-1])} or {_VIDEOS[-1]}{inside}"
    hint = ": set `layout: video`" if any(name.lower().endswith(_VIDEOS) for name in found) else ""
    return f"{folder}: no folders in it; expected one folder of frames per sequence{inside}{hint}"


def _folders(roots: Sequence[Path], named: str | None, choices: Sequence[str]) -> list[Path]:
    """Return the folder of that name, or the first choice that exists, in each root; of DAVIS, its resolution."""
    found = []
    for root in roots:
        folder = next((root / name for name in ([named] if named else choices) if (root / name).is_dir()), None)
        if folder is not None:
            found.append(in_resolution(folder))
    return found


def _find_root(root: Path, split: Split) -> Path:
    """Return the folder below `root` that has the folders of frames or masks."""
    names = {split.images, split.masks, *_image_folders(split.layout), *_mask_folders(split.layout)} - {None, "."}
    level = [root]
    for _ in range(_LEVELS):
        for folder in level:
            if any((folder / str(name)).is_dir() for name in names):
                return folder
        below = (path for folder in level for path in folder.iterdir())
        level = sorted(path for path in below if path.is_dir() and not is_hidden(path.name))[:_MOST_FOLDERS]
    inside = [path for path in root.iterdir() if not is_hidden(path.name)]
    alone = split.layout in ("folder", "video") and len(inside) == 1 and inside[0].is_dir()
    return inside[0] if alone else root


def _read_list(split: Split, roots: Sequence[Path]) -> list[str]:
    """Return the names in the list of the split's sequences; none if it has no list."""
    if split.imageset:
        files = [root / split.imageset for root in roots if (root / split.imageset).is_file()]
        if not files:
            raise DataError(f"{roots[0]}: no list {split.imageset}; fix `imageset` of {split}")
    elif split.layout == "sa-v":
        files = [path for root in roots for path in sorted(root.glob("sav_*.txt"))]
    else:
        return []
    return sorted({name for file in files for name in read_names(file)})


def _read_meta(contents: DatasetContents, split: Split, roots: Sequence[Path]) -> None:
    """Read `attributes.json` and the meta files of LVOS, YouTube-VOS and MOSEv2, which all have `videos`."""
    files = [file for root in roots for file in sorted(root.glob("*.json")) if not is_hidden(file.name)]
    for file in files:
        if file.name == ATTRIBUTES:
            for name, values in _read_json(file).items():
                if name in contents.sequences:
                    contents.attributes[name] = list(values)
            continue
        if "meta" not in file.name or "expression" in file.name:
            continue
        videos = _read_videos(file)
        known = {name: video for name, video in videos.items() if name in contents.sequences}
        if "attribute" in file.name:
            contents.attributes |= {name: list(video.get("attributes", ())) for name, video in known.items()}
        else:
            contents.meta |= known
        absent = sorted(set(videos) - set(contents.sequences))
        if absent and not split.imageset:
            contents.warnings.append(
                f"{split}: {file} names {len(absent)} sequences without frames: {summarise_names(absent, 1)}"
            )


def _read_videos(file: Path) -> dict[str, dict[str, Any]]:
    videos = _read_json(file).get("videos")
    if not isinstance(videos, dict):
        raise DataError(f"{file}: no `videos`; expected a mapping of sequences under that key")
    return videos


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file}: not a JSON file ({error}); download it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected a mapping")
    return content
