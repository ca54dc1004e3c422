"""Read scores that others published from `catalog/published.csv`. Every row is checked and has a source.

Numbers that contradict each other (two papers, one model) are separate rows. A row whose (J + F) / 2 is not its J&F
keeps the published numbers, is marked `inconsistent`, and is left out of every ranking and difference. The published
numbers are repeated and not corrected.
"""

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vosarena.base.errors import DataError
from vosarena.config.catalogs import BUILT_IN
from vosarena.leaderboard.kinds import Status
from vosarena.leaderboard.score_checks import SCORES, check_range, decimals, is_consistent, parse_score

PUBLISHED = BUILT_IN / "published.csv"
_KEYS = ("model", "dataset", "split", "protocol", "source")


@dataclass(frozen=True)
class PublishedScore:
    """One published row.

    Attributes:
        model: Name of the model as published.
        dataset: Name of the dataset.
        split: Name of the split.
        protocol: Name of the protocol.
        j_and_f: J&F in percent.
        j: J in percent; NaN if not given.
        f: F in percent; NaN if not given.
        fps: Frames per second; NaN if not given.
        device: Hardware of the published run.
        source: Where the numbers were published.
        note: A remark, with the value of (J + F) / 2 if the row is inconsistent.
        same_as: The model of the catalog that is the same, if any.
        status: PUBLISHED or INCONSISTENT.
        checkpoint: `paper` or `released`, where the source or its authors say which of them it is.
        n_sequences: Number of scored sequences, where the source states it.
        frame_rate: Frames per second of the videos, where the source states it; NaN if not.
    """

    model: str
    dataset: str
    split: str
    protocol: str
    j_and_f: float
    j: float
    f: float
    fps: float
    device: str
    source: str
    note: str
    same_as: str
    status: Status
    checkpoint: str = ""
    n_sequences: int | None = None
    frame_rate: float = math.nan


def published_scores(splits: Iterable[tuple[str, str]], file: Path = PUBLISHED) -> list[PublishedScore]:
    """Return the published rows of the given splits.

    Args:
        splits: (dataset, split) pairs.
        file: The table of published rows.

    Raises:
        DataError: A row of the file has an invalid score, has no source, or is a duplicate.
    """
    wanted = set(splits)
    return [score for score in _read(file) if (score.dataset, score.split) in wanted]


def _read(file: Path) -> Iterator[PublishedScore]:
    seen: dict[tuple[str, ...], int] = {}
    with file.open(newline="") as lines:
        for number, line in enumerate(csv.DictReader(lines), 2):
            where = f"{file}, line {number}"
            key = tuple(line[name] for name in _KEYS)
            if key in seen:
                raise DataError(f"{where}: {line['model']} is already in line {seen[key]} with the same source")
            seen[key] = number
            if not line["source"]:
                raise DataError(f"{where}: {line['model']} has no source; say where the numbers were published")
            yield _parse(line, where)


def _parse(line: dict[str, str], where: str) -> PublishedScore:
    scores = {name: parse_score(line[name], where, name) for name in (*SCORES, "fps")}
    check_range(scores, where)
    note, status = line["note"], Status.PUBLISHED
    if not is_consistent(scores, {name: decimals(line[name]) for name in SCORES}):
        mean = (scores["j"] + scores["f"]) / 2
        note, status = "; ".join([*filter(None, [note]), f"(J+F)/2 is {mean:.2f}"]), Status.INCONSISTENT
    return PublishedScore(
        model=line["model"],
        dataset=line["dataset"],
        split=line["split"],
        protocol=line["protocol"],
        j_and_f=scores["j_and_f"],
        j=scores["j"],
        f=scores["f"],
        fps=scores["fps"],
        device=line["hardware"],
        source=line["source"],
        note=note,
        same_as=line["same_as"],
        status=status,
        checkpoint=line.get("checkpoint") or "",
        n_sequences=int(line["n_sequences"]) if line.get("n_sequences") else None,
        frame_rate=parse_score(line.get("frame_rate") or "", where, "frame_rate"),
    )
