"""Pictures of the report: sheets, curves and thumbnails of the sequences of a split, and their entries on the page."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vosarena.base.escaping import script_json
from vosarena.base.logs import progress_bar
from vosarena.config.catalogs import Split
from vosarena.config.paths import Paths
from vosarena.datasets.facts import frame_rate_of
from vosarena.datasets.sequences import ANNOTATIONS, IMAGES, SequenceFiles, frame_indices, read_sequence
from vosarena.datasets.table import SequenceRecord, read_table
from vosarena.leaderboard.attributes import (
    FailureKind,
    ObjectCurve,
    failure_kinds,
    mean_curve,
    sequence_curves,
    sparkline,
)
from vosarena.metrics.read import Metrics
from vosarena.metrics.records import ObjectRows
from vosarena.predictions.store import Store
from vosarena.report import media
from vosarena.report.clips import Clip, Panel, part_of

MEDIA, CLIP = "media", "clip.mp4"  # folder next to the page; clip of a sequence, and of a split for the first screen
CLIP_QUALITY = 26  # see write_video
_THUMB_WIDTH, _THUMB_COLUMNS = 96, 20

Curves = dict[str, dict[str, list[ObjectCurve]]]  # sequence -> model -> objects
Rows = dict[str, dict[int, ObjectRows]]  # model -> object
Counted = dict[tuple[str, int], list[str]]  # (sequence, object) -> protocols that score it


@dataclass(frozen=True)
class SequenceEntry:
    """The data of a sequence that the page has before the sequence is opened.

    Attributes:
        name: Name of the sequence.
        frames: Number of frames.
        objects: Number of objects.
        attributes: Attributes of the sequence.
        tile: Width and height of one tile of a sheet, and the number of tiles.
        sparkline: Mean J over time, or without ground truth the disagreement with the other models, by model.
        fail: Tile of the first failure, by model. Models without a failure are missing.
        low: Tile of the lowest mean J, by model.
        apart: Tile in which the models differ most, in mean J or without ground truth in their masks; None with one
            model.
        disagreement: Without ground truth, how much the masks of the models differ, in percent; None with one model.
        layers: Number of the model's sheet of masks, by model.
        thumb: Position in the sheet of thumbnails.
        rate: Frames per second.
        clip: First and last frame of the clip of all models; None without a clip.
    """

    name: str
    frames: int
    objects: int
    attributes: list[str]
    tile: tuple[int, int, int]
    sparkline: dict[str, list[int]]
    fail: dict[str, int]
    low: dict[str, int]
    apart: int | None
    disagreement: float | None
    layers: dict[str, int]
    thumb: int
    rate: float
    clip: tuple[int, int] | None = None


@dataclass(frozen=True)
class ClipChoice:
    """What the clips of a split show.

    Attributes:
        sequences: Names of the sequences with a clip of all models.
        models: Models of the clip on the first screen, which shows the first of these sequences.
    """

    sequences: Sequence[str]
    models: Sequence[str]


class _Pictures(ABC):
    """Sheets, curves and thumbnails of all sequences of one split."""

    def __init__(
        self, split: Split, paths: Paths, output: Path, models: Sequence[str], numbers: Mapping[str, int]
    ) -> None:
        self._split, self._paths, self._models, self._numbers = split, paths, list(models), numbers
        self._root = paths.sequences(split).parent
        self._table = read_table(paths.sequences(split))
        self._folder = output / MEDIA / split.dataset / split.name
        size = len(self._table), len(self._models) + 2
        self._most, self._widest = media.frames_per_sequence(*size), media.tile_width(*size)

    def write(self, jobs: int) -> list[SequenceEntry]:
        """Write all pictures, and return an entry for each sequence."""
        self._folder.mkdir(parents=True)
        records = [record for record in self._table if self._models_of(record.sequence)]
        with ThreadPoolExecutor(max(1, jobs)) as pool:
            made = pool.map(self._sequence, records, range(len(records)))
            done = list(progress_bar(made, total=len(records), desc=f"pictures of {self._split}"))
        self._thumbs([thumb for _, thumb in done])
        return [entry for entry, _ in done]

    def write_clips(self, choice: ClipChoice, longest: int, jobs: int) -> dict[str, tuple[int, int]]:
        """Write the clips: one of all models for each sequence, and one of a few models for the first screen.

        Args:
            choice: What the clips show.
            longest: Largest number of frames of a clip.
            jobs: Number of threads.

        Returns:
            The first and the last frame of the clip of each sequence.

        Raises:
            ConfigError: The package av is not installed.
        """

        def write(name: str, models: Sequence[str], output: Path) -> tuple[int, int]:
            files = self._files(name)
            every, around = range(len(files.frames)), self._focus(files, choice.models[0])
            frames = part_of(every, longest, around)
            self._clip(files, models, frames).write(output, CLIP_QUALITY)
            return frames[0], frames[-1]

        wanted: list[tuple[str, Sequence[str], Path]] = [
            (name, self._models_of(name), self._folder / name / CLIP) for name in choice.sequences
        ]
        wanted.append((choice.sequences[0], choice.models, self._folder / CLIP))
        with ThreadPoolExecutor(max(1, jobs)) as pool:
            made = pool.map(write, *zip(*wanted, strict=True))
            found = list(progress_bar(made, total=len(wanted), desc=f"clips of {self._split}"))
        return dict(zip(choice.sequences, found, strict=False))

    @abstractmethod
    def _focus(self, files: SequenceFiles, model: str) -> int:
        """Return the frame that a clip which is shorter than its sequence contains."""

    @abstractmethod
    def _clip(self, files: SequenceFiles, models: Sequence[str], frames: range) -> Clip:
        """Return the clip of a sequence."""

    def _panels(
        self, files: SequenceFiles, scores: Mapping[str, Mapping[int, float]], first: Panel, models: Sequence[str]
    ) -> list[Panel]:
        shown = [
            Panel(model, self._reader(files, model), self._numbers[model], scores.get(model, {})) for model in models
        ]
        return [first, *shown]

    def _reader(self, files: SequenceFiles, model: str) -> media.ReadLabels:
        return media.prediction_reader(files, Store(self._paths.predictions(self._split, model)).masks(files.name))

    def _rate(self, sequence: str) -> float:
        return frame_rate_of(self._split, self._root, sequence)

    @abstractmethod
    def _models_of(self, sequence: str) -> list[str]:
        """Return the models that are shown on a sequence."""

    @abstractmethod
    def _sequence(self, record: SequenceRecord, thumb: int) -> tuple[SequenceEntry, media.Picture]:
        """Write the sheets and curves of a sequence, and return its entry and its thumbnail before cropping."""

    def _files(self, sequence: str) -> SequenceFiles:
        return read_sequence(self._root / IMAGES, self._root / ANNOTATIONS, sequence, self._split.resize)

    def _write_sheets(
        self, files: SequenceFiles, shown: Sequence[int], truth: media.ReadLabels
    ) -> tuple[media.Grid, media.Picture, dict[str, media.Tiles]]:
        """Write all sheets of a sequence, and return their grid, the first frame, and the masks of every model."""
        grid = media.Grid.of(files.size, len(shown), self._widest)
        folder = self._folder / files.name
        folder.mkdir()
        first_tile = media.write_frames(files, shown, grid, folder / "frames.jpg")
        true = media.read_tiles(truth, shown, grid)
        media.write_truth(true, grid, folder)
        if self._split.ground_truth != "full":
            true = [None] * len(shown)  # the prompts alone show no errors
        masks = {}
        for model in self._models_of(files.name):
            masks[model] = media.read_tiles(self._reader(files, model), shown, grid)
            media.write_model(masks[model], true, grid, folder, str(self._layer(model)))
        return grid, first_tile, masks

    def _layer(self, model: str) -> int:
        return self._models.index(model)

    def _write_data(self, sequence: str, detail: Mapping[str, Any]) -> None:
        key = script_json(f"{self._split}/{sequence}")
        (self._folder / sequence / "data.js").write_text(
            f"vosarena.arrived({key}, {script_json(detail)});\n", encoding="ascii"
        )

    def _thumbs(self, pictures: list[media.Picture]) -> None:
        """Write one sheet of thumbnails, each cropped to 16:9."""
        if not pictures:
            return
        height = _THUMB_WIDTH * 9 // 16
        rows = -(-len(pictures) // _THUMB_COLUMNS)
        sheet = Image.new("RGB", (_THUMB_WIDTH * min(_THUMB_COLUMNS, len(pictures)), height * rows))
        for index, picture in enumerate(pictures):
            image = Image.fromarray(picture)
            scale = max(_THUMB_WIDTH / image.width, height / image.height)
            image = image.resize((math.ceil(image.width * scale), math.ceil(image.height * scale)))
            corner = (index % _THUMB_COLUMNS * _THUMB_WIDTH, index // _THUMB_COLUMNS * height)
            left, top = (image.width - _THUMB_WIDTH) // 2, (image.height - height) // 2
            sheet.paste(image.crop((left, top, left + _THUMB_WIDTH, top + height)), corner)
        sheet.save(self._folder / "thumbs.jpg", quality=75)


class ScoredPictures(_Pictures):
    """The pictures of a split with ground truth."""

    def __init__(
        self,
        split: Split,
        paths: Paths,
        output: Path,
        metrics: Mapping[str, Metrics],
        attributes: Mapping[str, Sequence[str]],
        counted: Counted,
        numbers: Mapping[str, int],
    ) -> None:
        super().__init__(split, paths, output, list(metrics), numbers)
        self._attributes, self._counted = attributes, counted
        self._curves: Curves = {}
        self._rows: dict[str, Rows] = {}
        for model, item in metrics.items():
            for rows in item.sequences:
                self._curves.setdefault(rows.name, {})[model] = sequence_curves(rows)
                self._rows.setdefault(rows.name, {})[model] = rows.listed

    def _models_of(self, sequence: str) -> list[str]:
        return list(self._curves.get(sequence, ()))

    def _sequence(self, record: SequenceRecord, thumb: int) -> tuple[SequenceEntry, media.Picture]:
        name, curves = record.sequence, self._curves[record.sequence]
        files = self._files(name)
        index_of, scored = frame_indices(files), self._scored(name)
        failures = {model: _first_failure(objects, index_of) for model, objects in scored.items()}
        lowest = {model: _lowest(objects, index_of) for model, objects in scored.items()}
        apart = _most_apart(scored.values(), index_of)
        wanted = [frame for frame in (apart, *failures.values(), *lowest.values()) if frame is not None]
        shown = media.shown_frames(len(files.frames), self._most, wanted)
        grid, first_tile, _ = self._write_sheets(files, shown, media.truth_reader(files))
        objects = [
            item | {"scored": self._counted.get((name, item["id"]), [])}
            for item in _objects(curves, self._rows[name], index_of)
        ]
        self._write_data(name, {"frames": len(files.frames), "shown": shown, "objects": objects})
        entry = SequenceEntry(
            name=name,
            frames=len(files.frames),
            objects=len(next(iter(curves.values()))),
            attributes=list(self._attributes.get(name, ())),
            tile=(grid.width, grid.height, len(shown)),
            sparkline={model: sparkline(objects) for model, objects in scored.items()},
            fail={model: shown.index(frame) for model, frame in failures.items() if frame in shown},
            low={model: shown.index(frame) for model, frame in lowest.items() if frame in shown},
            apart=shown.index(apart) if apart in shown else None,
            disagreement=None,
            layers={model: self._layer(model) for model in curves},
            thumb=thumb,
            rate=self._rate(record.sequence),
        )
        return entry, first_tile

    def _scored(self, sequence: str) -> dict[str, list[ObjectCurve]]:
        """Return the curves of the objects that any protocol scores, by model."""
        return {
            model: [curve for curve in objects if (sequence, curve.object_id) in self._counted]
            for model, objects in self._curves[sequence].items()
        }

    def _focus(self, files: SequenceFiles, model: str) -> int:
        return _lowest(self._scored(files.name).get(model, ()), frame_indices(files)) or 0

    def _clip(self, files: SequenceFiles, models: Sequence[str], frames: range) -> Clip:
        index_of, truth = frame_indices(files), media.truth_reader(files)
        scores = {}
        for model, objects in self._scored(files.name).items():
            if mean := mean_curve(objects):
                scores[model] = {index_of[stem]: float(j) for stem, j in zip(mean.stems, mean.j, strict=True)}
        panels = self._panels(files, scores, Panel("ground truth", truth), models)
        return Clip(files, panels, frames, self._rate(files.name), truth=truth)


class UnscoredPictures(_Pictures):
    """The pictures of a split without ground truth: prompts and predictions, compared with each other."""

    def __init__(self, split: Split, paths: Paths, output: Path, numbers: Mapping[str, int]) -> None:
        super().__init__(split, paths, output, list(numbers), numbers)
        self._prompts = {record.sequence: set(record.first_appearance) for record in self._table}
        self._peaks: dict[str, int] = {}  # the frame in which the models differ most, by sequence

    def _models_of(self, sequence: str) -> list[str]:
        stores = {model: Store(self._paths.predictions(self._split, model)) for model in self._models}
        return [model for model, store in stores.items() if store.manifest(sequence)]

    def _sequence(self, record: SequenceRecord, thumb: int) -> tuple[SequenceEntry, media.Picture]:
        files = self._files(record.sequence)
        prompts, read = self._prompts[files.name], media.truth_reader(files)
        shown = media.shown_frames(len(files.frames), self._most, sorted(prompts))
        grid, first_tile, masks = self._write_sheets(
            files, shown, lambda frame: read(frame) if frame in prompts else None
        )
        apart = media.disagreement(masks)
        mean = np.mean(list(apart.values()), axis=0) if apart else None
        self._peaks[files.name] = 0 if mean is None else shown[int(np.argmax(mean))]
        objects = [{"id": number, "colour": media.colour_of(number)} for number in record.object_ids]
        curves = {model: np.rint(100 * values).astype(int).tolist() for model, values in apart.items()}
        detail = {"frames": len(files.frames), "shown": shown, "objects": objects, "apart": curves}
        self._write_data(files.name, detail)
        entry = SequenceEntry(
            name=files.name,
            frames=len(files.frames),
            objects=len(record.object_ids),
            attributes=list(record.attributes),
            tile=(grid.width, grid.height, len(shown)),
            sparkline=curves,
            fail={},
            low={},
            apart=None if mean is None else int(np.argmax(mean)),
            disagreement=None if mean is None else round(100 * float(mean.mean()), 1),
            layers={model: self._layer(model) for model in masks},
            thumb=thumb,
            rate=self._rate(record.sequence),
        )
        return entry, first_tile

    def _focus(self, files: SequenceFiles, model: str) -> int:
        return self._peaks[files.name]

    def _clip(self, files: SequenceFiles, models: Sequence[str], frames: range) -> Clip:
        read, prompts = media.truth_reader(files), self._prompts[files.name]
        readers = {model: self._reader(files, model) for model in self._models_of(files.name)}
        scores = media.disagreement_over_time(readers, files, frames)
        prompt = Panel("prompt", lambda frame: read(frame) if frame in prompts else None)
        panels = self._panels(files, scores, prompt, models)
        return Clip(files, panels, frames, self._rate(files.name), score="{:.0f} % apart")


def _first_failure(objects: Iterable[ObjectCurve], index_of: Mapping[str, int]) -> int | None:
    """Return the frame index of the first failure of any object, or None without a failure."""
    frames = [index_of[curve.stems[curve.failure]] for curve in objects if curve.failure is not None]
    return min(frames, default=None)


def _lowest(objects: Sequence[ObjectCurve], index_of: Mapping[str, int]) -> int | None:
    """Return the index of the first frame with the lowest mean J over the objects, or None without objects."""
    mean = mean_curve(objects)
    return None if mean is None else index_of[mean.stems[int(np.argmin(mean.j))]]


def _most_apart(models: Iterable[Sequence[ObjectCurve]], index_of: Mapping[str, int]) -> int | None:
    """Return the index of the first frame in which the mean J of the models differs most, or None with one model."""
    values: dict[str, list[float]] = {}
    for objects in models:
        if mean := mean_curve(objects):
            for stem, j in zip(mean.stems, mean.j, strict=True):
                values.setdefault(stem, []).append(float(j))
    spread = {index_of[stem]: max(found) - min(found) for stem, found in values.items() if len(found) > 1}
    return max(spread, key=lambda frame: (spread[frame], -frame), default=None)


def _objects(
    curves: Mapping[str, list[ObjectCurve]], rows: Rows, index_of: Mapping[str, int]
) -> Iterable[dict[str, Any]]:
    """Yield for each object the frames with ground truth, where it is visible, and what every model did there.

    J and F are in percent. Failures are one digit per frame: 0 for none, or the place in FailureKind, from 1.
    """
    kinds = {kind: str(number) for number, kind in enumerate(FailureKind, start=1)}
    for number, curve in enumerate(next(iter(curves.values()))):
        by_model = {model: objects[number] for model, objects in curves.items()}
        found = {model: rows[model][curve.object_id] for model in by_model}
        fails = {model: item.stems[item.failure] for model, item in by_model.items() if item.failure is not None}
        yield {
            "id": curve.object_id,
            "colour": media.colour_of(curve.object_id),
            "at": [index_of[stem] for stem in curve.stems],
            "visible": curve.visible.astype(int).tolist(),
            "j": {model: np.rint(100 * item.j).astype(int).tolist() for model, item in by_model.items()},
            "f": {model: np.rint(100 * item.f).astype(int).tolist() for model, item in found.items()},
            "kinds": {
                model: "".join("0" if kind is None else kinds[kind] for kind in failure_kinds(item))
                for model, item in found.items()
            },
            "fail": {model: index_of[stem] for model, stem in fails.items()},
        }
