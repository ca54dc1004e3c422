"""Datasets that a class reads, because their frames or masks are not files as in the layouts.

`reader: my_data.py:Mine` or the name of an entry point of the group `vosarena.layouts` names a class of the user; the
layouts in `rle_layouts` are classes of the same form. What they give is checked and written in the one form that all
later stages use: frames become links, or PNG files if they are arrays, and masks become PNG files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from vosarena.base.errors import DataError, Stopped, VosarenaError
from vosarena.base.hashing import file_sha256
from vosarena.base.names import escape_unprintable
from vosarena.base.plugins import file_of, installed, is_in_file, load_from_file
from vosarena.base.text import nearest
from vosarena.config.catalogs import Split
from vosarena.datasets.rle_layouts import READERS
from vosarena.datasets.sequences import FRAME_SUFFIXES, MASK_SUFFIX, BoolMask, frame_order
from vosarena.io.frames import image_size
from vosarena.io.masks import LabelMap, write_mask

GROUP = "vosarena.layouts"
_HIGHEST = 254  # object id in a label map, because 255 means `ignore`

Masks = LabelMap | Mapping[int, BoolMask]


class Reader(Protocol):
    """Reads a dataset. The constructor takes the dataset's folder; of several archives, one folder each, in order.

    A method `attributes(name)` that returns the attributes of a sequence may be there too.
    """

    def sequences(self) -> Iterable[str]:
        """Return the names of the sequences."""
        ...

    def frames(self, name: str) -> Iterable[Path | np.ndarray[Any, Any]]:
        """Return the frames of a sequence in order: image files, or arrays, uint8 (H, W, 3), RGB."""
        ...

    def masks(self, name: str) -> Mapping[int, Masks] | Iterable[tuple[int, Masks]]:
        """Return the masks of a sequence by frame index, from 0 on; of a prompt, the first frame alone is enough.

        A mask is either labels, uint8 (H, W), or, where objects may overlap, bool (H, W) by object id.
        """
        ...


def is_read_by_class(split: Split) -> bool:
    """Whether a class reads the split."""
    return split.reader is not None or split.layout in READERS


def check_reader(name: str) -> None:
    """Check that there is a reader of this name, without running its code.

    Raises:
        DataError: Its file does not exist, or there is no entry point of this name.
    """
    if is_in_file(name):
        file_of(name, "reader", DataError)
    elif name not in (points := installed(GROUP)):
        hint = nearest(name, points) if points else "no installed package has one"
        raise DataError(f"reader {name!r}: no entry point of the group {GROUP}; {hint} (or give path/to/file.py:Class)")


def reader_state(split: Split, folder: Path | None) -> str:
    """Return text that changes when the code of a reader or the data that it reads changes.

    Of a user's folder, every entry is examined but JPEG files, which are frames: these are linked, not copied, and
    tracking reads them again.

    Args:
        split: A split that a class reads.
        folder: Folder of the dataset, None if it comes from archives.
    """
    name, seen = split.reader, []
    if name and is_in_file(name):
        check_reader(name)
        seen.append(file_sha256(Path(name.rpartition(":")[0])))
    elif name and (point := installed(GROUP).get(name)) and point.dist:
        seen.append(point.dist.version)
    for place, _, files in os.walk(folder) if folder else ():
        for path in (Path(place), *(Path(place, file) for file in sorted(files))):
            if path.suffix.lower() not in (".jpg", ".jpeg"):
                state = path.lstat()
                seen.append(f"{escape_unprintable(path)} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_size}")
    return f"read by {name or split.layout}, {sha256(json.dumps(sorted(seen)).encode()).hexdigest()[:16]}"


class CheckedReader:
    """A reader whose mistakes are errors that name it and the sequence.

    Args:
        split: A split that a class reads.
        roots: Folders of its extracted archives, or the user's folder.

    Raises:
        DataError: There is no such reader, or it cannot be built.
    """

    def __init__(self, split: Split, roots: Sequence[Path]) -> None:
        self.name = split.reader or split.layout
        if split.reader:
            cls = self._run("cannot be imported", lambda: _load(self.name))
            self._reader: Reader = self._run("cannot be built", lambda: cls(*roots))
        else:
            self._reader = self._run("cannot be built", lambda: READERS[split.layout](roots, split))

    def sequences(self) -> list[str]:
        """Return the names of the sequences."""
        names: list[str] = self._run("sequences()", lambda: list(self._reader.sequences()))
        for index, name in enumerate(names):
            if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
                raise self._error(f"sequences() gave {name!r}; a name is text without / that does not begin with a dot")
            if name in names[:index]:
                raise self._error(f"sequences() gave {name!r} twice; give each name once")
        if not names:
            raise self._error("sequences() gave none; look whether the folder is the right one")
        return names

    def attributes(self, name: str) -> list[str]:
        """Return the attributes of a sequence; none if the reader knows of none."""
        found: Any = getattr(self._reader, "attributes", None)
        return self._run(f"attributes({name!r})", lambda: [str(value) for value in found(name)]) if found else []

    def frames(self, name: str) -> list[Path | np.ndarray[Any, Any]]:
        """Return the frames of a sequence."""
        call = f"frames({name!r})"
        frames: list[Any] = self._run(call, lambda: list(self._reader.frames(name)))
        if not frames:
            raise self._error(f"{call} gave no frame; leave the sequence out")
        for index, frame in enumerate(frames):
            if isinstance(frame, np.ndarray):
                if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
                    raise self._error(
                        f"{call} gave {_described(frame)} for frame {index}; expected uint8 (height, width, 3)"
                    )
                continue
            if not isinstance(frame, str | os.PathLike):
                raise self._error(
                    f"{call} gave a {type(frame).__name__} for frame {index}; expected a path or an array"
                )
            path = frames[index] = Path(frame)
            if path.suffix.lower() not in FRAME_SUFFIXES:
                raise self._error(f"{call} gave {path}; frames are {', '.join(FRAME_SUFFIXES)} files, or arrays")
            if not path.is_file():
                raise DataError(f"{escape_unprintable(path)}: no such file; put the frame there")
        return frames

    def masks(self, name: str, count: int) -> Iterator[tuple[int, Masks]]:
        """Yield frame index and mask of a sequence with so many frames."""
        call = f"masks({name!r})"

        def begin() -> Iterator[Any]:
            found: Any = self._reader.masks(name)
            return iter(found.items() if isinstance(found, Mapping) else found)

        pairs = self._run(call, begin)
        seen: set[int] = set()
        while (pair := self._run(call, lambda: next(pairs, None))) is not None:
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise self._error(f"{call} gave a {type(pair).__name__}; expected pairs of frame index and mask")
            index, mask = pair
            index = int(index) if isinstance(index, np.integer) else index
            if not isinstance(index, int) or not 0 <= index < count:
                raise self._error(f"{call} gave a mask for frame {index!r}; expected an index from 0 to {count - 1}")
            if index in seen:
                raise self._error(f"{call} gave two masks for frame {index}; give one")
            seen.add(index)
            for part in mask.values() if isinstance(mask, Mapping) else (mask,):
                self._check_mask(part, (np.bool_, np.uint8) if isinstance(mask, Mapping) else (np.uint8,), index, call)
            yield index, mask

    def _check_mask(self, mask: Any, types: Sequence[type], index: int, call: str) -> None:
        if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype not in types:
            raise self._error(
                f"{call} gave {_described(mask)} for frame {index}; expected labels, uint8 (height, width), or a "
                "mapping of object id to bool (height, width)"
            )

    def _run(self, what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (VosarenaError, Stopped, KeyboardInterrupt):
            raise
        except BaseException as error:  # user code may do anything, such as call sys.exit
            raise self._error(f"{what}: {type(error).__name__}: {error}") from error

    def _error(self, words: str) -> DataError:
        return DataError(escape_unprintable(f"reader {self.name!r}: {words}"))


def _load(name: str) -> Any:
    check_reader(name)
    return load_from_file(name, "reader", DataError) if is_in_file(name) else installed(GROUP)[name].load()


def _described(thing: Any) -> str:
    return f"{thing.dtype} {thing.shape}" if isinstance(thing, np.ndarray) else f"a {type(thing).__name__}"


def write_sequence(
    reader: CheckedReader, name: str, images: Path, masks: Path, link: Callable[[Path, Path], None]
) -> None:
    """Write what a reader gives for one sequence.

    Frames keep the names of their files if these have the same order, and are numbered otherwise. Objects are labels
    of one mask per frame, or have a folder each if two of them overlap or an id is no label.

    Args:
        reader: The reader.
        name: Name of the sequence.
        images: Folder of the frames, which is made.
        masks: Folder of the masks, which is made if there are any.
        link: Makes a link, the first argument, to a frame's file.

    Raises:
        DataError: What the reader gives cannot be used.
    """
    frames = reader.frames(name)
    stems = _stems(frames)
    images.mkdir()
    for stem, frame in zip(stems, frames, strict=True):
        if isinstance(frame, Path):
            link(images / f"{stem}{frame.suffix}", frame)
        else:
            Image.fromarray(frame).save(images / f"{stem}.png", compress_level=1)
    first = frames[0]
    size = image_size(first) if isinstance(first, Path) else first.shape[:2]

    def given() -> Iterator[tuple[str, Masks]]:
        return ((stems[index], mask) for index, mask in reader.masks(name, len(frames)))

    if (numbers := _write_labels(given(), masks, size)) is not None:
        _write_objects(given(), masks, sorted(numbers), size)


def _stems(frames: Sequence[Path | np.ndarray[Any, Any]]) -> list[str]:
    """Return the name of each frame."""
    stems = [frame.stem if isinstance(frame, Path) else "" for frame in frames]
    try:
        kept = list(frame_order(stems)) == stems
    except DataError:
        kept = False
    return stems if kept and all(stems) else [f"{index:05d}" for index in range(len(frames))]


def _write_labels(given: Iterator[tuple[str, Masks]], folder: Path, size: tuple[int, int]) -> set[int] | None:
    """Write label maps. Return the ids of the objects if they cannot be labels of one map, else None."""
    numbers: set[int] = set()
    separate = False
    for stem, mask in given:
        folder.mkdir(exist_ok=True)
        if isinstance(mask, Mapping):
            numbers |= {int(number) for number in mask}
            separate = separate or not numbers <= set(range(1, _HIGHEST + 1)) or _overlap(mask)
            labels = np.zeros(next(iter(mask.values())).shape if mask else size, np.uint8)
            for number, part in mask.items():
                labels[part > 0] = 0 if separate else number
        else:
            labels = mask
        if not separate:
            write_mask(folder / f"{stem}{MASK_SUFFIX}", labels)
    return numbers if separate else None


def _overlap(masks: Mapping[int, BoolMask]) -> bool:
    parts = [mask > 0 for mask in masks.values()]
    if len({part.shape for part in parts}) > 1:
        return True  # a mask of the wrong size, which is found when the sequence is indexed
    return len(parts) > 1 and int(np.sum(parts, axis=0).max()) > 1


def _write_objects(
    given: Iterator[tuple[str, Masks]], folder: Path, numbers: Sequence[int], size: tuple[int, int]
) -> None:
    """Write one folder of masks per object, in place of the label maps."""
    for file in folder.iterdir():
        file.unlink()
    for number in numbers:
        (folder / f"{number:03d}").mkdir()
    for stem, mask in given:
        if not isinstance(mask, Mapping):
            raise DataError(f"frame {stem} has labels, but others have objects that overlap; give a mapping for each")
        for number in numbers:
            part = mask.get(number)
            labels = np.zeros(size, np.uint8) if part is None else (part > 0).astype(np.uint8)
            write_mask(folder / f"{number:03d}" / f"{stem}{MASK_SUFFIX}", labels)
