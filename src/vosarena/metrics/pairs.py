"""Which files are compared: ground truth and prediction of one sequence, frame by frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vosarena.base.errors import DataError
from vosarena.base.names import escape_unprintable
from vosarena.base.text import nearest
from vosarena.datasets.sequences import frame_files, mask_root, object_folders, subfolders


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
    """Files of one sequence. Keys of the files are frame stems, or `<object folder>/<stem>`.

    per_object: every object has its own folder of binary masks, objects may overlap (SA-V).
    merge_objects: only the prediction has folders of objects; they are merged to the label maps that are scored.
    objects: ids and ranges from a meta file; None: they come from the ground truth.
    unseen: whether the whole sequence belongs to the unseen part of a dataset; None: no such split.
    masks_digest: expected `data.masks.masks_digest` of all prediction files, checked while they are read.
    problem: set where the files cannot even be listed; the sequence then fails with this sentence.
    """

    name: str
    ground_truth: Mapping[str, Path] = field(default_factory=dict)
    prediction: Mapping[str, Path] = field(default_factory=dict)
    per_object: bool = False
    merge_objects: bool = False
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
        where = f"sequence {escape_unprintable(self.sequence)}"
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


def pair_sequence(name: str, ground_truth: Path, prediction: Path, *, masks_digest: str | None = None) -> SequencePair:
    """The files of one sequence, from its two folders; what is wrong with them becomes `problem`.

    Folders in the ground truth's folder are objects (SA-V: `<object>/<frame>.png`), then the prediction has the same
    form. Where the ground truth has label maps, the prediction may have either form.
    """

    def broken(reason: str, side: str) -> SequencePair:
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


def _masks(folder: Path) -> tuple[dict[str, Path], bool]:
    """Masks of a sequence by key, and whether its objects have folders. Raises DataError if there are none."""
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
    """All sequences of two folders of sequences, by name; those that only one of them has carry a `problem`.

    names: only these. Raises DataError if a folder is missing or holds no sequence, if the two have no sequence in
    common, or for a name in none of them.
    """
    ground_truth, prediction = mask_root(ground_truth), mask_root(prediction)
    known, predicted = subfolders(ground_truth), subfolders(prediction)
    if not set(known) & set(predicted):
        raise DataError(
            f"{ground_truth} and {prediction} have no sequence in common ({_some(known)}; {_some(predicted)}); give "
            "the two folders that hold one folder per sequence"
        )
    found = sorted({*known, *predicted})
    for name in names or ():
        if name not in found:
            raise DataError(f"no sequence {name!r} in {ground_truth}; {nearest(name, found)}")
    return [pair_sequence(name, ground_truth / name, prediction / name) for name in (names or found)]


def _some(names: list[str]) -> str:
    return ", ".join(map(escape_unprintable, names[:2])) + ", ..." * (len(names) > 2)
