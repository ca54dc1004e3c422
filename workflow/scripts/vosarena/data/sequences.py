"""Sequences of a split: which frames, masks and objects they have. The table of them: see index.

A prepared split is one folder with `JPEGImages/<sequence>/<frame>.jpg` and, where there are masks,
`Annotations/<sequence>/<frame>.png`; every later stage knows only this form. Where objects may overlap (SA-V), masks
are `Annotations/<sequence>/<object>/<frame>.png`, and what is not zero belongs to the object.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from vosarena.data.frames import image_size
from vosarena.data.masks import LabelMap, read_mask
from vosarena.errors import DataError, MaskError
from vosarena.files import printable, read_text

BoolMask = np.ndarray[Any, np.dtype[np.bool_]]

IMAGES, ANNOTATIONS = "JPEGImages", "Annotations"  # the two folders of a prepared split
ATTRIBUTES, META = "attributes.json", "meta.json"  # facts beside them, where the dataset has any
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
MASK_SUFFIX = ".png"
PROBLEM = ".problem.txt"  # in a sequence's folder of a prepared split: why the sequence could not be prepared
_RESOLUTIONS = ("480p", "Full-Resolution", "1080p")  # DAVIS keeps its sequences under one of these
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
                return cv2.resize(labels, self.size[::-1], interpolation=cv2.INTER_NEAREST)
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
            raise DataError(f"sequence {self.name}: its objects may overlap; use a tracker that takes them one by one")
        seen: set[int] = {0, 255}
        prompts: dict[int, LabelMap] = {}
        ignored = False
        for index in self.masks:
            labels = self.mask(index)
            found = _labels_in(labels)
            new = found - seen
            if new:
                prompts[index] = np.where(np.isin(labels, sorted(new)), labels, 0).astype(np.uint8)
                seen |= new
            ignored = ignored or 255 in found
        if not prompts:
            raise DataError(f"sequence {self.name}: {self._nothing(ignored)}")
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
            raise DataError(f"sequence {self.name}: all masks of its {len(self.objects)} objects are empty")
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


def in_resolution(folder: Path) -> Path:
    """The folder of sequences in `folder`, which DAVIS has under the name of a resolution."""
    return next((folder / name for name in _RESOLUTIONS if (folder / name).is_dir()), folder)


def read_names(path: Path) -> list[str]:
    """Names of sequences in a list, one a line, in order and each once.

    DAVIS 2016 lists files (`/JPEGImages/480p/cow/00000.jpg ...`) instead of names. Raises DataError if the file cannot
    be read as text.
    """
    lines = [line.strip() for line in read_text(path).splitlines()]
    names = [PurePosixPath(line.split()[0]).parent.name if "/" in line.rstrip("/") else line.rstrip("/")
             for line in lines if line]  # fmt: skip
    return list(dict.fromkeys(names))


def numbered_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of a folder in the numeric order of their names; other files and hidden ones are ignored.

    `2.jpg` comes before `10.jpg` and `00010.jpg`; names that are no numbers are in alphabetical order. Raises DataError
    where that leaves the order open: two files with one name or number, numbers next to other names, `f10` before `f2`;
    and for a folder, a broken link or a name that is not UTF-8 among the files.
    """
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if Path(entry.name).suffix.lower() in suffixes]
    found = [entry for entry in found if not is_hidden(entry.name)]
    for entry in found:
        if not entry.is_file():
            raise DataError(f"{printable(entry.path)}: no file, but a folder or a link to nothing; replace it")
        if printable(entry.name) != entry.name:
            raise DataError(f"{printable(entry.path)}: the name is not UTF-8; rename the file")
    files = [folder / entry.name for entry in found]
    files.sort(key=lambda path: (frame_number(path.stem) is not None, _key(path)))
    for first, second in pairwise(files):
        numbered = frame_number(first.stem) is not None
        if _key(first) == _key(second):
            raise DataError(f"{folder}: {first.name} and {second.name} are the same frame; keep one of them")
        if numbered != (frame_number(second.stem) is not None):
            raise DataError(f"{folder}: {first.name} has no number, but {second.name} has; give it one or remove it")
        if not numbered and _with_numbers(first.stem) > _with_numbers(second.stem):
            raise DataError(f"{folder}: {first.name} comes before {second.name}; number the frames with leading zeros")
    return files


def _with_numbers(stem: str) -> list[str | int]:
    """As people sort names: `f2`, `f10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", stem)]


def sequence_names(images: Path) -> list[str]:
    """Names of the sequences under a folder of frames, sorted. Raises DataError if there are none."""
    if not images.is_dir():
        raise DataError(f"{images}: no such folder; expected one folder of frames per sequence in it")
    names = sorted(path.name for path in images.iterdir() if path.is_dir() and not is_hidden(path.name))
    if not names:
        raise DataError(f"{images}: no sequence folders; expected one folder of frames per sequence")
    if IMAGES in names:
        raise DataError(f"{images}: the folders of frames are in {images / IMAGES}; give that one")
    return names


def read_sequence(images: Path, masks: Path | None, name: str, resize: str = "never") -> SequenceFiles:
    """The files of sequence `name` under a folder of frames and one of masks. Raises DataError if it has none."""
    folder = images / name
    if not folder.is_dir():
        raise DataError(f"sequence {name}: there is no folder {folder}")
    _refuse_problem(folder)
    folder = _led_to(folder)
    frames = numbered_files(folder, FRAME_SUFFIXES)
    if not frames:
        raise DataError(f"sequence {name}: no {', '.join(FRAME_SUFFIXES)} frames in {folder}")
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
        _refuse_problem(masks / name)
        masks_folder = _led_to(masks / name)
        flat = by_frame(masks_folder, "")
        if not flat:
            every = {number: by_frame(path, f" (object {path.name})")
                     for number, path in _object_folders(masks_folder).items()}  # fmt: skip
            objects = {number: found for number, found in every.items() if found}
    return SequenceFiles(name, tuple(frames), flat, resize, objects, masks / name if masks else None)


def _led_to(folder: Path) -> Path:
    """Where the link of a prepared split leads: people know their own folder, and errors are to name its files."""
    return folder.resolve() if folder.is_symlink() else folder


def _refuse_problem(folder: Path) -> None:
    """Raise DataError if the sequence could not be prepared. Links lead to folders of the user, without such a file."""
    if not folder.is_symlink() and (folder / PROBLEM).exists():
        raise DataError((folder / PROBLEM).read_text().strip())


def _object_folders(folder: Path) -> dict[int, Path]:
    """Folders of objects by number, in order. Raises DataError for another name, or two of one number."""
    found: dict[int, Path] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)):
        number = frame_number(path.name)
        if number is None:
            raise DataError(f"{printable(path)}: folders of objects must be numbers, such as 001; rename it")
        if number in found:
            raise DataError(f"{folder}: {found[number].name} and {path.name} are the same object; keep one of them")
        found[number] = path
    return dict(sorted(found.items()))


def _key(path: Path) -> int | str:
    number = frame_number(path.stem)
    return path.stem if number is None else number
