"""Build the leaderboard from metrics files: overall, per sequence, per object, per attribute, and paired differences.

Measured rows, rows scored by servers and published rows are in one table, distinguished by `kind`. Only rows that cover
the whole split get a rank. Published rows never get one, because it cannot be checked how they were made.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vosarena.base.errors import DataError
from vosarena.base.escaping import csv_table
from vosarena.base.files import atomic_path, check_folder
from vosarena.base.sealed import SEAL, read_sealed, seal
from vosarena.config.titles import BY_NAME, Titles
from vosarena.config.training_data import TrainingData
from vosarena.datasets.table import read_counts, read_table
from vosarena.leaderboard.attributes import Survival, derived_attributes, survival
from vosarena.leaderboard.boards import KEYS, BoardKey, rows_of
from vosarena.leaderboard.columns import LEADERBOARD, TABLES, names
from vosarena.leaderboard.comparison import ALL, Comparison, PairDifference, Reference
from vosarena.leaderboard.kinds import Kind, Status
from vosarena.leaderboard.latex import latex, speed_latex
from vosarena.leaderboard.published import PublishedScore, published_scores
from vosarena.leaderboard.server_scores import read_scores
from vosarena.leaderboard.speed import Speed, measured_speed, speed_by_objects, split_speed
from vosarena.leaderboard.tables import markdown, speed_markdown
from vosarena.metrics.protocols import find_protocol
from vosarena.metrics.read import read_metadata, read_metrics
from vosarena.metrics.scores import empty_score, score, summarise

SERVER = "server"  # the protocol of splits whose ground truth is not public


@dataclass(frozen=True)
class LocalRun:
    """One model on one split with ground truth.

    Attributes:
        dataset: Name of the dataset.
        split: Name of the split.
        model: Name of the model.
        protocols: Names of the protocols that score it.
        metrics: The metrics file.
        table: The table of sequences of the split.
        store: Folder of the predictions.
        training: What the model has seen of the split.
        speed: Its speed, by default that of the manifests in the store.
        origin: The model that it was fine-tuned from, if any.
    """

    dataset: str
    split: str
    model: str
    protocols: Sequence[str]
    metrics: Path
    table: Path
    store: Path
    training: TrainingData = field(default_factory=TrainingData)
    speed: Speed | None = None
    origin: str = ""


@dataclass(frozen=True)
class ServerRun:
    """One model on a split that only a server can score.

    Attributes:
        dataset: Name of the dataset.
        split: Name of the split.
        model: Name of the model.
        table: The table of sequences of the split.
        store: Folder of the predictions.
        submission: The archive for the server.
        scores: The file with the server's answer, if there is one.
        notice: A sentence about the server if it is closed.
        training: What the model has seen of the split.
    """

    dataset: str
    split: str
    model: str
    table: Path
    store: Path
    submission: Path
    scores: Path | None = None
    notice: str = ""
    training: TrainingData = field(default_factory=TrainingData)


@dataclass(frozen=True)
class LeaderboardRow:
    """One row of leaderboard.csv, without its rank.

    Missing numbers are NaN or None. See `columns` for the meaning of the fields that are not listed here.

    Attributes:
        details: Further scores that only some protocols and servers have, by column.
        same_as: For a published row, the model of the study that it belongs to. It is not in the file.
        training: What the model has seen of the split.
    """

    model: str
    dataset: str
    split: str
    protocol: str
    kind: Kind
    status: Status
    j_and_f: float = math.nan
    j: float = math.nan
    f: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    n_sequences: int | None = None
    n_expected: int | None = None
    n_objects: int | None = None
    n_objects_all: int | None = None
    speed: Speed = field(default_factory=Speed)
    source: str = ""
    behind_best: float = math.nan
    p_vs_best: float = math.nan
    note: str = ""
    details: Mapping[str, float] = field(default_factory=dict)
    same_as: str = ""
    training: TrainingData = field(default_factory=TrainingData)

    @property
    def key(self) -> BoardKey:
        """The key of the row's board."""
        return BoardKey(self.dataset, self.split, self.protocol)

    def cells(self) -> dict[str, Any]:
        """Return the values by column."""
        found = {name: getattr(self, name) for name in names(LEADERBOARD) if name != "rank" and hasattr(self, name)}
        found |= {"kind": self.kind.value, "status": self.status.value, "same_as": self.same_as}
        found |= {"seen": self.training.seen.value, "seen_data": "; ".join(self.training.reasons)}
        return {**found, **asdict(self.speed), **self.details}


def build_leaderboard(
    runs: Sequence[LocalRun], output: Path, server: Sequence[ServerRun] = (), titles: Titles = BY_NAME
) -> dict[str, pd.DataFrame]:
    """Write all tables as Parquet and CSV files, and leaderboard and speed as Markdown and LaTeX.

    Scores are in percent. Intervals are at 95 %, from a cluster bootstrap over sequences, paired between models. A
    metrics file that covers a part of its split gives a row with status `incomplete` and no rank. The same masks give
    the same bytes, except for the files of `speed` and `speed_by_objects`: only these have the speed of models that ran
    here.

    Args:
        runs: The runs that are measured here.
        output: The folder to write to.
        server: The runs that evaluation servers score.
        titles: Titles of models and datasets for LaTeX; the other files use the names from the config.

    Returns:
        The tables by name.

    Raises:
        DataError: The folder cannot be written to, or a scores file or published row is invalid.
    """
    check_folder(output)
    tables = _tables(runs, server)
    for name, table in tables.items():
        write_parquet(table, output / f"{name}.parquet")
        csv_table(table).to_csv(output / f"{name}.csv", index=False, float_format="%.6g")
    (output / "leaderboard.md").write_text(markdown(tables), encoding="utf-8")
    (output / "leaderboard.tex").write_text(latex(tables, titles), encoding="utf-8")
    (output / "speed.md").write_text(speed_markdown(tables["speed"], tables["speed_by_objects"]), encoding="utf-8")
    (output / "speed.tex").write_text(speed_latex(tables["speed"], titles), encoding="utf-8")
    return tables


def read_leaderboard(folder: Path) -> dict[str, pd.DataFrame]:
    """Read the tables that build_leaderboard wrote, by name.

    Raises:
        DataError: A table is missing or damaged; the error names it.
    """
    tables = {}
    for name in TABLES:
        file = folder / f"{name}.parquet"
        try:
            tables[name] = pd.read_parquet(io.BytesIO(read_sealed(file)))
        except DataError:
            raise DataError(f"{file} is missing or damaged; remove {folder} and run again") from None
    return tables


def write_parquet(table: pd.DataFrame, file: Path) -> None:
    """Write a sealed Parquet file, so that a changed bit is noticed when the file is read."""
    content = pa.Table.from_pandas(table, preserve_index=False)
    with atomic_path(file) as temporary:
        pq.write_table(
            content.replace_schema_metadata({**(content.schema.metadata or {}), "seal": SEAL}),
            temporary,
            compression="zstd",
        )
        seal(temporary)


def attributes_of(runs: Sequence[LocalRun]) -> tuple[dict[str, list[str]], bool]:
    """Return the attributes of the sequences of one split, and whether they were derived from the ground truth.

    They are derived if the dataset gives no attributes to any sequence (see attributes.derived_attributes).

    Args:
        runs: Runs on the same split.
    """
    table = read_table(runs[0].table)
    given = {record.sequence: list(record.attributes) for record in table}
    if any(given.values()):
        return given, False
    derived: dict[str, list[str]] = {}
    for metrics in read_metrics([run.metrics for run in runs], allow_incomplete=True):
        derived |= derived_attributes(metrics, table)
    return derived, True


def scores_of(runs: Sequence[LocalRun]) -> pd.DataFrame:
    """Return the table `leaderboard` with speeds, but without comparisons, which take long for many models.

    Args:
        runs: The runs that are measured here.
    """
    rows: list[LeaderboardRow] = []
    boards = _by_board(runs)
    for key, board_runs in boards.items():
        scored = {run.model: score(run.metrics, key.protocol, allow_incomplete=True) for run in board_runs}
        comparison, empty = Comparison(scored, {}), EmptyPrediction(key.protocol)
        rows += [_measured(run, key, scored[run.model], comparison, empty) for run in board_runs]
    published = (_published_row(found, runs) for found in published_scores({key[:2] for key in boards}))
    return _ranked([*rows, *(row for row in published if row.key in boards)]).drop(columns=["same_as"])


def _by_board(runs: Sequence[LocalRun]) -> dict[BoardKey, list[LocalRun]]:
    members: dict[BoardKey, list[LocalRun]] = {}
    for run in runs:
        for protocol in run.protocols:
            members.setdefault(BoardKey(run.dataset, run.split, protocol), []).append(run)
    return members


def _tables(runs: Sequence[LocalRun], server: Sequence[ServerRun]) -> dict[str, pd.DataFrame]:
    rows: list[LeaderboardRow] = []
    attributes: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    objects: list[pd.DataFrame] = []
    survivals: dict[Path, dict[tuple[str, int], Survival]] = {}
    for key, board_runs in _by_board(runs).items():
        scored = {run.model: score(run.metrics, key.protocol, allow_incomplete=True) for run in board_runs}
        of_sequences, derived = attributes_of(board_runs)
        comparison = Comparison(scored, of_sequences)
        differences = comparison.differences()
        empty = EmptyPrediction(key.protocol)
        scored = {run.model: _with_survival(run, scored[run.model], survivals) for run in board_runs}
        measured = [_measured(run, key, scored[run.model], comparison, empty) for run in board_runs]
        best = _best(measured)
        rows += _against_best(measured, best, differences)
        by_attribute = comparison.attributes(_references(board_runs, best))
        attributes += [{**key._asdict(), **asdict(row), "derived": derived} for row in by_attribute]
        comparisons += [{**key._asdict(), **asdict(row)} for row in differences]
        objects += [table for table in scored.values() if len(table)]
    rows += [_server_row(run) for run in server]
    boards = {row.key for row in rows}
    splits = {(key.dataset, key.split) for key in boards}
    published = [_published_row(found, [*runs, *server]) for found in published_scores(splits)]
    board, speed = split_speed(_ranked([*rows, *(row for row in published if row.key in boards)]))
    tables = {
        "leaderboard": board.drop(columns=["same_as"]),
        "speed": speed,
        "speed_by_objects": _frame(list(_speed_by_objects(runs, server)), TABLES["speed_by_objects"]),
        "sequences": _frame([], TABLES["sequences"]),
        "objects": _frame([], TABLES["objects"]),
        "survival": _frame([], TABLES["survival"]),
        "attributes": _frame(attributes, TABLES["attributes"]),
        "comparisons": _frame(comparisons, TABLES["comparisons"]),
        "reproduction": _frame(list(_reproduction(board)), TABLES["reproduction"]),
    }
    if objects:
        every = pd.concat(objects, ignore_index=True)
        keys = [*KEYS, "model", "sequence"]
        tables["objects"] = every[[*keys, *(column for column in every if column not in keys)]]
        tables["survival"] = _frame(_survival_curves(every), TABLES["survival"])
        tables["sequences"] = (
            every.groupby(keys, observed=True, sort=True)
            .agg(j_and_f=("j_and_f", "mean"), j=("j", "mean"), f=("f", "mean"), n_objects=("object_id", "size"))
            .reset_index()
        )
    return tables


def _speed_by_objects(runs: Sequence[LocalRun], server: Sequence[ServerRun]) -> Iterable[dict[str, Any]]:
    """Yield the rows of the table, without runs of bundles, whose manifests have no prompts."""
    local: list[LocalRun | ServerRun] = [run for run in runs if run.speed is None]
    for run in [*local, *server]:
        yield from speed_by_objects(run.dataset, run.split, run.model, run.store, run.table)


def _with_survival(
    run: LocalRun, objects: pd.DataFrame, found: dict[Path, dict[tuple[str, int], Survival]]
) -> pd.DataFrame:
    """Return the scores of objects with how long each was followed. `found` keeps what was read for other protocols."""
    if run.metrics not in found:
        (counts,) = read_metrics(run.metrics, allow_incomplete=True)
        found[run.metrics] = {
            (sequence.name, number): survival(rows)
            for sequence in counts.sequences
            for number, rows in sequence.objects.items()
        }
    lasted = [
        found[run.metrics].get(key, Survival(math.nan))
        for key in zip(objects["sequence"], objects["object_id"], strict=True)
    ]
    return objects.assign(
        survived=[100 * item.share for item in lasted], failure=[str(item.failure or "") for item in lasted]
    )


def _survival_curves(objects: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the share of objects that are not yet lost, for each twentieth of the frames after their first ones."""
    rows = []
    for key, group in objects.groupby([*KEYS, "model"], observed=True, sort=True):
        lasted = group["survived"].dropna()
        for part in range(0, 101, 5) if len(lasted) else ():
            share = 100 * float((lasted >= part).mean())
            rows.append({**dict(zip([*KEYS, "model"], key, strict=True)), "part": part, "share": share})
    return rows


class EmptyPrediction:
    """J&F of predicting nothing, under one protocol on one split.

    It follows from the ground truth's counts in any model's metrics file, and is computed once for the same sequences.

    Args:
        protocol: Name of the protocol.
    """

    def __init__(self, protocol: str) -> None:
        self._protocol = find_protocol(protocol)
        self._found: dict[frozenset[str], float] = {}

    def j_and_f(self, metrics: Path, sequences: Iterable[str]) -> float:
        """Return J&F of an empty prediction on the sequences that a metrics file has."""
        key = frozenset(sequences)
        if key not in self._found:
            (counts,) = read_metrics(metrics, allow_incomplete=True)
            self._found[key] = empty_score(counts, self._protocol)
        return self._found[key]


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    return table.reindex(columns=[*columns, *(column for column in table if column not in columns)])


def _measured(
    run: LocalRun, key: BoardKey, objects: pd.DataFrame, comparison: Comparison, empty: EmptyPrediction
) -> LeaderboardRow:
    on_disk, in_catalog = read_counts(run.table)
    missing = max((in_catalog or on_disk) - on_disk, 0)  # sequences of the split that are not on disk
    measured = read_metadata(run.metrics).sequences
    covered, expected = len(measured), len(read_table(run.table)) + missing
    known = {(name, number) for name, info in measured.items() for number in info.listed}
    unscored = known - set(zip(objects["sequence"], objects["object_id"], strict=True))
    means = summarise(objects).iloc[0].to_dict() if len(objects) else {}
    n_objects = int(means.pop("n_objects", 0))
    interval = comparison.interval(run.model)
    return LeaderboardRow(
        *(run.model, *key),
        kind=Kind.MEASURED,
        status=Status.COMPLETE if covered == expected else Status.INCOMPLETE,
        j_and_f=means.pop("j_and_f", math.nan),
        j=means.pop("j", math.nan),
        f=means.pop("f", math.nan),
        ci_low=interval.low,
        ci_high=interval.high,
        n_sequences=covered,
        n_expected=expected,
        n_objects=n_objects,
        n_objects_all=n_objects + len(unscored),
        speed=run.speed or measured_speed(run.store, run.table),
        training=run.training,
        details={
            **{name: value for name, value in means.items() if name not in names(LEADERBOARD)},
            "j_and_f_empty": empty.j_and_f(run.metrics, measured),
        },
    )


def _best(rows: Sequence[LeaderboardRow]) -> str:
    """Return the model of the best complete row of one board, or an empty text if no row is complete."""
    complete = [row for row in rows if row.status == Status.COMPLETE and not math.isnan(row.j_and_f)]
    return max(complete, key=lambda row: row.j_and_f).model if complete else ""


def _references(runs: Sequence[LocalRun], best: str) -> dict[str, tuple[str, Reference]]:
    """Return, by model, the one that it is compared with by attribute: where it was fine-tuned from, or the best."""
    models = {run.model for run in runs}
    found = {run.model: (best, Reference.BEST) for run in runs if best not in ("", run.model)}
    return found | {run.model: (run.origin, Reference.ORIGIN) for run in runs if run.origin in models}


def _against_best(
    rows: Sequence[LeaderboardRow], best: str, differences: Sequence[PairDifference]
) -> list[LeaderboardRow]:
    """Return the rows of one board with the distance to the best complete row and the paired p-value.

    Both are NaN for the best row.
    """
    compared = []
    overall = {(pair.model, pair.other): pair for pair in differences if pair.attribute == ALL}
    for row in rows:
        if pair := overall.get((best, row.model)):
            row = replace(row, behind_best=pair.difference, p_vs_best=pair.p_value)
        elif pair := overall.get((row.model, best)):
            row = replace(row, behind_best=-pair.difference, p_vs_best=pair.p_value)
        compared.append(row)
    return compared


def _server_row(run: ServerRun) -> LeaderboardRow:
    expected = len(read_table(run.table))
    row = LeaderboardRow(
        *(run.model, run.dataset, run.split, SERVER),
        kind=Kind.SERVER,
        status=Status.AWAITING_SERVER if run.submission.is_file() else Status.NO_SUBMISSION,
        n_expected=expected,
        speed=measured_speed(run.store, run.table),
        note=run.notice,
        training=run.training,
    )
    if not run.scores:
        return row
    answer = read_scores(run.scores)
    return replace(
        row,
        status=Status.COMPLETE,
        n_sequences=expected,
        j_and_f=answer.scores["j_and_f"],
        j=answer.scores["j"],
        f=answer.scores["f"],
        details={name: value for name, value in answer.scores.items() if name not in names(LEADERBOARD)},
        source=", ".join(filter(None, [answer.source or run.scores.name, answer.date])),
        note=answer.note,
    )


def _published_row(found: PublishedScore, runs: Sequence[LocalRun | ServerRun]) -> LeaderboardRow:
    same = [run for run in runs if (run.model, run.dataset, run.split) == (found.same_as, found.dataset, found.split)]
    return LeaderboardRow(
        *(found.model, found.dataset, found.split, found.protocol),
        kind=Kind.PUBLISHED,
        status=found.status,
        j_and_f=found.j_and_f,
        j=found.j,
        f=found.f,
        speed=Speed(fps=found.fps, device=found.device),
        source=found.source,
        note=found.note,
        same_as=found.same_as,
        training=same[0].training if same else TrainingData(),
    )


def _ranked(rows: Iterable[LeaderboardRow]) -> pd.DataFrame:
    """Return the rows sorted by board and J&F, with ranks among the complete rows that were not published.

    Equal scores share a rank.
    """
    columns = names(LEADERBOARD)
    board = _frame([row.cells() for row in rows], [*(name for name in columns if name != "rank"), "same_as"])
    board = board.sort_values([*KEYS, "j_and_f", "model"], ascending=[True] * 3 + [False, True], ignore_index=True)
    ranked = board[(board["status"] == Status.COMPLETE.value) & board["j_and_f"].notna()]
    scores = ranked["j_and_f"].round(6)  # equal masks may differ in the last bits of a mean
    board["rank"] = scores.groupby([ranked[key] for key in KEYS]).rank("min", ascending=False)
    for column in ("rank", "n_sequences", "n_expected", "n_objects", "n_objects_all"):
        board[column] = board[column].astype("Int64")
    return board[[*columns, *(column for column in board if column not in columns)]]


def _reproduction(board: pd.DataFrame) -> Iterable[dict[str, Any]]:
    """Yield the published rows that belong to a model of the study, with the difference once there is a score."""
    for _, published in board[board["same_as"] != ""].iterrows():
        rows = rows_of(board, published[KEYS].tolist())
        for _, row in rows[(rows["model"] == published["same_as"]) & (rows["kind"] != Kind.PUBLISHED.value)].iterrows():
            comparable = published["status"] == Status.PUBLISHED and row["status"] == Status.COMPLETE
            yield {
                **{name: published[name] for name in KEYS},
                "source": published["source"],
                "published": published["model"],
                "published_j_and_f": published["j_and_f"],
                "published_j": published["j"],
                "published_f": published["f"],
                **{name: row[name] for name in ("model", "kind", "status", "j_and_f", "j", "f")},
                "difference": row["j_and_f"] - published["j_and_f"] if comparable else math.nan,
            }
