"""Scores of objects under a protocol, and their means, from the counts of metrics files. All are in percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vosarena.base.errors import DataError
from vosarena.metrics.counts import Floats
from vosarena.metrics.protocols import MEANS, Protocol, find_protocol
from vosarena.metrics.read import Metrics, read_metrics
from vosarena.metrics.records import SequenceScore

if TYPE_CHECKING:
    import pandas as pd

    from vosarena.metrics.read import Source

KEYS = ("dataset", "split", "model", "protocol")  # columns that say what a score belongs to
_FIRST_COLUMNS = (*KEYS, "sequence", "object_id", "n_frames", "j_and_f", "j", "f")
_PARTS = ("_visible", "_absent")  # ends of the names of columns that objects may lack


def score(source: Source, protocol: str, *, allow_incomplete: bool = False) -> pd.DataFrame:
    """Score every object of metrics files.

    Args:
        source: Parquet files of `measure`, or a DataFrame of their rows.
        protocol: Name of the protocol.
        allow_incomplete: Accept files without the sequences that could not be counted.

    Returns:
        One row per (dataset, split, model, sequence, object_id), in percent. Columns: dataset, split, model,
        protocol, sequence, object_id, n_frames (scored frames), j_and_f, j, f, those of the protocol: j_recall,
        j_decay, f_recall, f_decay (davis2017); v, unseen (lvos); unseen (youtube-vos); f_plain, j_and_f_plain,
        j_disappear, ... (mosev2, whose f is F-dot); and j_visible, f_visible, j_absent, f_absent, the means over the
        scored frames in which the object is there and in which it is not (NaN if there are none).

    Raises:
        ConfigError: The protocol is unknown.
        DataError: A file is damaged or incomplete.
    """
    import pandas as pd

    found = find_protocol(protocol)
    tables = [
        score_table(score_metrics(metrics, found), metrics, found)
        for metrics in read_metrics(source, allow_incomplete=allow_incomplete)
    ]
    return pd.concat(tables, ignore_index=True)


def score_metrics(metrics: Metrics, protocol: Protocol) -> list[SequenceScore]:
    """Score every object of one model. Raises DataError if the protocol needs counts that are missing."""
    if protocol.adaptive and not metrics.adaptive:
        raise DataError(
            f"{metrics.model}: protocol {protocol.name} needs counts with adaptive tolerance; measure again"
        )
    return [scored for sequence in metrics.sequences for scored in protocol.score(sequence)]


def empty_score(metrics: Metrics, protocol: Protocol) -> float:
    """J&F of a prediction without any object on the sequences of `metrics`; NaN if nothing is scored.

    Where objects are absent, a protocol that averages over frames gives points for predicting nothing.
    """
    sequences = tuple(
        replace(sequence, objects={i: rows.without_prediction() for i, rows in sequence.objects.items()})
        for sequence in metrics.sequences
    )
    summary = summarise_scores(score_metrics(replace(metrics, sequences=sequences), protocol), protocol)
    return summary.get("j_and_f", float("nan"))


def score_table(scores: Sequence[SequenceScore], metrics: Metrics, protocol: Protocol) -> pd.DataFrame:
    """Scores as a table with the columns that `score` describes."""
    import pandas as pd

    labels = dict(zip(KEYS, (metrics.dataset, metrics.split, metrics.model, protocol.name), strict=True))
    rows = [{**labels, **scored.columns()} for scored in scores]
    return pd.DataFrame(rows, columns=None if rows else list(_FIRST_COLUMNS))


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Average the rows of `score` over objects, in percent.

    Returns:
        One row per (dataset, split, model, protocol). Columns: n_sequences and n_objects that were scored, j_and_f,
        j, f, and the means of the protocol's own columns. If some objects are unseen, j, f and v are the averages of
        the two parts, which are in j_seen, j_unseen and so on.
    """
    import pandas as pd

    rows = []
    for key, group in scores.groupby(list(KEYS), sort=True):
        values = {name: group[name].to_numpy(np.float64) for name in group.columns if name in MEANS}
        unseen = group["unseen"].tolist() if "unseen" in group.columns else None
        means = _means(values, unseen, find_protocol(str(key[3])))
        labels = dict(zip(KEYS, key, strict=True))
        rows.append({**labels, "n_sequences": group["sequence"].nunique(), "n_objects": len(group), **means})
    empty = [*KEYS, "n_sequences", "n_objects", "j_and_f", "j", "f"]
    return pd.DataFrame(rows, columns=None if rows else empty)


def summarise_scores(scores: Sequence[SequenceScore], protocol: Protocol) -> dict[str, float]:
    """The same averages of scores of one model, by column; only the two numbers if there are no scores."""
    summary: dict[str, float] = {"n_sequences": len({item.sequence for item in scores}), "n_objects": len(scores)}
    if not scores:
        return summary
    rows = [item.columns() for item in scores]
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name in MEANS]
    values = {name: np.array([row.get(name, np.nan) for row in rows], np.float64) for name in names}
    unseen = [row.get("unseen") for row in rows] if any("unseen" in row for row in rows) else None
    return summary | _means(values, unseen, protocol)


def _means(values: Mapping[str, Floats], unseen: Sequence[Any] | None, protocol: Protocol) -> dict[str, float]:
    """Averages of columns over objects. Objects without a value (NaN) do not count.

    The protocols that repeat another evaluator have NaN where its mean is NaN: if the decay of one object is, and if no
    object is seen, or none is unseen. If all objects are visible in all scored frames, j_visible and f_visible only
    repeat j and f and are left out.
    """
    strict = [name for name in values if protocol.repeats_peer and not name.endswith(_PARTS)]
    values = {name: column for name, column in values.items() if name in strict or not np.isnan(column).all()}
    if "j_absent" not in values:
        values = {name: column for name, column in values.items() if not name.endswith("_visible")}
    means = {name: float(np.mean(column)) if name in strict else _mean(column) for name, column in values.items()}
    if protocol.split_mean and unseen is not None:
        means |= _split_means(values, unseen, 2 if protocol.repeats_peer else 1)
    j, f = means.pop("j"), means.pop("f")
    summary = {"j_and_f": (j + f) / 2, "j": j, "f": f}
    for kind in ("plain", "disappear", "reappear", "visible", "absent"):
        if f"f_{kind}" in means:
            means[f"j_and_f_{kind}"] = (means.get(f"j_{kind}", j) + means[f"f_{kind}"]) / 2
    return summary | means


def _mean(values: Floats) -> float:
    """Mean of the values that are not NaN, summed as numpy does."""
    return float(np.mean(values[~np.isnan(values)]))


def _split_means(values: Mapping[str, Floats], unseen: Sequence[Any], needed: int) -> dict[str, float]:
    """Means over seen and over unseen objects, and their average; nothing if it is not known what is unseen.

    The average is NaN with fewer than `needed` of the two parts.
    """
    if all(part is None or part != part for part in unseen):
        return {}
    is_unseen = np.array([part is True or part == 1 for part in unseen], bool)
    result: dict[str, float] = {}
    for name, column in values.items():
        parts = {"seen": column[~is_unseen], "unseen": column[is_unseen]}
        means = {part: _mean(items) for part, items in parts.items() if not np.isnan(items).all()}
        if not name.endswith(_PARTS):
            result |= {f"{name}_{part}": value for part, value in means.items()}
            result[name] = float(sum(means.values()) / len(means)) if len(means) >= needed else float("nan")
    return result
