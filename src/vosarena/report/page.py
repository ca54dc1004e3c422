"""The report: one page that needs no network, with pictures in a folder next to it.

The page contains the tables and the sparklines. Frames, masks and curves of a sequence are in `media/` and are loaded
when the sequence is opened. Data files are scripts, because browsers do not let a local page fetch JSON.
"""

import math
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import yaml
from PIL import Image

from vosarena.base.errors import DataError
from vosarena.base.escaping import script_json
from vosarena.base.files import check_folder
from vosarena.base.hashing import digest_of
from vosarena.base.logs import progress_bar
from vosarena.base.version import __version__
from vosarena.config.paths import Paths
from vosarena.config.study import Split, Study
from vosarena.datasets.sequences import ANNOTATIONS, IMAGES, SequenceFiles, read_sequence
from vosarena.datasets.table import SequenceRecord, read_table
from vosarena.io.masks import masks_digest
from vosarena.leaderboard.attributes import (
    FAILURE_J,
    FailureKind,
    ObjectCurve,
    failure_kinds,
    mean_curve,
    sequence_curves,
    sparkline,
)
from vosarena.leaderboard.boards import KEYS, BoardKey, board_keys, rows_of
from vosarena.leaderboard.build import LocalRun, attributes_of, read_leaderboard
from vosarena.leaderboard.columns import LEADERBOARD, TABLES, Shown, columns_for
from vosarena.leaderboard.comparison import ALL
from vosarena.leaderboard.cross_dataset import column_groups, cross_dataset_tables, footnote
from vosarena.leaderboard.headline import headline
from vosarena.leaderboard.inputs import local_runs
from vosarena.leaderboard.statistics import MIN_SEQUENCES
from vosarena.leaderboard.tables import board_note
from vosarena.metrics.read import Metrics, read_metrics
from vosarena.metrics.records import ObjectRows
from vosarena.orchestration.failures import read_failures
from vosarena.predictions.store import Store
from vosarena.report import media

MEDIA, COPIES = "media", "tables"  # folders next to the page
_PAGE = Path(__file__).with_name("page")
_SCRIPTS = ("vendor/libraries.min.js", "tools.js", "plots.js", "tables.js", "sequences.js")
_DOWNLOADS = (*(f"{name}.csv" for name in TABLES), "leaderboard.tex", "leaderboard.md")
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


@dataclass(frozen=True)
class ModelDetails:
    """The definition of a model and the versions that made its predictions, for the section on provenance."""

    title: str
    description: str
    paper: str
    code: str
    license: str
    parameters: str
    trained_on: str
    definition: str
    weights: str
    packages: str
    python: str
    device: str
    masks: str


@dataclass(frozen=True)
class FailedSequence:
    """One row of the table of failures. The log and the command are empty if the workflow did not run the job."""

    split: str
    model: str
    sequence: str
    reason: str
    attempts: int | str
    log: str
    command: str


def build_report(
    study: Study, paths: Paths, output: Path, jobs: int = 1, runs: Sequence[LocalRun] | None = None
) -> None:
    """Write the page `index.html` and its folders `media/` and `tables/`. The same inputs give the same bytes.

    Args:
        study: The study.
        paths: Its files.
        output: The folder to write to; the tables are read from `leaderboard/` next to it.
        jobs: Number of threads.
        runs: The measured runs; by default all runs of the study.

    Raises:
        DataError: There is no leaderboard yet, or it is damaged.
    """
    folder = output.parent / "leaderboard"
    tables = {name: pd.DataFrame(columns=columns) for name, columns in TABLES.items()}
    if has_scores := bool(study.local_splits() or study.server_splits()):
        if not (folder / "leaderboard.parquet").is_file():
            raise DataError(f"{folder} has no leaderboard; run the workflow or `vosarena leaderboard` first")
        tables = read_leaderboard(folder)
    check_folder(output)
    for name in (MEDIA, COPIES):
        shutil.rmtree(output / name, ignore_errors=True)
        (output / name).mkdir()
    downloads = _DOWNLOADS if has_scores else ()
    for name in downloads:
        shutil.copyfile(folder / name, output / COPIES / name)  # the page may be passed on without the other folders
    scored = local_runs(study, paths) if runs is None else runs
    splits: dict[str, dict[str, Any]] = {}
    for name, split in study.splits.items():
        of_split = [run for run in scored if f"{run.dataset}/{run.split}" == name]
        if of_split:
            files = [run.metrics for run in of_split]
            metrics = {item.model: item for item in read_metrics(files, allow_incomplete=True)}
            attributes, _ = attributes_of(of_split)
            counted = _counted(tables["objects"], split)
            pictures = _ScoredPictures(split, paths, output, metrics, attributes, counted)
            splits[name] = {"scored": True, "sequences": [asdict(entry) for entry in pictures.write(jobs)]}
        elif split.ground_truth != "full" and paths.sequences(split).is_file():
            unscored = _UnscoredPictures(split, paths, output, list(study.models))
            splits[name] = {
                "scored": False,
                "sequences": [asdict(entry) for entry in unscored.write(jobs)],
                "state": _state(split, list(study.models), paths, tables["leaderboard"]),
            }
    data = [Path(split.path) for split in study.every_split() if split.path]
    local = _LocalPaths([Path(), paths.results.parent, *data])
    content = {
        "boards": local.hide(
            [
                *(_board(tables, key) for key in board_keys(tables["leaderboard"])),
                *(
                    _unscored_board(study.splits[name], splits[name])
                    for name in splits
                    if study.splits[name].ground_truth == "none"
                ),
            ]
        ),
        "columns": [
            {"key": column.name, "title": column.title, "words": column.words, "description": column.description}
            for column in columns_for(LEADERBOARD, Shown.PAGE)
        ],
        "splits": splits,
        "models": local.hide({name: asdict(found) for name, found in _models(study, paths).items()}),
        "failure_j": round(100 * FAILURE_J),
        "failure_kinds": [kind.value for kind in FailureKind],
        "min_sequences": MIN_SEQUENCES,
        "failures": local.hide([asdict(failed) for failed in _failures(study, paths)]),
        "data": {name: _data_digest(paths.sequences(study.splits[name])) for name in splits if splits[name]["scored"]},
        "version": __version__,
    }
    page = _render(content, local.hide(_definition(study)), tables["leaderboard"], downloads)
    (output / "index.html").write_text(page, encoding="utf-8", errors="backslashreplace")


def _board(tables: Mapping[str, pd.DataFrame], key: BoardKey) -> dict[str, Any]:
    """Return everything about one board that the page shows."""
    board, attributes, comparisons, sequences = (
        rows_of(tables[name], key) for name in ("leaderboard", "attributes", "comparisons", "sequences")
    )
    scores: dict[str, dict[str, float]] = {}
    for row in sequences.dropna(subset="j_and_f").itertuples():
        scores.setdefault(str(row.sequence), {})[str(row.model)] = round(float(row.j_and_f), 2)
    return {
        **key._asdict(),
        "note": board_note(board),
        "headline": headline(board, attributes),
        "rows": _leaderboard_rows(board),
        "attributes": _records(attributes.drop(columns=KEYS)),
        "comparisons": _records(comparisons[comparisons["attribute"] == ALL].drop(columns=KEYS)),
        "scores": scores,
    }


def _unscored_board(split: Split, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the board of a split that nobody scores: a sentence, without rows."""
    entries = [entry for entry in content["sequences"] if entry["disagreement"] is not None]
    headline = [(f"{split} is not scored. ", False)]
    if entries:
        most = max(entries, key=lambda entry: entry["disagreement"])
        headline += [("The models disagree most on ", False), (most["name"], True)]
        headline.append((f": {most['disagreement']:.0f} % of the area of their masks on average.", False))
    parts = {"note": "", "headline": headline, "rows": [], "attributes": [], "comparisons": [], "scores": {}}
    return {"dataset": split.dataset, "split": split.name, "protocol": "not scored", **parts}


def _state(split: Split, models: Sequence[str], paths: Paths, board: pd.DataFrame) -> list[dict[str, Any]]:
    """Return how far every model is on a split without ground truth: finished sequences and the archive."""
    names = [record.sequence for record in read_table(paths.sequences(split))]
    rows = board[(board["dataset"] == split.dataset) & (board["split"] == split.name)].set_index("model")
    state = []
    for model in models:
        archive = paths.submission(split, model)
        state.append(
            {
                "model": model,
                "finished": len(Store(paths.predictions(split, model)).manifests(names)),
                "sequences": len(names),
                "status": str(rows.loc[model, "status"]) if model in rows.index else "no server",
                "archive": str(archive.relative_to(paths.study_folder)) if archive.is_file() else "",
            }
        )
    return state


def _leaderboard_rows(board: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of one board, with the values that the page sorts by and the `text` of each column."""
    texts = [
        {column.name: column.page_text(row) for column in columns_for(LEADERBOARD, Shown.PAGE)}
        for _, row in board.iterrows()
    ]
    records = _records(board.drop(columns=KEYS))
    return [record | {"text": text} for record, text in zip(records, texts, strict=True)]


def _counted(objects: pd.DataFrame, split: Split) -> Counted:
    """Return the protocols that score each object of a split."""
    of_split = objects[(objects["dataset"] == split.dataset) & (objects["split"] == split.name)]
    found = of_split[["sequence", "object_id", "protocol"]].drop_duplicates().itertuples(index=False)
    counted: Counted = {}
    for sequence, number, protocol in found:
        counted.setdefault((str(sequence), int(number)), []).append(str(protocol))
    return counted


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows for JSON, with rounded numbers and without missing and infinite values."""

    def known(value: Any) -> bool:
        return bool(pd.notna(value)) and not (isinstance(value, float) and math.isinf(value))

    def clean(value: Any) -> Any:
        if isinstance(value, float | np.floating):
            return round(float(value), 4)
        return value.item() if isinstance(value, np.generic) else value

    return [{key: clean(value) for key, value in row.items() if known(value)} for row in table.to_dict("records")]


class _Pictures(ABC):
    """Sheets, curves and thumbnails of all sequences of one split."""

    def __init__(self, split: Split, paths: Paths, output: Path, models: Sequence[str]) -> None:
        self._split, self._paths, self._models = split, paths, list(models)
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
            store = Store(self._paths.predictions(self._split, model))
            masks[model] = media.read_tiles(media.prediction_reader(files, store.masks(files.name)), shown, grid)
            media.write_model(masks[model], true, grid, folder, str(self._layer(model)))
        return grid, first_tile, masks

    def _layer(self, model: str) -> int:
        return self._models.index(model)

    def _write_data(self, sequence: str, detail: Mapping[str, Any]) -> None:
        key = script_json(f"{self._split}/{sequence}")
        (self._folder / sequence / "data.js").write_text(f"vosarena.arrived({key}, {script_json(detail)});\n")

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


class _ScoredPictures(_Pictures):
    """The pictures of a split with ground truth."""

    def __init__(
        self,
        split: Split,
        paths: Paths,
        output: Path,
        metrics: Mapping[str, Metrics],
        attributes: Mapping[str, Sequence[str]],
        counted: Counted,
    ) -> None:
        super().__init__(split, paths, output, list(metrics))
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
        # Scores refer to the names of masks, which may differ from those of frames: `7.png` may be the mask of
        # `00007.jpg`.
        masks = (files.masks, *files.objects.values())
        index_of = {path.stem: index for found in masks for index, path in found.items()}
        scored = {
            model: [curve for curve in objects if (name, curve.object_id) in self._counted]  # by any protocol
            for model, objects in curves.items()
        }
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
        )
        return entry, first_tile


class _UnscoredPictures(_Pictures):
    """The pictures of a split without ground truth: prompts and predictions, compared with each other."""

    def _models_of(self, sequence: str) -> list[str]:
        stores = {model: Store(self._paths.predictions(self._split, model)) for model in self._models}
        return [model for model, store in stores.items() if store.manifest(sequence)]

    def _sequence(self, record: SequenceRecord, thumb: int) -> tuple[SequenceEntry, media.Picture]:
        files = self._files(record.sequence)
        prompts, read = set(record.first_appearance), media.truth_reader(files)
        shown = media.shown_frames(len(files.frames), self._most, sorted(prompts))
        grid, first_tile, masks = self._write_sheets(
            files, shown, lambda frame: read(frame) if frame in prompts else None
        )
        apart = media.disagreement(masks)
        mean = np.mean(list(apart.values()), axis=0) if apart else None
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
        )
        return entry, first_tile


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


def _models(study: Study, paths: Paths) -> dict[str, ModelDetails]:
    """Return details of every model. Versions, weights and devices come from the manifests of its predictions."""
    models = {}
    for name, model in study.models.items():
        weights, packages, devices, pythons = set[str](), set[str](), set[str](), set[str]()
        masks = {}
        for split in study.splits.values():
            store = Store(paths.predictions(split, name))
            records = read_table(paths.sequences(split)) if paths.sequences(split).is_file() else []
            for sequence, manifest in store.manifests(record.sequence for record in records).items():
                versions = sorted(manifest.identity.packages.items())
                weights.add(manifest.identity.weights or "")
                packages.add(", ".join(f"{package} {version}" for package, version in versions))
                devices.add(manifest.device)
                pythons.add(manifest.versions.python)
                masks[f"{split}/{sequence}"] = manifest.masks_digest
        models[name] = ModelDetails(
            title=model.title or name,
            description=model.description,
            paper=model.paper,
            code=model.code,
            license=model.license,
            parameters=model.parameters,
            trained_on=", ".join(study.trained_on(model) or ()),
            definition=yaml.safe_dump(model.definition().to_json(), default_flow_style=True, width=10_000).strip(),
            weights=_joined(weights),
            packages=_joined(packages),
            python=_joined(pythons),
            device=_joined(devices),
            masks=digest_of(masks) if masks else "",
        )
    return models


def _joined(values: Iterable[str]) -> str:
    return ", ".join(sorted(filter(None, values)))


def _data_digest(table: Path) -> str:
    """Return a digest of the ground truth of a split: names and sizes of all sequences, and bytes of their masks."""
    root = table.parent / ANNOTATIONS
    found: dict[str, Any] = {}
    for record in read_table(table):
        files = sorted((root / record.sequence).rglob("*.png"))
        size = [record.n_frames, record.height, record.width]
        stems = ((str(path.relative_to(root)), path) for path in files)
        found[record.sequence] = [*size, masks_digest(stems)]
    return digest_of(found)


def _failures(study: Study, paths: Paths) -> Iterable[FailedSequence]:
    """Yield why sequences are missing, from the store, with the log and the command from failures.csv."""
    listed = {
        tuple(row[key] for key in ("dataset", "split", "model", "sequence")): row
        for row in read_failures(paths.failures)
    }
    for split in study.splits.values():
        table = paths.sequences(split)
        names = [record.sequence for record in read_table(table)] if table.is_file() else []
        for model in study.models:
            store = Store(paths.predictions(split, model))
            for name in names:
                row = listed.get((split.dataset, split.name, model, name), {})
                failure = store.failure(name)
                if failure or (row and store.manifest(name) is None):
                    yield FailedSequence(
                        split=str(split),
                        model=model,
                        sequence=name,
                        reason=failure.reason if failure else row["reason"],
                        attempts=failure.attempts if failure else row["attempts"],
                        log=row.get("log", ""),
                        command=row.get("rerun", ""),
                    )


class _LocalPaths:
    """Remove absolute paths of this machine from texts, because the page may be published.

    Args:
        folders: Folders of the study. Paths inside them become relative to them, and other paths are shortened to their
            last part.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        known = {str(form) for folder in folders for form in (folder.expanduser().absolute(), folder.resolve())} - {"/"}
        longest_first = "|".join(re.escape(folder) for folder in sorted(known, key=len, reverse=True))
        before, end = r"(?<![\w.~/-])", r"(?![^\s:,;'\"<>|)\]])"
        self._inside = re.compile(rf"{before}(?:{longest_first})(?:/+(?=[^\s/])|/?{end})")
        homes = rf"{re.escape(str(Path.home()))}|/(?:home|Users)/[^\s/:,;'\"<>|]+"
        self._home = re.compile(rf"{before}(?:{homes})(?={end}|/)")
        self._others = re.compile(rf"{before}(?:~/|/(?!/)|(?<!:)//+)(?:[^\s/:,;'\"<>|]+/+)*(?=[^\s/:,;'\"<>|])")

    def hide(self, value: Any) -> Any:
        """Return a text, or a mapping or list of texts, without such paths. Keys of mappings are not changed."""
        if isinstance(value, Mapping):
            return {key: self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item) for item in value]
        return self._without(value) if isinstance(value, str) else value

    def _without(self, text: str) -> str:
        text = re.sub(r"(://)[^/@\s]+@", r"\1", text.replace("file://", ""))  # also remove names and passwords in URLs
        text = self._inside.sub(lambda found: "" if found[0].endswith("/") else ".", text)
        return self._others.sub(".../", self._home.sub("~", text))


def _definition(study: Study) -> dict[str, Any]:
    """Return what the page shows about the study."""
    return {
        "datasets": list(study.splits),
        "models": {name: model.definition().to_json() for name, model in study.models.items()},
        "protocols": {name: list(study.protocols_of(split)) for name, split in study.splits.items()},
        "ground_truth": {name: split.ground_truth for name, split in study.splits.items()},
    }


def _render(
    content: Mapping[str, Any], definition: Mapping[str, Any], board: pd.DataFrame, downloads: Sequence[str]
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    splits = [
        (name, definition["ground_truth"][name], definition["protocols"][name]) for name in definition["datasets"]
    ]
    return environment.get_template("page.html.j2").render(
        css=(_PAGE / "page.css").read_text(),
        scripts=[(_PAGE / name).read_text() for name in _SCRIPTS],
        data=script_json(content),
        content=content,
        matrices=[
            (title, column_groups(shown), shown, footnote(shown)) for title, shown in cross_dataset_tables(board)
        ],
        splits=splits,
        downloads=[f"{COPIES}/{name}" for name in downloads],
        study=yaml.safe_dump({key: definition[key] for key in ("datasets", "models", "protocols")}, sort_keys=False),
    )
