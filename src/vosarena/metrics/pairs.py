"""Which files are compared: ground truth and prediction of one sequence, frame by frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vosarena.base.errors import DataError
from vosarena.base.names import escape_unprintable
from vosarena.base.text import nearest
from vosarena.datasets.sequences import frame_files, mask_root, object_folders, subfolders

Side = Literal["prediction", "ground_truth"]


@dataclass(frozen=True)
class ObjectInfo:
    """What a meta file says about one object.

    Attributes:
        start: First frame number, inclusive.
        end: Last frame number, inclusive.
        category: Category, or "".
        unseen: Whether the object is in the unseen part of its dataset; None if that is not known.
        n_frames: Number of frames in the range (LVOS); None if the file does not say.
    """

    start: int
    end: int
    category: str = ""
    unseen: bool | None = None
    n_frames: int | None = None


@dataclass(frozen=True)
class SequencePair:
    """Files of one sequence. Files have frame stems as keys, or `<object folder>/<stem>`.

    Attributes:
        name: Name of the sequence.
        ground_truth: Masks of the ground truth.
        prediction: Predicted masks.
        per_object: Whether every object has its own folder of binary masks, so that objects may overlap (SA-V).
        merge_objects: Whether only the prediction has folders of objects, which are merged to label maps.
        objects: Ids and ranges from a meta file; None if they come from the ground truth.
        unseen: Whether the whole sequence is in the unseen part of a dataset; None if that is not known.
        masks_digest: Expected `vosarena.io.masks.masks_digest` of all predicted masks, checked while they are read.
        problem: Why the files cannot even be listed; the sequence then fails with this reason.
    """

    name: str
    ground_truth: Mapping[str, str | Path] = field(default_factory=dict)
    prediction: Mapping[str, str | Path] = field(default_factory=dict)
    per_object: bool = False
    merge_objects: bool = False
    objects: Mapping[int, ObjectInfo] | None = None
    unseen: bool | None = None
    masks_digest: str | None = None
    problem: Failure | None = None


@dataclass(frozen=True)
class Failure:
    """One thing that is wrong with one sequence; `side` says whose files are at fault."""

    sequence: str
    reason: str
    side: Side = "prediction"
    frame: str = ""
    object_id: int | None = None

    def __str__(self) -> str:
        where = f"sequence {escape_unprintable(self.sequence)}"
        if self.frame:
            where += f", frame {self.frame}"
        if self.object_id is not None:
            where += f", object {self.object_id}"
        return f"{where}: {self.reason}"


class MeasureError(DataError):
    """Some sequences could not be measured; all others were.

    Attributes:
        failures: What is wrong, by sequence.
        measured: Number of sequences that were measured.
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
        """Failed sequences whose prediction is at fault, and has to be computed again."""
        return sorted({failure.sequence for failure in self.failures if failure.side == "prediction"})


def pair_sequence(name: str, ground_truth: Path, prediction: Path, *, masks_digest: str | None = None) -> SequencePair:
    """List the files of one sequence. What is wrong with them becomes its `problem`.

    If the ground truth has one folder per object (SA-V: `<object>/<frame>.png`), the prediction must have the same
    form. If it has label maps, the prediction may have either form.

    Args:
        name: Name of the sequence.
        ground_truth: Folder of the ground truth of this sequence.
        prediction: Folder of the prediction of this sequence.
        masks_digest: Expected `vosarena.io.masks.masks_digest` of all predicted masks.
    """

    def broken(reason: str, side: Side) -> SequencePair:
        return SequencePair(name, problem=Failure(name, reason, side))

    if escape_unprintable(name) != name:
        return broken("its name is not UTF-8; rename the folder", "ground_truth")
    if not ground_truth.is_dir():
        return broken(f"predicted in {prediction}, but there is no ground truth {ground_truth}", "ground_truth")
    try:
        files, per_object = _masks(ground_truth)
    except DataError as error:
        return broken(str(error), "ground_truth")
    if not prediction.is_dir():
        return broken(f"not predicted, there is no folder {prediction}", "prediction")
    try:
        predicted, objects_predicted = _masks(prediction)
    except DataError as error:
        return broken(str(error), "prediction")
    if per_object and not objects_predicted:
        reason = f"{prediction} holds label maps, but the ground truth has a folder of binary masks per object"
        return broken(reason, "prediction")
    merge = objects_predicted and not per_object
    return SequencePair(name, files, predicted, per_object, merge, masks_digest=masks_digest)


def _masks(folder: Path) -> tuple[dict[str, str], bool]:
    """Masks of a sequence by key, and whether each object has a folder. Raises DataError if there are no masks."""
    if files := frame_files(folder):
        return files, False
    objects = object_folders(folder)
    files = {f"{path.name}/{stem}": mask for path in objects.values() for stem, mask in frame_files(path).items()}
    if not files:
        others = Counter(path.suffix for path in folder.iterdir() if path.is_file() and path.suffix)
        found = ", ".join(f"{number} {suffix}" for suffix, number in others.most_common(2))
        raise DataError(f"{folder} holds no PNG masks{found and f', but {found}'}")
    return files, True


def pair_folders(ground_truth: Path, prediction: Path, names: Iterable[str] | None = None) -> list[SequencePair]:
    """List the sequences of two folders, sorted by name; a sequence that only one of them has gets a `problem`.

    Args:
        ground_truth: Folder of ground truth with one folder per sequence, or a dataset's folder above it.
        prediction: The same for the prediction.
        names: List only these sequences.

    Raises:
        DataError: A folder is missing or has no sequence, they have no sequence in common, or a name is unknown.
    """
    ground_truth, prediction = mask_root(ground_truth), mask_root(prediction)
    known, predicted = subfolders(ground_truth), subfolders(prediction)
    if not set(known) & set(predicted):
        names_found = f"{_first_names(known)}; {_first_names(predicted)}"
        raise DataError(
            f"{ground_truth} and {prediction} have no sequence in common ({names_found}); give the two folders that "
            "hold one folder per sequence"
        )
    found = sorted({*known, *predicted})
    chosen = found if names is None else list(dict.fromkeys(names))
    for name in chosen:
        if name not in found:
            raise DataError(f"no sequence {name!r} in {ground_truth}; {nearest(name, found)}")
    return [pair_sequence(name, ground_truth / name, prediction / name) for name in chosen]


def _first_names(names: list[str]) -> str:
    return ", ".join(map(escape_unprintable, names[:2])) + ", ..." * (len(names) > 2)
