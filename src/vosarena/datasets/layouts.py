"""How datasets lie on disk, and what of it makes a split: the frames, masks and facts of every sequence."""

import json
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from vosarena.base.errors import DataError
from vosarena.base.names import escape_unprintable
from vosarena.config.study import Split
from vosarena.datasets.sequences import (
    ANNOTATIONS,
    ATTRIBUTES,
    FRAME_SUFFIXES,
    IMAGES,
    in_resolution,
    is_hidden,
    read_names,
)

# Names of the folders of frames and of masks, of which the first that is there counts.
_IMAGES = {"sa-v": ("JPEGImages_24fps",), "folder": (IMAGES, "images", "frames", "."), "video": ("videos", IMAGES, ".")}
_MASKS = {"sa-v": ("Annotations_6fps",)} | dict.fromkeys(("folder", "video"), (ANNOTATIONS, "masks", "annotations"))
_VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
_OTHER_VIDEOS = (".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".m2ts", ".3gp", ".ogv", ".vob", ".mxf", ".gif")
_LONGEST_NAME = 200  # bytes; files of the results have longer names, and file systems allow 255
_LEVELS = 4  # on which frames and masks are looked for: the top of an archive and three folders down


@dataclass(frozen=True)
class Source:
    """Where one sequence is: a folder of frames or a video file, and a folder of masks if it has one.

    In layout `sa-v` the folder of masks has one folder per object. problem: why the sequence cannot be used, or empty.
    """

    images: Path
    masks: Path | None
    problem: str = ""


@dataclass
class Found:
    """What a dataset's folders hold.

    attributes: of a sequence. meta: what the dataset's meta file says of a sequence, as it says it: `objects` by id
    with `category` and `frames` (which a server wants; YouTube-VOS) or with `frame_range` (LVOS). warnings: what is
    there but not used.
    """

    sequences: dict[str, Source] = field(default_factory=dict)
    attributes: dict[str, list[str]] = field(default_factory=dict)
    meta: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


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
    masks = _inputs(labels, videos=False)
    images = _images(split, roots, frames, {*labels, *(path for paths in masks.values() for path in paths)})
    if labels and images == {split.dataset: frames[:1]}:  # one sequence, whose masks need no folder of its name either
        masks.setdefault(split.dataset, labels[:1])
    if split.masks and not masks:
        raise DataError(f"{roots[0]}: no folder {split.masks}/ with masks; mend `masks` of {split}")
    if not masks and split.ground_truth != "none":
        raise DataError(
            f"{roots[0]}: no folder {_mask_folders(split.layout)[0]}/; expected one folder of masks per sequence in "
            "it, at least for the first frame"
        )
    names = _listed(split, roots) or sorted(images)
    if not names:
        raise DataError(_nothing_in(frames[0], split.layout))
    missing = [name for name in names if name not in images]
    if missing:
        raise DataError(
            f"{split}: no frames of {len(missing)} listed sequences in {roots[0]}: {', '.join(missing[:3])}"
            f"{', ...' * (len(missing) > 3)}; put them there or take them off the list"
        )
    found.sequences = dict(_source(name, images[name], masks.get(name, []), split.layout) for name in names)
    if alone := sorted(set(masks) - set(images)):
        found.warnings.append(
            f"{split}: {len(alone)} folders of masks have no frames: {escape_unprintable(alone[0])}, ..."
        )
    _read_meta(found, split, roots)
    return found


def _images(
    split: Split, roots: Sequence[Path], folders: Sequence[Path], others: Collection[Path]
) -> dict[str, list[Path]]:
    """Folders of frames, or videos, by name of the sequence. others: folders in which masks are."""
    first = folders[0]
    if split.layout == "folder" and any(
        path.suffix.lower() in FRAME_SUFFIXES and not is_hidden(path.name) for path in first.iterdir()
    ):
        return {split.dataset: [first]}  # the frames of one sequence
    found = _inputs(folders, split.layout == "video", others)
    if first in roots:  # next to the folders of frames is that of the masks
        for name in (*_mask_folders(split.layout), split.masks):
            found.pop(name or "", None)
    return found


def _inputs(folders: Iterable[Path], videos: bool, others: Collection[Path] = ()) -> dict[str, list[Path]]:
    """Folders of sequences, or videos, by name; more than one path where a folder has several of one name.

    Of two archives the later one counts. Found without a look at each, of which there may be thousands on a file
    server.
    """
    found: dict[str, list[Path]] = {}
    for folder in folders:
        here: dict[bool, dict[str, list[Path]]] = {False: {}, True: {}}
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122 (of thousands of names)
            is_video = suffix.lower() in (*_VIDEOS, *_OTHER_VIDEOS) and (videos or not entry.is_dir())
            if is_hidden(entry.name):
                continue
            if is_video or entry.is_dir() or (entry.is_symlink() and not entry.is_file()):  # a link may lead nowhere
                here[is_video].setdefault(stem if is_video else entry.name, []).append(folder / entry.name)
        for name, paths in here[videos].items():
            found[name] = paths + [path for path in here[not videos].get(name, []) if path not in others]
    return found


def _source(name: str, images: list[Path], masks: list[Path], layout: str) -> tuple[str, Source]:
    """A sequence's name, shortened or escaped where it cannot be used, and its source."""
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
    return shown, Source(images[0], masks[0] if masks else None, escape_unprintable(problem))


def _nothing_in(folder: Path, layout: str) -> str:
    """That a folder has no sequences, and what it has instead."""
    found = sorted(path.name for path in folder.iterdir() if not is_hidden(path.name))
    inside = f"; found {escape_unprintable(', '.join(found[:3]))}" if found else ""
    if layout == "video":
        return f"{folder}: no video in it, which must be {', '.join(_VIDEOS[:-1])} or {_VIDEOS[-1]}{inside}"
    hint = ": set `layout: video`" if any(name.lower().endswith(_VIDEOS) for name in found) else ""
    return f"{folder}: no folders in it; expected one folder of frames per sequence{inside}{hint}"


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
                       if path.is_dir() and not is_hidden(path.name))[:100]  # fmt: skip
    inside = [path for path in root.iterdir() if not is_hidden(path.name)]
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
    files = [file for root in roots for file in sorted(root.glob("*.json")) if not is_hidden(file.name)]
    for file in files:
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
            found.warnings.append(f"{split}: {file} names {len(absent)} sequences without frames: {absent[0]}, ...")


def _videos(file: Path) -> dict[str, dict[str, Any]]:
    videos = _read_json(file).get("videos")
    if not isinstance(videos, dict):
        raise DataError(f"{file}: no `videos`; expected a meta file with a mapping of sequences under that key")
    return videos


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file}: not a JSON file ({error}); fetch it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected a mapping")
    return content
