"""Count one sequence: its masks, frame by frame, to counts per object and frame, or one clear failure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np

from vosarena.base.errors import DataError, MaskError
from vosarena.datasets.sequences import frame_number, frame_order
from vosarena.io.masks import (
    LEAST_GREY,
    LabelMap,
    MasksDigest,
    has_smooth_edges,
    read_runs,
    smooth_edges_message,
)
from vosarena.io.runs import Runs
from vosarena.metrics.counts import (
    Counts,
    FrameCounter,
    Integers,
    adaptive_tolerance,
    boundary_f,
    count_names,
    jaccard,
    tolerance,
    tolerance_cap,
)
from vosarena.metrics.hota import HotaCounter
from vosarena.metrics.matching import ObjectMatcher
from vosarena.metrics.pairs import Failure, SequencePair, Side
from vosarena.metrics.records import IGNORE, SequenceCounts, SequenceInfo

ExtraIds = Literal["error", "ignore"]
Resize = Literal["never", "nearest"]
_NOTHING = np.zeros(256, np.uint8)  # what each label becomes
_ANYTHING = np.minimum(np.arange(256), 1).astype(np.uint8)


@dataclass(frozen=True)
class CountOptions:
    """How to treat unusual predictions, and what to count.

    Attributes:
        extra_ids: Whether a predicted object that the ground truth does not have is an error.
        resize: Whether predictions of another size are resized to the ground truth's.
        adaptive: Whether to count matches with MOSEv2's tolerance as well.
        binary: Whether every nonzero pixel belongs to object 1.
        ends_optional: Whether the first and the last frame need no prediction. Without one they are counted as if
            nothing was predicted, so only protocols that skip them may score the counts.
        match: Whether predicted objects are matched to those of the ground truth: to those of its first frame, or to
            all of them. Predictions then do not count where the ground truth is 255.
        hota: Whether to count the overlaps of all objects as well, for HOTA.
    """

    extra_ids: ExtraIds = "error"
    resize: Resize = "never"
    adaptive: bool = False
    binary: bool = False
    ends_optional: bool = False
    match: Literal["none", "first", "all"] = "none"
    hota: bool = False


class SequenceFailed(Exception):
    """A sequence cannot be counted; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class _Frame(NamedTuple):
    """One ground-truth frame and the key of its prediction (or, where objects are merged, of any object's).

    The key is None for a first or last frame without a prediction, which is then counted as an empty one.
    """

    key: str
    stem: str
    number: int
    prediction: str | None
    object_id: int | None = None  # only if every object has its own folder


class SequenceCounter:
    """Counts the objects of one sequence. Memory grows with its objects and frames, not with its pixels.

    Args:
        pair: Files of the sequence.
        options: How to treat unusual predictions, and what to count.
        counter: Counter of frames, with the same `adaptive`.
        on_frame: Called after each frame.
    """

    def __init__(
        self, pair: SequencePair, options: CountOptions, counter: FrameCounter, on_frame: Callable[[], None]
    ) -> None:
        self.pair, self.options, self.counter, self.on_frame = pair, options, counter, on_frame
        self.n_columns = len(count_names(options.adaptive))
        self.found: list[tuple[Integers, Integers]] = []  # by frame: labels and table of counts
        self.sizes: list[tuple[int, int]] = []  # by frame: (height, width)
        self.resized: set[str] = set()  # keys of frames
        self.labels: LabelMap | None = None  # the object that each predicted label is, if objects are matched
        self.hota = HotaCounter() if options.hota else None
        self.unpredicted = 0  # first and last frames without a prediction
        self.overlaps = 0  # frames in which merged objects overlap
        self.no_labels: dict[str, str] = {}  # predicted objects whose id no label map can hold

    def count(self) -> SequenceCounts:
        """Count the whole sequence. Raises SequenceFailed for the first thing that is wrong."""
        frames = self._frames()
        if (self.hota or self.options.match != "none") and self.pair.per_object:
            self._fail("objects are matched in label maps only; it has folders of objects", None, "ground_truth")
        if self.options.match != "none":
            self._match(frames)
        predictions = self._merged(frames) if self.pair.merge_objects else self._label_maps(frames)
        for frame in frames:
            self._count_frame(frame, predictions)
            self.on_frame()
        next(predictions, None)  # reads the remaining files for the digest
        return self._per_object(frames) if self.pair.per_object else self._grid(frames)

    def _match(self, frames: list[_Frame]) -> None:
        """Find out which object each predicted label is."""
        if self.pair.merge_objects:
            self._fail("objects are matched in label maps only; it has folders of objects")
        matcher, in_gt = ObjectMatcher(self.counter, self.pair.objects), np.zeros(256, bool)
        predictions = self._label_maps(frames)
        for index, frame in enumerate(frames):
            gt, pred = self._frame_masks(frame, predictions)
            if gt.shape == pred.shape:  # else counting it fails and says so
                matcher.add(gt, self._visible(gt, pred), frame.number)
            if index == 0 or self.options.match == "all":
                in_gt |= np.bincount(gt.labels, minlength=256) > 0
        objects = set(np.flatnonzero(in_gt[1:255]) + 1) | set(self.pair.objects or ())
        self.labels = matcher.labels(sorted(int(number) for number in objects))

    def _fail(
        self, reason: str, frame: _Frame | None = None, side: Side = "prediction", object_id: int | None = None
    ) -> NoReturn:
        if frame is not None and object_id is None:
            object_id = frame.object_id
        raise SequenceFailed(Failure(self.pair.name, reason, side, frame.stem if frame else "", object_id))

    def _frames(self) -> list[_Frame]:
        """The frames of the ground truth in order, each with its prediction. A missing prediction is a failure."""
        groups = self._groups(self.pair.ground_truth, "ground_truth")
        predicted = self._groups(self.pair.prediction, "prediction")
        if self.pair.merge_objects:
            predicted = {"": {stem: number for stems in predicted.values() for stem, number in stems.items()}}
        frames = []
        for group, stems in groups.items():
            others = predicted.get(group, {})
            prefix = f"{group}/" if group else ""
            ends = _ends(list(stems)) if self.options.ends_optional and others else ()
            missing, unpredicted = [], self.unpredicted
            for stem, number in stems.items():
                other = _same_frame(stem, others)
                object_id = int(group) if group else None
                prediction = None if other is None else f"{prefix}{other}"
                frame = _Frame(prefix + stem, stem, number, prediction, object_id)
                frames.append(frame)
                if other is None and stem in ends:
                    self.unpredicted += 1
                elif other is None:
                    missing.append(frame)
            if missing:
                more = f" (and {len(missing) - 1} more of its frames)" if len(missing) > 1 else ""
                self._fail(f"no prediction for this frame{more}; every frame with ground truth needs one", missing[0])
            if self.unpredicted > unpredicted and len(others) == len(stems):  # as many masks, but other names
                self._fail(
                    f"its masks are {_span(others)}, but those of the ground truth {_span(stems)}; number them alike"
                )
        return frames

    def _groups(self, files: Iterable[str], side: Side) -> dict[str, dict[str, int]]:
        """{object folder or "": {stem: number}}, both in numeric order."""
        stems: dict[str, list[str]] = {}
        for key in files:
            group, _, stem = key.rpartition("/")
            stems.setdefault(group, []).append(stem)
        try:
            order = sorted(stems, key=lambda group: int(group or 0))
            return {group: frame_order(stems[group]) for group in order}
        except DataError as error:
            raise SequenceFailed(Failure(self.pair.name, str(error), side)) from None

    def _label_maps(self, frames: list[_Frame]) -> Iterator[Runs]:
        """The predictions of the frames. If a digest is expected, all masks are read once, in order."""
        if self.pair.masks_digest is None:
            for frame in frames:
                if frame.prediction is not None:
                    yield self._mask(self.pair.prediction[frame.prediction], frame, "prediction")
            return
        digest, needed = MasksDigest(), {frame.prediction for frame in frames}
        try:
            for group, stems in self._groups(self.pair.prediction, "prediction").items():
                for key in (f"{group}/{stem}" if group else stem for stem in stems):
                    runs = read_runs(self.pair.prediction[key])
                    digest.update(key, runs)
                    if key in needed:
                        yield runs
        except MaskError as error:
            self._fail(f"{error}; or track it again")
        if digest.hexdigest() != self.pair.masks_digest:
            self._fail("the predicted masks are not those that were written (changed, lost or added); track it again")

    def _merged(self, frames: list[_Frame]) -> Iterator[Runs]:
        """Label maps from one folder of masks per object. Where objects overlap the lowest id wins, as in sam2's files.

        An object may begin late, but needs a mask for every frame from then on.
        """
        folders = self._groups(self.pair.prediction, "prediction")
        for folder in [folder for folder in folders if not 0 < int(folder) < 256]:
            if self.options.extra_ids == "error":
                self._fail(f"object folder {folder} is predicted, but objects of label maps are 1 to 255; rename it")
            self.no_labels[folder] = ""
            del folders[folder]
        highest_first = sorted(folders, key=int, reverse=True)
        begun: set[str] = set()
        for frame in frames:
            if frame.prediction is None:
                continue
            merged: LabelMap | None = None
            overlap = False
            for folder in highest_first:
                stem = _same_frame(frame.stem, folders[folder])
                if stem is None:
                    if folder in begun:
                        self._fail("no prediction for this frame, but for earlier ones", frame, object_id=int(folder))
                    continue
                begun.add(folder)
                mask = self._object_mask(self.pair.prediction[f"{folder}/{stem}"], frame)
                merged = np.zeros(mask.shape, np.uint8) if merged is None else merged
                if merged.shape != mask.shape:
                    path = self.pair.prediction[f"{folder}/{stem}"]
                    self._fail(f"{path} has another size than the masks of other objects", frame)
                overlap |= bool((merged[mask] > 0).any())
                merged[mask] = int(folder)
            if merged is None:
                self._fail("no prediction for this frame; every frame with ground truth needs one", frame)
            self.overlaps += overlap
            yield Runs.of_rows(merged)

    def _object_mask(self, path: str | Path, frame: _Frame) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """The predicted mask of one object, bool (H, 1 + W); the first column is False."""
        runs = self._mask(path, frame, "prediction")
        return self._one_object(runs, path, frame, "prediction").rows() > 0

    def _mask(self, path: str | Path, frame: _Frame, side: Side) -> Runs:
        try:
            return read_runs(path)
        except MaskError as error:
            self._fail(str(error), frame, side)

    def _frame_masks(self, frame: _Frame, predictions: Iterator[Runs]) -> tuple[Runs, Runs]:
        """Ground truth and prediction of a frame."""
        gt_path = self.pair.ground_truth[frame.key]
        gt = self._mask(gt_path, frame, "ground_truth")
        pred = gt.map(_NOTHING) if frame.prediction is None else next(predictions)
        if pred.shape != gt.shape and self.options.resize == "nearest":
            pred = Runs.of_rows(_resize(pred.rows(), gt.shape))
            self.resized.add(frame.key)
        return gt, pred

    def _visible(self, gt: Runs, pred: Runs) -> Runs:
        """What counts of a prediction if objects are matched: nothing where the ground truth is 255."""
        if pred.shape != gt.shape or IGNORE not in gt.labels:
            return pred
        return Runs.of_rows(np.where(gt.rows() == IGNORE, 0, pred.rows()))

    def _count_frame(self, frame: _Frame, predictions: Iterator[Runs]) -> None:
        gt, pred = self._frame_masks(frame, predictions)
        if self.hota is not None and pred.shape == gt.shape:
            self.hota.add(gt, pred)
        if self.labels is not None:
            pred = self._visible(gt, pred).map(self.labels)
        if self.options.binary:
            gt, pred = gt.map(_ANYTHING), pred.map(_ANYTHING)
        elif frame.object_id is not None:
            gt = self._one_object(gt, self.pair.ground_truth[frame.key], frame, "ground_truth")
            pred = self._one_object(pred, self._path(frame), frame, "prediction")
        try:
            labels, table = self.counter.count(gt, pred)
        except MaskError as error:
            self._fail(str(error), frame)
        if len(labels) > 5 and labels[-1] >= LEAST_GREY:
            if has_smooth_edges(gt.rows()[:, 1:]):
                self._fail(smooth_edges_message(self.pair.ground_truth[frame.key]), frame, "ground_truth")
            if has_smooth_edges(pred.rows()[:, 1:]):
                self._fail(smooth_edges_message(self._path(frame)), frame)
        self.found.append((labels, table))
        self.sizes.append(gt.shape)

    def _path(self, frame: _Frame) -> str | Path:
        """The file of the prediction."""
        return self.pair.prediction.get(frame.prediction or "", frame.prediction or "")

    def _one_object(self, runs: Runs, path: str | Path, frame: _Frame, side: Side) -> Runs:
        """The mask from an object's folder as labels 0 and 1, whatever value the file uses for the object."""
        if not self.options.binary and len(set(runs.labels[runs.labels != 0].tolist())) > 1:
            self._fail(f"{path} holds more than one object; a mask in an object's folder holds that one", frame, side)
        return runs.map(_ANYTHING)

    def _grid(self, frames: list[_Frame]) -> SequenceCounts:
        """All objects of the sequence on all its frames, with zero pixels where an object is absent."""
        indices = np.repeat(np.arange(len(self.found)), [len(labels) for labels, _ in self.found])
        labels = np.concatenate([labels for labels, _ in self.found])
        table = np.concatenate([table for _, table in self.found])
        counts = Counts.from_table(table)
        in_gt = {int(label) for label in labels[counts.gt_pixels > 0]}
        known = in_gt | set(self.pair.objects or ())
        predicted = {int(label) for label in labels[counts.pred_pixels > 0]}
        extra = dict(self.no_labels)
        for label in sorted(predicted - known):
            frame = frames[int(indices[labels == label][0])]
            extra[str(label)] = frame.stem
            if self.options.extra_ids == "error":
                self._fail(_extra_reason(predicted, known), frame, object_id=label)
        objects = np.array(sorted(known | predicted), np.int64)
        grid = np.zeros((len(objects), len(frames), self.n_columns), np.int64)
        grid[np.searchsorted(objects, labels), indices] = table
        return self._counted(
            np.repeat(objects, len(frames)),
            frames * len(objects),
            Counts.from_table(grid.reshape(-1, self.n_columns)),
            self._info(len(frames), in_gt, extra),
        )

    def _per_object(self, frames: list[_Frame]) -> SequenceCounts:
        """Each object on the frames of its own folder."""
        table = np.zeros((len(frames), self.n_columns), np.int64)
        for index, (labels, counts) in enumerate(self.found):
            if len(labels):
                table[index] = counts[0]
        folders = {int(key.split("/")[0]) for key in self.pair.ground_truth}
        predicted = {key.split("/")[0] for key in self.pair.prediction}
        extra = sorted(item for item in predicted if frame_number(item) not in folders)
        if extra and self.options.extra_ids == "error":
            reason = f"object folder {extra[0]} is predicted, but not in the ground truth"
            self._fail(f"{reason}; remove it, or give `vosarena evaluate` --extra-ids ignore")
        return self._counted(
            np.array([frame.object_id for frame in frames]),
            frames,
            Counts.from_table(table),
            self._info(len({frame.number for frame in frames}), folders, dict.fromkeys(extra, "")),
        )

    def _counted(
        self, object_ids: Integers, frames: list[_Frame], counts: Counts, info: SequenceInfo
    ) -> SequenceCounts:
        """The record of rows with these objects, frames and counts. `frames` repeats those of the sequence."""
        repeats = len(frames) // len(self.sizes) if self.sizes else 0
        tolerances = np.tile(np.array([tolerance(*size) for size in self.sizes], np.float64), repeats)
        caps = np.tile(np.array([tolerance_cap(*size) for size in self.sizes], np.float64), repeats)
        return SequenceCounts(
            self.pair.name,
            object_ids,
            [frame.stem for frame in frames],
            _frame_indices(frames),
            counts,
            jaccard(counts),
            boundary_f(counts),
            tolerances,
            adaptive_tolerance(counts.gt_pixels, caps) if self.options.adaptive else None,
            info,
            self.hota.score() if self.hota else None,
        )

    def _info(self, n_frames: int, objects: Iterable[int], extra: Mapping[str, str]) -> SequenceInfo:
        listed = self.pair.objects
        return SequenceInfo(
            n_frames=n_frames,
            height=self.sizes[0][0],
            width=self.sizes[0][1],
            per_object=self.pair.per_object,
            objects=tuple(sorted(objects)),
            ranges=None if listed is None else {i: (listed[i].start, listed[i].end) for i in sorted(listed)},
            range_frames={i: info.n_frames for i, info in (listed or {}).items() if info.n_frames is not None},
            unseen=self.pair.unseen,
            unseen_objects=None if listed is None else {i: listed[i].unseen for i in sorted(listed)},
            extra_ids=extra,
            resized_frames=len(self.resized),
            overlapping_frames=self.overlaps if self.pair.merge_objects else None,
            unpredicted_ends=self.unpredicted,
        )


def _span(stems: Iterable[str]) -> str:
    names = list(stems)
    return f"{names[0]} to {names[-1]}"


def _ends(stems: list[str]) -> tuple[str, ...]:
    """The first and the last frame, if these are the same by number and by name: some evaluators sort names."""
    ends = stems[0], stems[-1]
    return ends if ends == (min(stems), max(stems)) else ()


def _frame_indices(frames: list[_Frame]) -> Integers:
    """Frame numbers that fit into 32 bits; of larger ones, such as times in milliseconds, their ranks."""
    numbers = np.array([frame.number for frame in frames])
    if numbers.max(initial=0) > np.iinfo(np.int32).max:
        numbers = np.unique(numbers, return_inverse=True)[1]
    return numbers.astype(np.int64)


def _same_frame(stem: str, others: Mapping[str, int]) -> str | None:
    """The stem of the same frame among others, which may be padded differently."""
    if stem in others or (number := frame_number(stem)) is None:
        return stem if stem in others else None
    same = (other for other, index in others.items() if index == number and frame_number(other) is not None)
    return next(same, None)


def _extra_reason(predicted: set[int], known: set[int]) -> str:
    """Why predicted objects that the ground truth does not have are an error, and what to do."""
    reason = "predicted, but the ground truth has no such object in any frame"
    if predicted & known:
        return f"{reason}; remove it, or give `vosarena evaluate` --extra-ids ignore"
    ids = ", ".join(map(str, sorted(known - {255})[:5])) or "none"
    binary = ", or give `vosarena evaluate` --binary, which counts every nonzero pixel as object 1"
    hint = binary if len(predicted) == 1 and len(known) <= 1 else ""
    return f"{reason}, and no other predicted object either; write the ids of the ground truth ({ids}){hint}"


def _resize(rows: LabelMap, shape: tuple[int, int]) -> LabelMap:
    """Resize labels, uint8 (H, 1 + W), by nearest neighbour between pixel centres; the first column is ignored."""
    height, width = rows.shape[0], rows.shape[1] - 1
    new_height, new_width = shape
    y = (2 * np.arange(new_height) + 1) * height // (2 * new_height)
    x = (2 * np.arange(new_width) + 1) * width // (2 * new_width)
    resized: LabelMap = np.pad(rows[y][:, 1 + x], ((0, 0), (1, 0)))
    return resized
