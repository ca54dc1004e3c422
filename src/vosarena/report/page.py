"""The report: one page that needs no network, with pictures in a folder next to it.

The page contains the tables and the sparklines. Frames, masks and curves of a sequence are in `media/` and are loaded
when the sequence is opened. Data files are scripts, because browsers do not let a local page fetch JSON.
"""

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import yaml

from vosarena.base.errors import ConfigError, DataError
from vosarena.base.escaping import script_json
from vosarena.base.files import check_folder
from vosarena.base.version import __version__
from vosarena.config.catalogs import Split
from vosarena.config.paths import Paths
from vosarena.config.study import Study
from vosarena.datasets.table import read_table
from vosarena.leaderboard.attributes import FAILURE_J, FailureKind
from vosarena.leaderboard.boards import KEYS, BoardKey, board_keys, rows_of
from vosarena.leaderboard.build import LocalRun, attributes_of, read_leaderboard
from vosarena.leaderboard.columns import LEADERBOARD, SPEED, TABLES, Shown, columns_for
from vosarena.leaderboard.comparison import ALL
from vosarena.leaderboard.cross_dataset import column_groups, cross_dataset_tables, footnote
from vosarena.leaderboard.headline import headline
from vosarena.leaderboard.inputs import local_runs
from vosarena.leaderboard.speed import SPEED_KEYS
from vosarena.leaderboard.statistics import MIN_SEQUENCES
from vosarena.leaderboard.tables import board_note, gains
from vosarena.metrics.read import read_metrics
from vosarena.predictions.store import Store
from vosarena.report import media
from vosarena.report.explanations import explanations
from vosarena.report.local_paths import LocalPaths
from vosarena.report.pictures import MEDIA, ClipChoice, Counted, ScoredPictures, SequenceEntry, UnscoredPictures
from vosarena.report.provenance import data_digest, failed_sequences, model_details
from vosarena.report.training import training_curves, waiting_shares

logger = logging.getLogger(__name__)

COPIES = "tables"  # folder next to the page
_PAGE = Path(__file__).with_name("page")
_SCRIPTS = (
    "vendor/libraries.min.js",
    "dom.js",
    "tools.js",
    "plots.js",
    "tables.js",
    "clips.js",
    "training.js",
    "sequences.js",
)
_DOWNLOADS = (*(f"{name}.csv" for name in TABLES), "leaderboard.tex", "leaderboard.md")


def build_report(
    study: Study, paths: Paths, output: Path, jobs: int = 1, runs: Sequence[LocalRun] | None = None
) -> None:
    """Write the page `index.html`, `speed.js` and the folders `media/` and `tables/`.

    The same masks give the same bytes, except for `speed.js` and `tables/speed.csv`.

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
    boards = [_board(tables, key) for key in board_keys(tables["leaderboard"])]
    most, longest = media.clip_limits(len(study.splits), len(study.models) + 1)
    numbers = {model: number for number, model in enumerate(study.models)}
    splits: dict[str, dict[str, Any]] = {}
    for name, split in study.splits.items():
        of_split = [run for run in scored if f"{run.dataset}/{run.split}" == name]
        if of_split:
            files = [run.metrics for run in of_split]
            metrics = {item.model: item for item in read_metrics(files, allow_incomplete=True)}
            attributes, _ = attributes_of(of_split)
            counted = _counted(tables["objects"], split)
            pictures = ScoredPictures(split, paths, output, metrics, attributes, counted, numbers)
            entries = pictures.write(jobs)
            board = next((item for item in boards if f"{item['dataset']}/{item['split']}" == name), None)
            choice = _scored_choice(board, most)
            splits[name] = {"scored": True, **_with_clips(pictures, entries, choice, longest, jobs)}
        elif split.ground_truth != "full" and paths.sequences(split).is_file():
            unscored = UnscoredPictures(split, paths, output, numbers)
            entries = unscored.write(jobs)
            splits[name] = {
                "scored": False,
                **_with_clips(unscored, entries, _unscored_choice(entries, most), longest, jobs),
                "state": _state(split, list(study.models), paths, tables["leaderboard"]),
            }
    data = [Path(split.path) for split in study.every_split() if split.path]
    local = LocalPaths([Path(), paths.results.parent, *data])
    content = {
        "boards": local.hide(
            [
                *boards,
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
        "models": local.hide({name: asdict(found) for name, found in model_details(study, paths).items()}),
        "trainings": training_curves(study, paths),
        "failure_j": round(100 * FAILURE_J),
        "failure_kinds": [kind.value for kind in FailureKind],
        "min_sequences": MIN_SEQUENCES,
        "failures": local.hide([asdict(failed) for failed in failed_sequences(study, paths)]),
        "data": {name: data_digest(paths.sequences(study.splits[name])) for name in splits if splits[name]["scored"]},
        "study": study.name,
        "version": __version__,
    }
    explained = local.hide(explanations(study, paths, scored))
    page = _render(content, local.hide(study.outline()), tables["leaderboard"], downloads, explained)
    speed = _speed_script(tables["speed"], waiting_shares(study, paths))
    (output / "speed.js").write_text(speed, encoding="utf-8")
    (output / "index.html").write_text(page, encoding="utf-8", errors="backslashreplace")


def _speed_script(speed: pd.DataFrame, waiting: Mapping[str, Any]) -> str:
    """Return speeds and waiting times as a script, which is a file of its own because they differ between two runs."""
    columns = [column for column in columns_for(SPEED, Shown.PAGE) if column.name not in SPEED_KEYS]
    texts = [{column.name: column.page_text(row) for column in columns} for _, row in speed.iterrows()]
    rows = [record | {"text": text} for record, text in zip(records(speed), texts, strict=True)]
    waits = f"window.vosarenaWaiting = {script_json(waiting)};\n" if waiting else ""
    return f"window.vosarenaSpeed = {script_json(rows)};\n{waits}"


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
        "attributes": records(attributes.drop(columns=KEYS)),
        "gains": gains(attributes),
        "comparisons": records(comparisons[comparisons["attribute"] == ALL].drop(columns=KEYS)),
        "scores": scores,
    }


def _scored_choice(board: Mapping[str, Any] | None, most: int) -> ClipChoice | None:
    """Return the sequences with the lowest scores of the leader, and those with the largest differences of models."""
    rows = [row for row in board["rows"] if row["kind"] == "measured" and "j_and_f" in row] if board else []
    if not board or not rows:
        return None
    leader = max(rows, key=lambda row: row["j_and_f"])["model"]
    scores: dict[str, dict[str, float]] = board["scores"]
    lowest = sorted((name for name in scores if leader in scores[name]), key=lambda name: (scores[name][leader], name))
    spread = {name: max(values.values()) - min(values.values()) for name, values in scores.items()}
    apart = sorted(spread, key=lambda name: (-spread[name], name))
    return ClipChoice(list(dict.fromkeys([*lowest[: most // 2], *apart]))[:most], [leader])


def _unscored_choice(entries: Sequence[SequenceEntry], most: int) -> ClipChoice | None:
    """Return the sequences with the largest disagreement, and of the first one the models at both ends."""
    ranked = sorted(entries, key=lambda entry: (-(entry.disagreement or 0), entry.name))[:most]
    if not ranked:
        return None
    apart = {model: float(np.mean(values)) for model, values in ranked[0].sparkline.items()}
    models = sorted(apart, key=lambda model: (-apart[model], model)) or list(ranked[0].layers)
    return ClipChoice([entry.name for entry in ranked], list(dict.fromkeys([models[0], models[-1]])))


def _with_clips(
    pictures: ScoredPictures | UnscoredPictures,
    entries: Sequence[SequenceEntry],
    choice: ClipChoice | None,
    longest: int,
    jobs: int,
) -> dict[str, Any]:
    """Write the clips of a split; return its entries with their clips, and what the clip on the first screen shows."""
    try:
        clips = pictures.write_clips(choice, longest, jobs) if choice else {}
    except ConfigError as error:
        logger.warning("the report has no clips: %s", error)
        clips = {}
    first = {"sequence": choice.sequences[0], "models": choice.models} if choice and clips else None
    return {"sequences": [asdict(replace(entry, clip=clips.get(entry.name))) for entry in entries], "first": first}


def _unscored_board(split: Split, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the board of a split that nobody scores: a sentence, without rows."""
    entries = [entry for entry in content["sequences"] if entry["disagreement"] is not None]
    headline = [(f"{split} is not scored. ", False)]
    if entries:
        most = max(entries, key=lambda entry: entry["disagreement"])
        headline += [("The models disagree most on ", False), (most["name"], True)]
        headline.append((f": {most['disagreement']:.0f} % of the area of their masks on average.", False))
    parts = {
        "note": "",
        "headline": headline,
        "rows": [],
        "attributes": [],
        "gains": [],
        "comparisons": [],
        "scores": {},
    }
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
    rows = records(board.drop(columns=KEYS))
    return [record | {"text": text} for record, text in zip(rows, texts, strict=True)]


def _counted(objects: pd.DataFrame, split: Split) -> Counted:
    """Return the protocols that score each object of a split."""
    of_split = objects[(objects["dataset"] == split.dataset) & (objects["split"] == split.name)]
    found = of_split[["sequence", "object_id", "protocol"]].drop_duplicates().itertuples(index=False)
    counted: Counted = {}
    for sequence, number, protocol in found:
        counted.setdefault((str(sequence), int(number)), []).append(str(protocol))
    return counted


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows for JSON, with rounded numbers and without missing and infinite values."""

    def known(value: Any) -> bool:
        return bool(pd.notna(value)) and not (isinstance(value, float) and math.isinf(value))

    def clean(value: Any) -> Any:
        if isinstance(value, float | np.floating):
            return round(float(value), 4)
        return value.item() if isinstance(value, np.generic) else value

    return [{key: clean(value) for key, value in row.items() if known(value)} for row in table.to_dict("records")]


def _render(
    content: Mapping[str, Any],
    definition: Mapping[str, Any],
    board: pd.DataFrame,
    downloads: Sequence[str],
    explained: Sequence[Mapping[str, Any]],
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    splits = [
        (name, definition["ground_truth"][name], definition["protocols"][name]) for name in definition["datasets"]
    ]
    return environment.get_template("page.html.j2").render(
        css=(_PAGE / "page.css").read_text(encoding="utf-8"),
        scripts=[(_PAGE / name).read_text(encoding="utf-8") for name in _SCRIPTS],
        data=script_json(content),
        content=content,
        explanations=explained,
        matrices=[
            (title, column_groups(shown), shown, footnote(shown)) for title, shown in cross_dataset_tables(board)
        ],
        splits=splits,
        downloads=[f"{COPIES}/{name}" for name in downloads],
        study=yaml.safe_dump({key: definition[key] for key in ("datasets", "models", "protocols")}, sort_keys=False),
    )
