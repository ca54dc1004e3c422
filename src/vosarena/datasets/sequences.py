"""Sequences of a split: their frames, masks and objects.

A prepared split is one folder with `JPEGImages/<sequence>/<frame>.jpg` and, if there are masks,
`Annotations/<sequence>/<frame>.png`; later stages know only this form. If objects may overlap (SA-V), masks are
`Annotations/<sequence>/<object>/<frame>.png`, and every nonzero pixel belongs to the object.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from operator import attrgetter
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
FULL_IMAGES, FULL_ANNOTATIONS = "FullImages", "FullAnnotations"  # next to them: the same in a larger size
ATTRIBUTES, META = "attributes.json", "meta.json"  # next to them, if the dataset has any
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
MASK_SUFFIX = ".png"
PROBLEM = ".problem.txt"  # in the folder of a prepared sequence: why it could not be prepared
MASK_FOLDERS = (ANNOTATIONS, "Annotations_6fps", "masks", "annotations")  # names of the folder of masks in datasets
RESOLUTIONS = ("480p", "Full-Resolution", "1080p")  # DAVIS has its sequences under one of these
_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")


@dataclass(frozen=True)
class SequenceFiles:
    """Frames and masks of one sequence on disk.

    Attributes:
        name: Name of the sequence.
        frames: Image files in order.
        masks: Mask file by frame index.
        resize: What to do with masks whose size differs from the frame's: `never` accept or resize to the `nearest`.
        objects: Mask file by object id and frame index, instead of `masks`, if objects may overlap. The id is the
            number in the name of the object's folder and may be 0.
        masks_folder: Folder of the masks, whether it exists or not.
    """

    name: str
    frames: tuple[Path, ...]
    masks: Mapping[int, Path] = field(default_factory=dict)
    resize: str = "never"
    objects: Mapping[int, Mapping[int, Path]] = field(default_factory=dict)
    masks_folder: Path | None = None

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width, from the header of the first frame."""
        return image_size(self.frames[0])

    def mask(self, index: int) -> LabelMap:
        """Read the mask of a frame.

        Returns:
            Labels, uint8 (H, W).

        Raises:
            MaskError: The mask cannot be read, or its size differs and `resize` is `never`.
        """
        return self._read_fitting(self.masks[index])

    def object_mask(self, number: int, index: int) -> BoolMask:
        """Read the mask of one object of a sequence whose objects may overlap.

        Returns:
            Mask, bool (H, W).

        Raises:
            MaskError: As for `mask`.
        """
        return self._read_fitting(self.objects[number][index]) > 0

    def _read_fitting(self, path: Path) -> LabelMap:
        labels = read_mask(path)
        if labels.shape != self.size:
            if self.resize == "nearest":
                import cv2  # only the extra `data` has it

                resized: LabelMap = cv2.resize(labels, self.size[::-1], interpolation=cv2.INTER_NEAREST)
                return resized
            raise MaskError(
                f"{path}: mask is {labels.shape[1]}x{labels.shape[0]} but the frames of sequence "
                f"{self.name} are {self.size[1]}x{self.size[0]}; fix the mask or set `resize: nearest` for the dataset"
            )
        return labels

    def prompts(self, *, every: bool = False) -> dict[int, LabelMap]:
        """Read the first mask of each object, which trackers get (semi-supervised VOS).

        Label 255 means `ignore` in VOS datasets and is never an object.

        Args:
            every: Read all masks of each object instead.

        Returns:
            Labels by frame index; each holds the objects that first appear in that frame, or all with `every`.

        Raises:
            MaskError: A mask cannot be read or has smooth edges.
            DataError: There is no object, or objects may overlap, which labels cannot hold: use `object_prompts`.
        """
        if self.objects:
            raise DataError(
                "its objects may overlap; use a tracker that handles objects one by one", sequence=self.name
            )
        seen: set[int] = {0, 255}
        prompts: dict[int, LabelMap] = {}
        ignored = False
        for index in self.masks:
            labels = self.mask(index)
            if has_smooth_edges(labels):
                raise MaskError(smooth_edges_message(self.masks[index]))
            found = _labels_in(labels)
            new = found - ({0, 255} if every else seen)
            if new:
                prompts[index] = np.where(np.isin(labels, sorted(new)), labels, 0).astype(np.uint8)
                seen |= new
            ignored = ignored or 255 in found
        if not prompts:
            raise DataError(self._no_objects_message(ignored), sequence=self.name)
        return prompts

    def _no_objects_message(self, ignored: bool) -> str:
        """Return why there is nothing to track. `ignored`: whether the masks contain label 255."""
        if ignored:
            return (
                "all pixels of its masks are 0 or 255, and 255 means ignore: set `binary: true` for this dataset, or "
                "write 1 for the object"
            )
        if self.masks:
            return f"no object in any of its {len(self.masks)} masks; nothing to track"
        # Links are resolved, because users know their own folder, not the prepared split.
        if self.masks_folder is None or not self.masks_folder.is_dir():
            return (
                f"no masks for the frames in {self.frames[0].parent.resolve()}; expected PNGs, for the first at least"
            )
        others = Counter(path.suffix for path in self.masks_folder.iterdir() if path.is_file() and path.suffix)
        found = ", ".join(f"{number} {suffix}" for suffix, number in others.most_common(2))
        return f"no PNG in {self.masks_folder.resolve()}{found and f', but {found}'}; masks must be PNG"

    def object_prompts(self, *, every: bool = False) -> dict[int, dict[int, BoolMask]]:
        """Read the first mask of each object that is not empty; works for labels too.

        Args:
            every: Read all masks of each object that are not empty instead.

        Returns:
            Mask, bool (H, W), by frame index (in order) and object id.

        Raises:
            MaskError: A mask cannot be read.
            DataError: There is no object.
        """
        if not self.objects:
            return {
                index: {number: labels == number for number in sorted(_labels_in(labels) - {0})}
                for index, labels in self.prompts(every=every).items()
            }
        prompts: dict[int, dict[int, BoolMask]] = {}
        for number, masks in self.objects.items():
            for index in masks:
                mask = self.object_mask(number, index)
                if mask.any():
                    prompts.setdefault(index, {})[number] = mask
                    if not every:
                        break
        if not prompts:
            raise DataError(f"all masks of its {len(self.objects)} objects are empty", sequence=self.name)
        return dict(sorted(prompts.items()))

    def object_folder(self, number: int) -> str:
        """Return the name of an object's folder, such as `000`; predictions use the same name."""
        return next(iter(self.objects[number].values())).parent.name


def _labels_in(labels: LabelMap) -> set[int]:
    return set(np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist())


def is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to an operating system: `.DS_Store`, `._00000.jpg`, `__MACOSX`, ..."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def frame_number(stem: str) -> int | None:
    """Return the number that names a frame or an object's folder; None for other names, such as `0000²`."""
    return int(stem) if stem.isascii() and stem.isdecimal() else None


def read_names(path: Path) -> list[str]:
    """Read a list of sequences, with one name per line; empty lines and `# comments` are ignored.

    DAVIS 2016 lists files (`/JPEGImages/480p/cow/00000.jpg ...`) instead of names.

    Args:
        path: The list.

    Returns:
        The names in order, each once.

    Raises:
        DataError: The file cannot be read as text.
    """
    return list(dict.fromkeys(_listed_name(line) for line in read_lines(path)))


def _listed_name(line: str) -> str:
    line = line.rstrip("/")
    return PurePosixPath(line.split()[0]).parent.name if "/" in line else line


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file that a person wrote, stripped, without empty lines and `# comments`.

    Raises:
        DataError: The file cannot be read as text.
    """
    lines = (line.strip() for line in read_text(path).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def numbered_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files of a folder in the order of their frames; see `frame_order`.

    Args:
        folder: The folder. Hidden files are ignored.
        suffixes: Suffixes of the files, in lower case; other files are ignored.

    Raises:
        DataError: The order is ambiguous, or only some of the names are numbers.
    """
    files = {stem: Path(file) for stem, file in frame_files(folder, suffixes).items()}
    order = list(frame_order(files, folder, files))
    if stray := sorted(set(files) - set(order)):
        first, other = files[order[0]].name, files[stray[0]].name
        raise DataError(f"{folder}: {other} has no number, but {first} has; give it one or remove it")
    return [files[stem] for stem in order]


def frame_files(folder: Path, suffixes: tuple[str, ...] = (MASK_SUFFIX,)) -> dict[str, str]:
    """Return the files of a folder by stem, as text, because paths take as long to make as some masks take to count.

    Args:
        folder: The folder. Hidden files are ignored.
        suffixes: Suffixes of the files, in lower case; capital letters match too.

    Raises:
        DataError: The folder cannot be read, two files have the same stem, or one of the files is a folder, a broken
            link or has a name that is not UTF-8.
    """
    found: dict[str, str] = {}
    for entry in _entries(folder):
        stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122 (three times as fast as pathlib)
        if suffix.lower() not in suffixes:
            continue
        if not entry.is_file():
            raise DataError(f"{escape_unprintable(entry.path)}: a folder or a broken link; replace it by a file")
        if escape_unprintable(entry.name) != entry.name:
            raise DataError(
                f"{escape_unprintable(entry.path)}: its name is not UTF-8 or has control characters; rename it"
            )
        if stem in found:
            raise DataError(f"{folder}: {Path(found[stem]).name} and {entry.name} are the same frame; keep one of them")
        found[stem] = entry.path
    return found


def subfolders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, without hidden ones.

    Raises:
        DataError: The folder cannot be read.
    """
    return [entry.name for entry in _entries(folder) if entry.is_dir()]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not is_hidden(entry.name)), key=attrgetter("name"))
    except OSError as error:
        raise DataError(f"{escape_unprintable(folder)} cannot be read ({error.strerror}); expected a folder") from None


def frame_order(
    stems: Iterable[str], folder: Path | None = None, files: Mapping[str, Path] | None = None
) -> dict[str, int]:
    """Sort frames: the one rule for images and masks.

    If some stems are numbers, the others are left out. If none is, all are sorted alphabetically and numbered from 0.

    Args:
        stems: Names of the frames without suffix.
        folder: Their folder, for messages.
        files: Their files by stem, for messages.

    Returns:
        The number of each frame by its stem, in order.

    Raises:
        DataError: The order is ambiguous: two stems have the same number, or `f10` comes before `f2`.

    Example:
        >>> frame_order(["10", "2"])
        {'2': 2, '10': 10}
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
    """Return a key that sorts `f2` before `f10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", stem)]


def in_resolution(folder: Path) -> Path:
    """Return the folder of sequences in `folder`, which in DAVIS is named after the resolution."""
    return _first_with_folders(folder, RESOLUTIONS) or folder


def mask_root(folder: Path) -> Path:
    """Return the folder that contains one folder of masks per sequence.

    Args:
        folder: That folder, or one that contains it under a name that datasets use, such as `Annotations`.

    Raises:
        DataError: There is no such folder, or no sequence in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one folder of PNG masks per sequence in it")
    folder = in_resolution(_first_with_folders(folder, MASK_FOLDERS) or folder)
    if not subfolders(folder):
        hint = "; this one contains masks itself, give its parent folder" if frame_files(folder) else ""
        raise DataError(f"{folder}: no sequence folders; expected one folder of PNG masks per sequence in it{hint}")
    return folder


def _first_with_folders(folder: Path, names: Iterable[str]) -> Path | None:
    """Return the first of the named folders that has subfolders; one without is a sequence of that name."""
    return next((folder / name for name in names if (folder / name).is_dir() and subfolders(folder / name)), None)


def sequence_names(images: Path) -> list[str]:
    """Return the sorted names of the sequences in a folder of frames.

    Raises:
        DataError: There are none.
    """
    if not images.is_dir():
        raise DataError(f"{images}: no such folder; expected one folder of frames per sequence in it")
    names = subfolders(images)
    if not names:
        raise DataError(f"{images}: no sequence folders; expected one folder of frames per sequence")
    if IMAGES in names:
        raise DataError(f"{images}: the folders of frames are in {images / IMAGES}; give that one")
    return names


def read_sequence(images: Path, masks: Path | None, name: str, resize: str = "never") -> SequenceFiles:
    """Find the files of a sequence.

    Args:
        images: Folder with one folder of frames per sequence.
        masks: Folder with one folder of masks per sequence, if there is one.
        name: The sequence.
        resize: What to do with masks whose size differs from the frame's; see `SequenceFiles`.

    Raises:
        DataError: There are no frames, their order is ambiguous, or a mask has no frame.
    """
    folder = images / name
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", sequence=name)
    if not folder.is_symlink() and (folder / PROBLEM).exists():  # links lead to the user's folder
        raise DataError((folder / PROBLEM).read_text(encoding="utf-8").strip(), sequence=name)
    folder = _resolve_link(folder)
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
        masks_folder = _resolve_link(masks / name)
        flat = by_frame(masks_folder, "")
        if not flat:
            for number, folder_of_object in object_folders(masks_folder).items():
                if found := by_frame(folder_of_object, f" (object {folder_of_object.name})"):
                    objects[number] = found
    return SequenceFiles(name, tuple(frames), flat, resize, objects, masks / name if masks else None)


def _resolve_link(folder: Path) -> Path:
    """Resolve the link of a prepared split, so that errors name the user's own files."""
    return folder.resolve() if folder.is_symlink() else folder


def object_folders(folder: Path) -> dict[int, Path]:
    """Return the folders of objects by number, in order.

    Raises:
        DataError: A name is not a number, or two have the same number.
    """
    found: dict[int, Path] = {}
    for name in subfolders(folder):
        number = frame_number(name)
        if number is None:
            raise DataError(
                f"{escape_unprintable(folder / name)}: object folders must be numbers, such as 001; rename it"
            )
        if number in found:
            raise DataError(f"{folder}: {found[number].name} and {name} are the same object; keep one of them")
        found[number] = folder / name
    return dict(sorted(found.items()))


def _key(path: Path) -> int | str:
    number = frame_number(path.stem)
    return path.stem if number is None else number


def frame_indices(files: SequenceFiles) -> dict[str, int]:
    """Return the index of each frame by the name of its mask.

    Scores refer to the names of masks, which may differ from those of frames: `7.png` may be the mask of `00007.jpg`.
    """
    masks = (files.masks, *files.objects.values())
    return {path.stem: index for found in masks for index, path in found.items()}
