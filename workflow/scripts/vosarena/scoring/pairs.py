"""Which files are compared: ground truth and prediction of one sequence, frame by frame."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vosarena.data.schema import nearest
from vosarena.errors import DataError


@dataclass(frozen=True)
class ObjectInfo:
    """What a dataset's meta file says of one object: inclusive range of frame numbers, and its category.

    unseen: whether it belongs to the unseen part of the dataset; None: not known.
    """

    start: int
    end: int
    category: str = ""
    unseen: bool | None = None


@dataclass(frozen=True)
class SequencePair:
    """Files of one sequence. Keys of the files are frame stems, or `<object folder>/<stem>` if `per_object`.

    per_object: every object has its own folder of binary masks, objects may overlap (SA-V).
    objects: ids and ranges from a meta file; None: they come from the ground truth.
    unseen: whether the whole sequence belongs to the unseen part of a dataset; None: no such split.
    masks_digest: expected `data.masks.masks_digest` of all prediction files, checked while they are read.
    problem: set where the files cannot even be listed; the sequence then fails with this sentence.
    """

    name: str
    ground_truth: Mapping[str, Path] = field(default_factory=dict)
    prediction: Mapping[str, Path] = field(default_factory=dict)
    per_object: bool = False
    objects: Mapping[int, ObjectInfo] | None = None
    unseen: bool | None = None
    masks_digest: str | None = None
    problem: Failure | None = None


@dataclass(frozen=True)
class Failure:
    """One thing that is wrong with one sequence. side: `prediction` or `ground_truth`, whose files are at fault."""

    sequence: str
    reason: str
    side: str = "prediction"
    frame: str = ""
    object_id: int | None = None

    def __str__(self) -> str:
        where = f"sequence {self.sequence}"
        if self.frame:
            where += f", frame {self.frame}"
        if self.object_id is not None:
            where += f", object {self.object_id}"
        return f"{where}: {self.reason}"


class MeasureError(DataError):
    """Some sequences could not be measured; all others were.

    failures: what is wrong with which sequence. stale: sequences whose prediction is at fault, to be computed again.
    """

    def __init__(self, failures: Iterable[Failure], measured: int) -> None:
        self.failures = sorted(failures, key=lambda item: (item.sequence, item.frame, item.reason))
        self.measured = measured
        n = len(self.sequences)
        lines = "\n".join(f"  {failure}" for failure in self.failures)
        super().__init__(f"{n} of {n + measured} sequences could not be measured:\n{lines}")

    @property
    def sequences(self) -> list[str]:
        """Names of the failed sequences."""
        return sorted({failure.sequence for failure in self.failures})

    @property
    def stale(self) -> list[str]:
        """Failed sequences whose prediction is at fault."""
        return sorted({failure.sequence for failure in self.failures if failure.side == "prediction"})


def frame_order(stems: Iterable[str]) -> dict[str, int]:
    """Frame stems in numeric order, with their numbers: {"2": 2, "10": 10}.

    If no stem is a number, all are taken in alphabetical order and numbered from 0; if some are, the others are stray
    files and left out. Raises DataError if two stems are the same number.
    """
    names = list(stems)
    numbers = {stem: int(stem) for stem in names if re.fullmatch(r"[0-9]+", stem)}
    if not numbers:
        return {stem: index for index, stem in enumerate(sorted(names))}
    ordered = dict(sorted(numbers.items(), key=lambda item: item[1]))
    previous = None
    for stem, number in ordered.items():
        if previous is not None and ordered[previous] == number:
            raise DataError(f"{previous}.png and {stem}.png are the same frame; keep one of them")
        previous = stem
    return ordered


def png_files(folder: Path) -> dict[str, Path]:
    """{stem: path} of the PNGs of a folder; hidden files, folders and everything that is not a PNG are ignored."""
    return {
        path.stem: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() == ".png" and not path.name.startswith(".") and path.is_file()
    }


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def mask_root(folder: Path) -> Path:
    """The folder that holds the sequences: `folder`, or its `Annotations` or `Annotations/480p`, as datasets have it.

    Raises DataError if there is no such folder or no sequence in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one folder of PNG masks per sequence in it")
    for name in ("Annotations", "480p"):
        if (folder / name).is_dir():
            folder = folder / name
    if not _folders(folder):
        raise DataError(f"{folder}: no sequence folders; expected one folder of PNG masks per sequence in it")
    return folder


def pair_sequence(name: str, ground_truth: Path, prediction: Path, *, masks_digest: str | None = None) -> SequencePair:
    """The files of one sequence, from its two folders; what is wrong with them becomes `problem`.

    Folders in the ground truth's folder are objects (SA-V: `<object>/<frame>.png`), the prediction has the same form.
    """

    def broken(reason: str, side: str) -> SequencePair:
        return SequencePair(name, problem=Failure(name, reason, side))

    if not ground_truth.is_dir():
        return broken(f"predicted in {prediction}, but there is no ground truth {ground_truth}", "ground_truth")
    files, ids = png_files(ground_truth), _folders(ground_truth)
    per_object = not files and bool(ids)
    if per_object:
        if bad := [item for item in ids if not re.fullmatch(r"[0-9]+", item)]:
            return broken(f"{ground_truth / bad[0]}: folders of objects must be numbers", "ground_truth")
        files = {f"{item}/{stem}": path for item in ids for stem, path in png_files(ground_truth / item).items()}
    if not files:
        return broken(f"{ground_truth} holds no PNG masks", "ground_truth")
    if not prediction.is_dir():
        return broken(f"not predicted, there is no folder {prediction}", "prediction")
    predicted = png_files(prediction)
    if per_object:
        folders = _folders(prediction)
        if predicted and not folders:
            reason = f"{prediction} holds label maps, but the ground truth has a folder of binary masks per object"
            return broken(reason, "prediction")
        predicted = {f"{item}/{stem}": path for item in folders for stem, path in png_files(prediction / item).items()}
    if not predicted:
        return broken(f"{prediction} holds no PNG masks", "prediction")
    return SequencePair(name, files, predicted, per_object, masks_digest=masks_digest)


def pair_folders(ground_truth: Path, prediction: Path, names: Iterable[str] | None = None) -> list[SequencePair]:
    """All sequences of two folders of sequences, by name; those that only one of them has carry a `problem`.

    names: only these. Raises DataError if a folder is missing or holds no sequence, or for a name in none of them.
    """
    ground_truth, prediction = mask_root(ground_truth), mask_root(prediction)
    found = sorted({*_folders(ground_truth), *_folders(prediction)})
    for name in names or ():
        if name not in found:
            raise DataError(f"no sequence {name!r} in {ground_truth}; {nearest(name, found)}")
    return [pair_sequence(name, ground_truth / name, prediction / name) for name in (names or found)]
