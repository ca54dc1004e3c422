"""The measurement of one sequence: its masks frame by frame to counts per object and frame, or one clear failure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from vosarena.base.errors import DataError, MaskError
from vosarena.datasets.sequences import frame_number, frame_order
from vosarena.io.masks import LabelMap, MasksDigest, decode_rows, has_smooth_edges, smooth_edges_message
from vosarena.metrics import counts as c
from vosarena.metrics.pairs import Failure, SequencePair

ExtraIds = Literal["error", "ignore"]
Resize = Literal["never", "nearest"]


@dataclass(frozen=True)
class Policies:
    """What `measure` was asked to do with odd predictions, and whether to count MOSEv2's matches too.

    binary: every pixel that is not zero belongs to object 1.
    """

    extra_ids: ExtraIds = "error"
    resize: Resize = "never"
    adaptive: bool = False
    binary: bool = False


@dataclass
class Measured:
    """Counts of one sequence: one row per object and frame, in that order."""

    name: str
    object_ids: np.ndarray[Any, Any]
    frames: list[str]
    frame_indices: np.ndarray[Any, Any]
    counts: np.ndarray[Any, np.dtype[np.int64]]
    tolerance: np.ndarray[Any, Any]
    cap: np.ndarray[Any, Any]
    info: dict[str, Any]


class SequenceFailed(Exception):
    """A sequence cannot be measured."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


@dataclass(frozen=True)
class _Frame:
    """One ground-truth frame, and the key of its prediction; to be merged: of any of its objects."""

    key: str
    stem: str
    number: int
    prediction: str
    object_id: int | None = None  # per-object folders only


class SequenceMeasurement:
    """The measurement of one sequence; memory grows with its objects and frames, never with its pixels."""

    def __init__(
        self, pair: SequencePair, policies: Policies, counter: c.FrameCounter, tick: Callable[[], None]
    ) -> None:
        self.pair, self.policies, self.counter, self.tick = pair, policies, counter, tick
        self.columns = len(c.count_names(policies.adaptive))
        self.found: list[tuple[int, np.ndarray[Any, Any]]] = []  # (index of the frame, label and counts)
        self.sizes: list[tuple[int, int]] = []
        self.resized = 0
        self.overlaps = 0  # frames in which predicted objects that are merged overlap
        self.no_labels: dict[str, str] = {}  # predicted objects that no label map can hold

    def fail(
        self, reason: str, frame: _Frame | None = None, side: str = "prediction", object_id: int | None = None
    ) -> NoReturn:
        """Raises SequenceFailed."""
        if frame is not None and object_id is None:
            object_id = frame.object_id
        raise SequenceFailed(Failure(self.pair.name, reason, side, frame.stem if frame else "", object_id))

    def measured(self) -> Measured:
        """The counts of the sequence. Raises SequenceFailed for the first thing that is wrong."""
        frames = self._frames()
        maps = self._merged(frames) if self.pair.merge_objects else self._label_maps(frames)
        for index, frame in enumerate(frames):
            self._count(index, frame, maps)
            self.tick()
        next(maps, None)  # the rest of the digest
        return self._per_object(frames) if self.pair.per_object else self._grid(frames)

    def _frames(self) -> list[_Frame]:
        """The ground truth's frames in order, each with its prediction. Missing predictions are failures."""
        groups = self._groups(self.pair.ground_truth, "ground_truth")
        predicted = self._groups(self.pair.prediction, "prediction")
        if self.pair.merge_objects:
            predicted = {"": {stem: number for stems in predicted.values() for stem, number in stems.items()}}
        frames = []
        for group, stems in groups.items():
            others = predicted.get(group, {})
            prefix = f"{group}/" if group else ""
            missing = []
            for stem, number in stems.items():
                other = _same_frame(stem, others)
                object_id = int(group) if group else None
                frame = _Frame(prefix + stem, stem, number, f"{prefix}{other}", object_id)
                frames.append(frame)
                if other is None:
                    missing.append(frame)
            if missing:
                more = f" (and {len(missing) - 1} more of its frames)" if len(missing) > 1 else ""
                self.fail(f"no prediction for this frame{more}; every frame with ground truth needs one", missing[0])
        return frames

    def _groups(self, files: Iterable[str], side: str) -> dict[str, dict[str, int]]:
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

    def _label_maps(self, frames: list[_Frame]) -> Iterator[LabelMap]:
        """The predictions of the frames."""
        data = self._predictions(frames)
        for frame in frames:
            yield self._decode(next(data), self.pair.prediction[frame.prediction], frame, "prediction")
        next(data, None)

    def _merged(self, frames: list[_Frame]) -> Iterator[LabelMap]:
        """Label maps of the masks in folders of objects. Where objects overlap the lowest id wins, as in sam2's files.

        An object may begin late, but has a mask of every frame from then on.
        """
        folders = self._groups(self.pair.prediction, "prediction")
        for folder in [folder for folder in folders if not 0 < int(folder) < 256]:
            if self.policies.extra_ids == "error":
                self.fail(f"object folder {folder} is predicted, but objects of label maps are 1 to 255; rename it")
            self.no_labels[folder] = ""
            del folders[folder]
        begun: set[str] = set()
        for frame in frames:
            merged: LabelMap | None = None
            overlap = False
            for folder, stems in sorted(folders.items(), key=lambda item: int(item[0]), reverse=True):
                stem = _same_frame(frame.stem, stems)
                if stem is None:
                    if folder in begun:
                        self.fail("no prediction for this frame, but for earlier ones", frame, object_id=int(folder))
                    continue
                begun.add(folder)
                path = self.pair.prediction[f"{folder}/{stem}"]
                rows = self._decode(self._read(path, frame, "prediction"), path, frame, "prediction")
                inside = self._one_object(rows, path, frame, "prediction") > 0
                merged = np.zeros(rows.shape, np.uint8) if merged is None else merged
                if merged.shape != rows.shape:
                    self.fail(f"{path} has another size than the masks of other objects", frame)
                overlap |= bool((merged[:, 1:][inside[:, 1:]] > 0).any())
                merged[inside] = int(folder)
            if merged is None:
                self.fail("no prediction for this frame; every frame with ground truth needs one", frame)
            self.overlaps += overlap
            yield merged

    def _predictions(self, frames: list[_Frame]) -> Iterator[bytes]:
        """Bytes of the predictions of the frames. With an expected digest all files are read, in order, once."""
        if self.pair.masks_digest is None:
            for frame in frames:
                yield self._read(self.pair.prediction[frame.prediction], frame, "prediction")
            return
        digest = MasksDigest()
        wanted = {frame.prediction: frame for frame in frames}
        for group, stems in self._groups(self.pair.prediction, "prediction").items():
            for stem in stems:
                key = f"{group}/{stem}" if group else stem
                data = self._read(self.pair.prediction[key], wanted.get(key), "prediction")
                digest.update(key, data)
                if key in wanted:
                    yield data
        if digest.hexdigest() != self.pair.masks_digest:
            self.fail("the predicted masks are not those that were written (changed, lost or added); track it again")

    def _read(self, path: Path, frame: _Frame | None, side: str) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            self.fail(f"{path} cannot be read ({error.strerror}); provide this PNG", frame, side)

    def _decode(self, data: bytes, path: Path, frame: _Frame, side: str) -> LabelMap:
        try:
            return decode_rows(data, str(path))
        except MaskError as error:
            self.fail(str(error), frame, side)

    def _count(self, index: int, frame: _Frame, maps: Iterator[LabelMap]) -> None:
        gt_path = self.pair.ground_truth[frame.key]
        gt = self._decode(self._read(gt_path, frame, "ground_truth"), gt_path, frame, "ground_truth")
        pred = next(maps)
        path = self.pair.prediction.get(frame.prediction, Path(frame.prediction))
        if pred.shape != gt.shape and self.policies.resize == "nearest":
            pred, self.resized = _resize(pred, gt.shape), self.resized + 1
        if self.policies.binary:
            gt, pred = (gt != 0).astype(np.uint8), (pred != 0).astype(np.uint8)
        elif frame.object_id is not None:
            gt = self._one_object(gt, gt_path, frame, "ground_truth")
            pred = self._one_object(pred, path, frame, "prediction")
        try:
            rows = self.counter.count(gt, pred)
        except MaskError as error:
            self.fail(str(error), frame)
        if len(rows) > 5:
            for labels, file, side in ((gt, gt_path, "ground_truth"), (pred, path, "prediction")):
                if has_smooth_edges(labels[:, 1:]):
                    self.fail(smooth_edges_message(file), frame, side)
        self.found.append((index, rows))
        self.sizes.append((gt.shape[0], gt.shape[1] - 1))

    def _one_object(self, rows: LabelMap, path: Path, frame: _Frame, side: str) -> LabelMap:
        """A mask of an object's folder as labels 0 and 1, whatever value the file has for the object."""
        pixels = rows[:, 1:]
        if not self.policies.binary and (pixels[pixels != 0] != pixels.max(initial=0)).any():
            self.fail(f"{path} holds more than one object; a mask in an object's folder holds that one", frame, side)
        return (rows != 0).astype(np.uint8)

    def _grid(self, frames: list[_Frame]) -> Measured:
        """All objects of the sequence on all its frames; what is not there counts zero pixels."""
        indices = np.repeat([index for index, _ in self.found], [len(rows) for _, rows in self.found])
        rows = np.concatenate([rows for _, rows in self.found])
        in_gt = {int(label) for label in rows[rows[:, 2] > 0, 0]}
        known = in_gt | set(self.pair.objects or ())
        extra: dict[Any, str] = dict(self.no_labels)
        predicted = {int(label) for label in rows[rows[:, 3] > 0, 0]}
        for label in sorted(predicted - known):
            frame = frames[int(indices[rows[:, 0] == label][0])]
            extra[label] = frame.stem
            if self.policies.extra_ids == "error":
                self.fail(_extra_reason(predicted, known), frame, object_id=label)
        objects = np.array(sorted(known | predicted), np.int64)
        grid = np.zeros((len(objects), len(frames), self.columns), np.int64)
        grid[np.searchsorted(objects, rows[:, 0]), indices] = rows[:, 1:]
        tolerances, caps = self._tolerances()
        return Measured(
            self.pair.name,
            np.repeat(objects, len(frames)),
            [frame.stem for frame in frames] * len(objects),
            np.tile([frame.number for frame in frames], len(objects)),
            grid.reshape(-1, self.columns),
            np.tile(tolerances, len(objects)),
            np.tile(caps, len(objects)),
            self._info(len(frames), in_gt, extra),
        )

    def _per_object(self, frames: list[_Frame]) -> Measured:
        """Each object on the frames of its own folder."""
        counts = np.zeros((len(frames), self.columns), np.int64)
        for index, rows in self.found:
            if len(rows):
                counts[index] = rows[0, 1:]
        folders = {int(key.split("/")[0]) for key in self.pair.ground_truth}
        predicted = {key.split("/")[0] for key in self.pair.prediction}
        extra = sorted(item for item in predicted if not item.isdigit() or int(item) not in folders)
        if extra and self.policies.extra_ids == "error":
            reason = f"object folder {extra[0]} is predicted, but not in the ground truth"
            self.fail(f"{reason}; remove it, or give `vosarena evaluate` --extra-ids ignore")
        tolerances, caps = self._tolerances()
        return Measured(
            self.pair.name,
            np.array([frame.object_id for frame in frames]),
            [frame.stem for frame in frames],
            np.array([frame.number for frame in frames]),
            counts,
            tolerances,
            caps,
            self._info(len({frame.number for frame in frames}), folders, dict.fromkeys(extra, "")),
        )

    def _tolerances(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return (
            np.array([c.tolerance(*size) for size in self.sizes], np.float64),
            np.array([c.tolerance_cap(*size) for size in self.sizes], np.float64),
        )

    def _info(self, frames: int, objects: Iterable[int], extra: dict[Any, str]) -> dict[str, Any]:
        """What protocols must know of the sequence beyond its rows, as JSON."""
        meta = self.pair.objects
        return {
            "frames": frames,
            "height": self.sizes[0][0],
            "width": self.sizes[0][1],
            "per_object": self.pair.per_object,
            "objects": sorted(objects),
            "ranges": None if meta is None else {str(i): [meta[i].start, meta[i].end] for i in sorted(meta)},
            "unseen": self.pair.unseen,
            "unseen_objects": None if meta is None else {str(i): meta[i].unseen for i in sorted(meta)},
            "extra_ids": {str(label): frame for label, frame in extra.items()},
            "resized_frames": self.resized,
            **({"overlapping_frames": self.overlaps} if self.pair.merge_objects else {}),
        }


def _same_frame(stem: str, others: Mapping[str, int]) -> str | None:
    """The stem of the same frame among others, which may be padded in another way."""
    if stem in others or (number := frame_number(stem)) is None:
        return stem if stem in others else None
    return next((other for other, its in others.items() if its == number and frame_number(other) is not None), None)


def _extra_reason(predicted: set[int], known: set[int]) -> str:
    """Why predicted objects that the ground truth has not are an error, and what to do."""
    reason = "predicted, but the ground truth has no such object in any frame"
    if predicted & known:
        return f"{reason}; remove it, or give `vosarena evaluate` --extra-ids ignore"
    ids = ", ".join(map(str, sorted(known - {255})[:5])) or "none"
    binary = ", or give `vosarena evaluate` --binary, which takes every nonzero pixel for object 1"
    hint = binary if len(predicted) == 1 and len(known) <= 1 else ""
    return f"{reason}, and no other predicted object either; write the ids of the ground truth ({ids}){hint}"


def _resize(rows: LabelMap, shape: tuple[int, ...]) -> LabelMap:
    """Nearest neighbour between pixel centres; rows with their ignored first column."""
    height, width = rows.shape[0], rows.shape[1] - 1
    new_height, new_width = shape[0], shape[1] - 1
    y = (2 * np.arange(new_height) + 1) * height // (2 * new_height)
    x = (2 * np.arange(new_width) + 1) * width // (2 * new_width)
    return np.pad(rows[y][:, 1 + x], ((0, 0), (1, 0)))
