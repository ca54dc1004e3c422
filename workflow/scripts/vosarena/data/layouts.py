"""How datasets lie on disk, and what of it makes a split: the frames, masks and facts of every sequence."""

import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vosarena.data.catalog import Split
from vosarena.data.sequences import ANNOTATIONS, ATTRIBUTES, FRAME_SUFFIXES, IMAGES, in_resolution, read_names
from vosarena.errors import DataError

logger = logging.getLogger(__name__)

# Names of the folders of frames and of masks, of which the first that is there counts.
_IMAGES = {"sa-v": ("JPEGImages_24fps",), "folder": (IMAGES, "images", "frames", "."), "video": ("videos", IMAGES, ".")}
_MASKS = {"sa-v": ("Annotations_6fps",)} | dict.fromkeys(("folder", "video"), (ANNOTATIONS, "masks", "annotations"))
_VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
_LEVELS = 4  # on which frames and masks are looked for: the top of an archive and three folders down


@dataclass(frozen=True)
class Source:
    """Where one sequence lies: a folder of frames or a video file, and a folder of masks if it has one.

    In layout `sa-v` the folder of masks has one folder per object.
    """

    images: Path
    masks: Path | None


@dataclass
class Found:
    """What a dataset's folders hold.

    attributes: of a sequence. meta: what the dataset's meta file says of a sequence, as it says it: `objects` by id
    with `category` and `frames` (which a server wants; YouTube-VOS) or with `frame_range` (LVOS).
    """

    sequences: dict[str, Source] = field(default_factory=dict)
    attributes: dict[str, list[str]] = field(default_factory=dict)
    meta: dict[str, dict[str, Any]] = field(default_factory=dict)


def needed(name: str, layout: str, folders: Iterable[str] = ()) -> bool:
    """Whether a member of an archive is needed: frames, masks, lists and meta files, nothing else.

    folders: names that the catalog gives to the folders of frames and masks, if they are not the layout's.
    """
    path = PurePosixPath(name)
    if path.suffix.lower() in (".json", ".txt"):
        return True
    if layout in ("folder", "video"):
        return path.suffix.lower() in (*FRAME_SUFFIXES, *_VIDEOS)
    known = {*_image_folders(layout), *_mask_folders(layout)}
    known |= {part for folder in folders for part in PurePosixPath(folder).parts}
    return path.suffix.lower() in FRAME_SUFFIXES and not known.isdisjoint(path.parts)


def _image_folders(layout: str) -> tuple[str, ...]:
    return _IMAGES.get(layout, (IMAGES,))


def _mask_folders(layout: str) -> tuple[str, ...]:
    return _MASKS.get(layout, (ANNOTATIONS,))


def find(split: Split, roots: Sequence[Path]) -> Found:
    """Frames and masks of a split in the folders of its archives, or in its own.

    Raises DataError naming what is missing.
    """
    roots = [_descend(root, split) for root in roots]
    found = Found()
    frames = _folders(roots, split.images, _image_folders(split.layout))
    if not frames:
        wanted = split.images or _image_folders(split.layout)[0]
        videos = sorted(path.name for path in roots[0].iterdir() if path.suffix.lower() in _VIDEOS)
        hint = f"; found {videos[0]}: set `layout: video`" if videos else ""
        raise DataError(f"{roots[0]}: no folder {wanted}/; expected one folder of frames per sequence in it{hint}")
    labels = _folders(roots, split.masks, _mask_folders(split.layout))
    images, masks = _images(split, roots, frames), _entries(labels)
    if labels and images == {split.dataset: frames[0]}:  # one sequence, whose masks need no folder of their own either
        masks.setdefault(split.dataset, labels[0])
    if split.masks and not masks:
        raise DataError(f"{roots[0]}: no folder {split.masks}/ with masks; mend `masks` of {split}")
    if not masks and split.ground_truth != "none":
        raise DataError(
            f"{roots[0]}: no folder {_mask_folders(split.layout)[0]}/; expected one folder of masks per sequence in "
            "it, at least for the first frame"
        )
    names = _listed(split, roots) or sorted(images)
    missing = [name for name in names if name not in images]
    if missing:
        raise DataError(
            f"{split}: no frames of {len(missing)} listed sequences in {roots[0]}: {', '.join(missing[:3])}"
            f"{', ...' * (len(missing) > 3)}; put them there or take them off the list"
        )
    found.sequences = {name: Source(images[name], masks.get(name)) for name in names}
    _read_meta(found, split, roots)
    return found


def _images(split: Split, roots: Sequence[Path], folders: Sequence[Path]) -> dict[str, Path]:
    """Folders of frames, or videos, by name of the sequence."""
    if split.layout == "video":
        return {path.stem: path for folder in folders for path in sorted(folder.iterdir())
                if path.suffix.lower() in _VIDEOS and not path.name.startswith(".")}  # fmt: skip
    first = folders[0]
    if split.layout == "folder" and any(path.suffix.lower() in FRAME_SUFFIXES for path in first.iterdir()):
        return {split.dataset: first}  # the frames of one sequence
    found = _entries(folders)
    if first in roots:  # beside the folders of frames lies that of the masks
        for name in (*_mask_folders(split.layout), split.masks):
            found.pop(name or "", None)
    return found


def _entries(folders: Iterable[Path]) -> dict[str, Path]:
    """Folders of sequences by name; found without a look at each, of which there may be thousands on a file server."""
    return {
        entry.name: folder / entry.name
        for folder in folders
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
        if entry.is_dir() and not entry.name.startswith(".")
    }


def _folders(roots: Sequence[Path], named: str | None, choices: Sequence[str]) -> list[Path]:
    """The folder of that name, or the first choice that is there, in every root; below it a resolution of DAVIS."""
    found = []
    for root in roots:
        folder = next((root / name for name in ([named] if named else choices) if (root / name).is_dir()), None)
        if folder is not None:
            found.append(in_resolution(folder))
    return found


def _descend(root: Path, split: Split) -> Path:
    """The folder below `root` that holds frames or masks, where a catalog entry or an archive does not say which."""
    names = {split.images, split.masks, *_image_folders(split.layout), *_mask_folders(split.layout)} - {None, "."}
    level = [root]
    for _ in range(_LEVELS):
        for folder in level:
            if any((folder / str(name)).is_dir() for name in names):
                return folder
        level = sorted(path for folder in level for path in folder.iterdir()
                       if path.is_dir() and not path.name.startswith("."))[:100]  # fmt: skip
    inside = list(root.iterdir())
    alone = split.layout in ("folder", "video") and len(inside) == 1 and inside[0].is_dir()
    return inside[0] if alone else root


def _listed(split: Split, roots: Sequence[Path]) -> list[str]:
    """Names of the split's sequences from its list, if it has one."""
    if split.imageset:
        files = [root / split.imageset for root in roots if (root / split.imageset).is_file()]
        if not files:
            raise DataError(f"{roots[0]}: no list {split.imageset}; mend `imageset` of {split}")
    elif split.layout == "sa-v":
        files = [path for root in roots for path in sorted(root.glob("sav_*.txt"))]
    else:
        return []
    return sorted({name for file in files for name in read_names(file)})


def _read_meta(found: Found, split: Split, roots: Sequence[Path]) -> None:
    """Facts from `attributes.json` and the meta files of LVOS, YouTube-VOS and MOSEv2, which all have `videos`."""
    for file in [file for root in roots for file in sorted(root.glob("*.json"))]:
        if file.name == ATTRIBUTES:
            known = _read_json(file)
            found.attributes |= {name: list(values) for name, values in known.items() if name in found.sequences}
            continue
        if "meta" not in file.name or "expression" in file.name:
            continue
        videos = _videos(file)
        here = {name: video for name, video in videos.items() if name in found.sequences}
        if "attribute" in file.name:
            found.attributes |= {name: list(video.get("attributes", ())) for name, video in here.items()}
        else:
            found.meta |= here
        absent = sorted(set(videos) - set(found.sequences))
        if absent and not split.imageset:
            logger.warning("%s: %s names %d sequences without frames: %s, ...", split, file, len(absent), absent[0])


def _videos(file: Path) -> dict[str, dict[str, Any]]:
    videos = _read_json(file).get("videos")
    if not isinstance(videos, dict):
        raise DataError(f"{file}: no `videos`; expected a meta file with a mapping of sequences under that key")
    return videos


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise DataError(f"{file}: not a JSON file ({error}); fetch it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected a mapping")
    return content
