"""Scores in the files of the official scripts: fractions with three decimals, under the scripts' names."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vosarena.base.errors import ConfigError

if TYPE_CHECKING:
    from vosarena.metrics.evaluate import Evaluation

_DAVIS = {
    "J&F-Mean": "j_and_f",
    **{f"{side.upper()}-{title}": f"{side}{end}" for side in "jf" for title, end in
       (("Mean", ""), ("Recall", "_recall"), ("Decay", "_decay"))},
}  # fmt: skip
_VOST = {
    f"{title}-{kind}": f"{name}{end}" for title, name in (("J", "j"), ("J_last", "j_last"))
    for kind, end in (("Mean", ""), ("Recall", "_recall"), ("Decay", "_decay"))
}  # fmt: skip
_LVOS = {
    "J&F-Mean": "j_and_f",
    **{f"{side.upper()}{part}-Mean": f"{side}{part.replace('-', '_')}" for side in "jfv"
       for part in ("", "-seen", "-unseen")},
}  # fmt: skip

#: By protocol: names in the file of global results, and in that of results per object, each with our column.
FORMS = {
    "davis2017": (_DAVIS, {"J-Mean": "j", "F-Mean": "f"}),
    "davis2017-official": (_DAVIS, {"J-Mean": "j", "F-Mean": "f"}),
    "vost": (_VOST, {"J-Mean": "j", "J_last-Mean": "j_last"}),
    "lvos": (_LVOS, {"J-Mean": "j", "F-Mean": "f", "V-Mean": "v"}),
    "lvos-official": (_LVOS, {"J-Mean": "j", "F-Mean": "f", "V-Mean": "v"}),
}


def check_form(protocol: str) -> None:
    """Raise ConfigError if the official script of a protocol writes no such files."""
    if protocol not in FORMS:
        raise ConfigError(f"protocol {protocol} has no official CSV files; use one of {', '.join(FORMS)}, or --output")


def write_official_csv(evaluation: Evaluation, folder: Path, split: str) -> None:
    """Write `global_results-<split>.csv` and `per-sequence_results-<split>.csv`, as the official script does.

    Args:
        evaluation: Scores under a protocol of FORMS.
        folder: The folder to write to.
        split: Name of the set in the names of the files.

    Raises:
        ConfigError: The protocol has no such files.
    """
    from vosarena.base.files import atomic_path

    check_form(evaluation.protocol)
    whole, of_objects = FORMS[evaluation.protocol]
    summary = [evaluation.summary.get(column, float("nan")) for column in whole.values()]
    rows = []
    for item in evaluation.scores:
        columns = item.columns()
        rows.append([f"{item.sequence}_{item.object_id}", *_fractions([columns[name] for name in of_objects.values()])])
    tables = {
        f"global_results-{split}.csv": ([*whole], [_fractions(summary)]),
        f"per-sequence_results-{split}.csv": (["Sequence", *of_objects], rows),
    }
    for name, (heading, lines) in tables.items():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([heading, *lines])
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")


def _fractions(percent: Sequence[float]) -> list[str]:
    """Percentages as the scripts write them; an undefined number is an empty cell, as pandas writes NaN."""
    return ["" if value != value else f"{value / 100:.3f}" for value in percent]
