"""Sequences of a split: which frames, masks and objects they have. The table of them: see index.

A prepared split is one folder with `JPEGImages/<sequence>/<frame>.jpg` and, where there are masks,
`Annotations/<sequence>/<frame>.png`; every later stage knows only this form. Where objects may overlap (SA-V), masks
are `Annotations/<sequence>/<object>/<frame>.png`, and what is not zero belongs to the object.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vosarena.base.errors import DataError, MaskError
from vosarena.base.files import read_text
from vosarena.base.names import escape_unprintable
from vosarena.io.frames import image_size
from vosarena.io.masks import LabelMap, has_smooth_edges, read_mask, smooth_edges_message

BoolMask = np.ndarray[Any, np.dtype[np.bool_]]

IMAGES, ANNOTATIONS = "JPEGImages", "Annotations"  # the two folders of a prepared split
ATTRIBUTES, META = "attributes.json", "meta.json"  # facts beside them, where the dataset has any
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
MASK_SUFFIX = ".png"
PROBLEM = ".problem.txt"  # in a sequence's folder of a prepared split: why the sequence could not be prepared
MASK_FOLDERS = (ANNOTATIONS, "Annotations_6fps", "masks", "annotations")  # names of folders of masks in datasets
RESOLUTIONS = ("480p", "Full-Resolution", "1080p")  # DAVIS keeps its sequences under one of these
_FOREIGN = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")  # made by systems


@dataclass(frozen=True)
class SequenceFiles:
    """Frames and masks of one sequence on disk.

    frames: image files in numeric order. masks: frame index -> mask file. resize: `never` or `nearest`, what
    happens to a mask whose size differs from its frame's. objects: object id -> frame index -> mask file, instead of
    `masks` where objects may overlap; an id is the number that the object's folder is named by, and may be 0.
    masks_folder: where the masks lie, or should.
    """

    name: str
    frames: tuple[Path, ...]
    masks: Mapping[int, Path] = field(default_factory=dict)
    resize: str = "never"
    objects: Mapping[int, Mapping[int, Path]] = field(default_factory=dict)
    masks_folder: Path | None = None

    @cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) from the first frame's header."""
        return image_size(self.frames[0])

    def mask(self, index: int) -> LabelMap:
        """The mask of a frame, uint8 (H, W). Raises MaskError if its size differs and may not be changed."""
        return self._fitting(self.masks[index])

    def object_mask(self, number: int, index: int) -> BoolMask:
        """The mask of one object of a sequence whose objects may overlap, bool (H, W). Raises MaskError."""
        return self._fitting(self.objects[number][index]) > 0

    def _fitting(self, path: Path) -> LabelMap:
        labels = read_mask(path)
        if labels.shape != self.size:
            if self.resize == "nearest":
                import cv2  # only the extra `data` has it

                resized: LabelMap = cv2.resize(labels, self.size[::-1], interpolation=cv2.INTER_NEAREST)
                return resized
            raise MaskError(
                f"{path}: mask is {labels.shape[1]}x{labels.shape[0]} but the frames of sequence "
                f"{self.name} are {self.size[1]}x{self.size[0]}; mend the mask or set `resize: nearest` for the dataset"
            )
        return labels

    def prompts(self) -> dict[int, LabelMap]:
        """Frame index -> label map of the objects whose first mask is there (semi-supervised VOS).

        Label 255 is `ignore` in the field and never an object. Raises MaskError, or DataError if there is no object or
        if objects may overlap, which no label map can hold: see object_prompts.
        """
        if self.objects:
            raise DataError("its objects may overlap; use a tracker that takes them one by one", sequence=self.name)
        seen: set[int] = {0, 255}
        prompts: dict[int, LabelMap] = {}
        ignored = False
        for index in self.masks:
            labels = self.mask(index)
            if has_smooth_edges(labels):
                raise MaskError(smooth_edges_message(self.masks[index]))
            found = _labels_in(labels)
            new = found - seen
            if new:
                prompts[index] = np.where(np.isin(labels, sorted(new)), labels, 0).astype(np.uint8)
                seen |= new
            ignored = ignored or 255 in found
        if not prompts:
            raise DataError(self._nothing(ignored), sequence=self.name)
        return prompts

    def _nothing(self, ignored: bool) -> str:
        """Why there is nothing to track. ignored: whether the masks hold label 255."""
        if ignored:
            return (
                "all pixels of its masks are 0 or 255, and 255 means ignore: set `binary: true` for this dataset, or "
                "write 1 for the object"
            )
        if self.masks:
            return f"no object in any of its {len(self.masks)} masks; nothing to track"
        # Links are followed: people know their own folder, not that of the prepared split.
        if self.masks_folder is None or not self.masks_folder.is_dir():
            return (
                f"no masks for the frames in {self.frames[0].parent.resolve()}; expected PNGs, for the first at least"
            )
        others = Counter(path.suffix for path in self.masks_folder.iterdir() if path.is_file() and path.suffix)
        found = ", ".join(f"{number} {suffix}" for suffix, number in others.most_common(2))
        return f"no PNG in {self.masks_folder.resolve()}{found and f', but {found}'}; masks must be PNG"

    def object_prompts(self) -> dict[int, dict[int, BoolMask]]:
        """Frame index -> object id -> first mask of the object that is not empty, bool (H, W), in order of frames.

        Works for label maps too, so that every sequence can be tracked object by object. Raises MaskError, DataError.
        """
        if not self.objects:
            return {
                index: {number: labels == number for number in sorted(_labels_in(labels) - {0})}
                for index, labels in self.prompts().items()
            }
        prompts: dict[int, dict[int, BoolMask]] = {}
        for number, masks in self.objects.items():
            for index in masks:
                mask = self.object_mask(number, index)
                if mask.any():
                    prompts.setdefault(index, {})[number] = mask
                    break
        if not prompts:
            raise DataError(f"all masks of its {len(self.objects)} objects are empty", sequence=self.name)
        return dict(sorted(prompts.items()))

    def object_folder(self, number: int) -> str:
        """Name of an object's folder, such as `000`; predictions are written under the same name."""
        return next(iter(self.objects[number].values())).parent.name


def _labels_in(labels: LabelMap) -> set[int]:
    return set(np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist())


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's: `.DS_Store`, `._00000.jpg`, `__MACOSX`, ..."""
    return name.startswith(".") or name in _FOREIGN


def frame_number(stem: str) -> int | None:
    """The number that a frame or an object's folder is named by; None for other names, such as `0000²`."""
    return int(stem) if re.fullmatch(r"[0-9]+", stem) else None


def read_names(path: Path) -> list[str]:
    """Names of sequences in a list, one a line, in order and each once; empty lines and `# comments` are left out.

    DAVIS 2016 lists files (`/JPEGImages/480p/cow/00000.jpg ...`) instead of names. Raises DataError if the file cannot
    be read as text.
    """
    names = (
        PurePosixPath(line.split()[0]).parent.name if "/" in line.rstrip("/") else line.rstrip("/")
        for line in read_lines(path)
    )
    return list(dict.fromkeys(names))


def read_lines(path: Path) -> list[str]:
    """The lines of a list that somebody wrote, stripped, without empty lines and `# comments`.

    Raises DataError if the file cannot be read as text.
    """
    lines = (line.strip() for line in read_text(path).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def numbered_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of a folder in the order of their frames (see frame_order); other files and hidden ones are ignored.

    Raises DataError where the names leave the order open, or mix numbers with other names.
    """
    files = frame_files(folder, suffixes)
    order = list(frame_order(files, folder, files))
    if stray := sorted(set(files) - set(order)):
        first, other = files[order[0]].name, files[stray[0]].name
        raise DataError(f"{folder}: {other} has no number, but {first} has; give it one or remove it")
    return [files[stem] for stem in order]


def frame_files(folder: Path, suffixes: tuple[str, ...] = (MASK_SUFFIX,)) -> dict[str, Path]:
    """{stem: path} of the files of a folder that have one of the suffixes, also in capital letters.

    Hidden files are ignored. Raises DataError for two files with one stem, for a folder, a broken link or a name that
    is not UTF-8 among the files, and for a folder that cannot be read.
    """
    found: dict[str, Path] = {}
    for path in _entries(folder):
        if path.suffix.lower() not in suffixes:
            continue
        if not path.is_file():
            raise DataError(f"{escape_unprintable(path)}: no file, but a folder or a link to nothing; replace it")
        if escape_unprintable(path.name) != path.name:
            raise DataError(f"{escape_unprintable(path)}: its name is not UTF-8 or has control characters; rename it")
        if path.stem in found:
            other = found[path.stem].name
            raise DataError(f"{folder}: {other} and {path.name} are the same frame; keep one of them")
        found[path.stem] = path
    return found


def subfolders(folder: Path) -> list[str]:
    """Sorted names of the folders in a folder, without hidden ones. Raises DataError if it cannot be read."""
    return [path.name for path in _entries(folder) if path.is_dir()]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    except OSError as error:
        raise DataError(f"{escape_unprintable(folder)} cannot be read ({error.strerror}); expected a folder") from None


def frame_order(
    stems: Iterable[str], folder: Path | None = None, files: Mapping[str, Path] | None = None
) -> dict[str, int]:
    """Frame stems in their order with their numbers, `{"2": 2, "10": 10}`: the one rule for frames and masks.

    If some stems are numbers, the others are left out. If none is, all are in alphabetical order, numbered from 0.
    Raises DataError where that leaves the order open: two stems with one number, or `f10` before `f2`.

    folder, files: what the message names.
    """
    names = list(stems)
    numbers = {stem: number for stem in names if (number := frame_number(stem)) is not None}
    keys: dict[str, Any] = numbers or {stem: _with_numbers(stem) for stem in names}
    ordered = sorted(keys, key=numbers.__getitem__ if numbers else None)
    for first, second in pairwise(ordered):
        if keys[first] < keys[second]:
            continue
        a, b = (files[stem].name if files else f"{stem}{MASK_SUFFIX}" for stem in (first, second))
        where = f"{folder}: " if folder else ""
        if keys[first] == keys[second]:
            raise DataError(f"{where}{a} and {b} are the same frame; keep one of them")
        raise DataError(f"{where}{a} comes before {b}; number the frames with leading zeros")
    return {stem: numbers.get(stem, index) for index, stem in enumerate(ordered)}


def _with_numbers(stem: str) -> list[str | int]:
    """As people sort names: `f2`, `f10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", stem)]


def in_resolution(folder: Path) -> Path:
    """The folder of sequences in `folder`, which DAVIS has under the name of a resolution."""
    return _first_with_folders(folder, RESOLUTIONS) or folder


def mask_root(folder: Path) -> Path:
    """The folder that holds the sequences of masks: `folder`, or the one in it that datasets have for them.

    Raises DataError if there is no such folder or no sequence in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one folder of PNG masks per sequence in it")
    folder = in_resolution(_first_with_folders(folder, MASK_FOLDERS) or folder)
    if not subfolders(folder):
        hint = "; this one holds masks itself, give the folder above it" if frame_files(folder) else ""
        raise DataError(f"{folder}: no sequence folders; expected one folder of PNG masks per sequence in it{hint}")
    return folder


def _first_with_folders(folder: Path, names: Iterable[str]) -> Path | None:
    """The first of the named folders in `folder` that has folders itself; one that has none is a sequence."""
    return next((folder / name for name in names if (folder / name).is_dir() and subfolders(folder / name)), None)


def sequence_names(images: Path) -> list[str]:
    """Names of the sequences under a folder of frames, sorted. Raises DataError if there are none."""
    if not images.is_dir():
        raise DataError(f"{images}: no such folder; expected one folder of frames per sequence in it")
    names = subfolders(images)
    if not names:
        raise DataError(f"{images}: no sequence folders; expected one folder of frames per sequence")
    if IMAGES in names:
        raise DataError(f"{images}: the folders of frames are in {images / IMAGES}; give that one")
    return names


def read_sequence(images: Path, masks: Path | None, name: str, resize: str = "never") -> SequenceFiles:
    """The files of sequence `name` under a folder of frames and one of masks. Raises DataError if it has none."""
    folder = images / name
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", sequence=name)
    if not folder.is_symlink() and (folder / PROBLEM).exists():  # a link leads to the user's folder
        raise DataError((folder / PROBLEM).read_text().strip(), sequence=name)
    folder = _led_to(folder)
    frames = numbered_files(folder, FRAME_SUFFIXES)
    if not frames:
        raise DataError(f"no {', '.join(FRAME_SUFFIXES)} frames in {folder}", sequence=name)
    index_of = {_key(path): index for index, path in enumerate(frames)}

    def by_frame(folder: Path, masks_of: str) -> dict[int, Path]:
        found = {}
        for path in numbered_files(folder, (MASK_SUFFIX,)):
            if _key(path) not in index_of:
                raise DataError(f"{path}: mask without a frame; {images / name} has no frame {path.stem}{masks_of}")
            found[index_of[_key(path)]] = path
        return dict(sorted(found.items()))

    flat: dict[int, Path] = {}
    objects: dict[int, dict[int, Path]] = {}
    if masks is not None and (masks / name).is_dir():
        masks_folder = _led_to(masks / name)
        flat = by_frame(masks_folder, "")
        if not flat:
            every = {number: by_frame(path, f" (object {path.name})")
                     for number, path in object_folders(masks_folder).items()}  # fmt: skip
            objects = {number: found for number, found in every.items() if found}
    return SequenceFiles(name, tuple(frames), flat, resize, objects, masks / name if masks else None)


def _led_to(folder: Path) -> Path:
    """Where the link of a prepared split leads: people know their own folder, and errors are to name its files."""
    return folder.resolve() if folder.is_symlink() else folder


def object_folders(folder: Path) -> dict[int, Path]:
    """Folders of objects by number, in order. Raises DataError for another name, or two of one number."""
    found: dict[int, Path] = {}
    for name in subfolders(folder):
        number = frame_number(name)
        if number is None:
            raise DataError(
                f"{escape_unprintable(folder / name)}: folders of objects must be numbers, such as 001; rename it"
            )
        if number in found:
            raise DataError(f"{folder}: {found[number].name} and {name} are the same object; keep one of them")
        found[number] = folder / name
    return dict(sorted(found.items()))


def _key(path: Path) -> int | str:
    number = frame_number(path.stem)
    return path.stem if number is None else number
