"""The leaderboard as text: Markdown for people, LaTeX (booktabs) for papers."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd

from vosarena.reporting.matrix import footnote, matrices, spans
from vosarena.reporting.statistics import FEWEST
from vosarena.scoring.protocols import PROTOCOLS, find_protocol

Cell = Callable[[pd.Series], str]


def _number(column: str, form: str = "{:.1f}") -> Cell:
    return lambda row: "" if column not in row or pd.isna(row[column]) else form.format(row[column])


def _text(column: str) -> Cell:
    return lambda row: "" if column not in row or pd.isna(row[column]) else str(row[column])


def _interval(row: pd.Series) -> str:
    return "" if pd.isna(row["ci_low"]) else f"{row['ci_low']:.1f} to {row['ci_high']:.1f}"


def _coverage(row: pd.Series) -> str:
    if pd.isna(row["n_expected"]):
        return ""
    covered = 0 if pd.isna(row["n_sequences"]) else row["n_sequences"]
    return f"{covered}/{row['n_expected']}" + (" incomplete" if row["status"] == "incomplete" else "")


def _objects(row: pd.Series) -> str:
    if "n_objects" not in row or pd.isna(row["n_objects"]):
        return ""
    every = row.get("n_objects_all", row["n_objects"])
    return str(row["n_objects"]) + (f"/{every}" if pd.notna(every) and every > row["n_objects"] else "")


def _p_value(row: pd.Series) -> str:
    value = row["p_vs_best"]
    return "" if pd.isna(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _kind(row: pd.Series) -> str:
    return row["status"] if row["status"] not in ("complete", "published", "incomplete") else row["kind"]


# Title, cell and whether LaTeX tables have it; a column that is empty in every row is left out.
_COLUMNS: tuple[tuple[str, Cell, bool], ...] = (
    ("rank", _number("rank", "{}"), False),
    ("model", _text("model"), True),
    ("kind", _kind, True),
    ("J&F", _number("j_and_f"), True),
    ("95% interval", _interval, True),
    ("J", _number("j"), True),
    ("F", _number("f"), True),
    ("J recall", _number("j_recall"), False),
    ("J decay", _number("j_decay"), False),
    ("F recall", _number("f_recall"), False),
    ("F decay", _number("f_decay"), False),
    ("J seen", _number("j_seen"), True),
    ("F seen", _number("f_seen"), True),
    ("J unseen", _number("j_unseen"), True),
    ("F unseen", _number("f_unseen"), True),
    ("behind best", _number("behind_best"), False),
    ("p", _p_value, True),
    ("sequences", _coverage, True),
    ("objects", _objects, False),
    ("fps", _number("fps"), True),
    ("peak MB", _number("peak_memory_mb", "{:.0f}"), False),
    ("device", _text("device"), False),
    ("source", _text("source"), False),
    ("note", _text("note"), False),
)
_REPRODUCED: tuple[tuple[str, Cell, bool], ...] = (
    ("published as", _text("published"), True),
    ("published J&F", _number("published_j_and_f", "{:.2f}"), True),
    ("model", _text("model"), True),
    ("J&F", _number("j_and_f", "{:.2f}"), True),
    ("difference", _number("difference", "{:+.2f}"), True),
    ("state", _kind, True),
    ("source", _text("source"), False),
)
_EXPLAINED = (
    f"Intervals: 95 %, bootstrap over sequences; none and no p below {FEWEST} sequences (of five, p cannot fall below "
    "0.06). `behind best` and `p` (permutation test): paired with the best complete measured row. "
    "Published and incomplete rows are not ranked."
)


def markdown(tables: Mapping[str, pd.DataFrame]) -> str:
    """The leaderboard for people: models beside splits, each split and protocol, what was published beside what came
    out."""
    parts = ["# Leaderboard\n"]
    for title, shown in matrices(tables["leaderboard"]):
        flat = shown.set_axis([" ".join(filter(None, names)) for names in shown.columns], axis=1)
        parts.append(f"## {title}\n\n{flat.to_markdown(index=False, disable_numparse=True)}\n")
        if note := footnote(shown):
            parts.append(f"\\{note}\n")  # else a star begins a list
    for place, board in _places(tables["leaderboard"]):
        parts.append(f"## {place}\n\n{_shown(board, _COLUMNS).to_markdown(index=False, disable_numparse=True)}\n")
        if note := unscored(board):
            parts.append(f"{note}\n")
    for place, board in _places(tables["reproduction"]):
        shown = _shown(board, _REPRODUCED).to_markdown(index=False, disable_numparse=True)
        parts.append(f"## Published and here: {place}\n\n{shown}\n")
    return "\n".join([*parts, f"{_EXPLAINED}\n"])


def latex(tables: Mapping[str, pd.DataFrame]) -> str:
    r"""The same as LaTeX tables, one \begin{table} each; the document needs \usepackage{booktabs}.

    The best ranked score of each column is bold, published rows are italic.
    """
    parts = [r"% needs \usepackage{booktabs}"]
    for title, shown in matrices(tables["leaderboard"]):
        caption = ". ".join(filter(None, [title, footnote(shown)]))
        parts.append(_tabular(shown, _best(shown), caption, f"matrix:{title.rpartition(' ')[2]}"))
    for place, board in _places(tables["leaderboard"]):
        shown = _shown(board, [column for column in _COLUMNS if column[2]])
        parts.append(
            _tabular(
                shown, _styles(shown, board), ". ".join(filter(None, [place, unscored(board)])), f"leaderboard:{place}"
            )
        )
    for place, board in _places(tables["reproduction"]):
        shown = _shown(board, [column for column in _REPRODUCED if column[2]])
        parts.append(_tabular(shown, shown.map(lambda _: ""), f"Published and here: {place}", f"reproduction:{place}"))
    return "\n\n".join(parts) + "\n"


def unscored(board: pd.DataFrame) -> str:
    """Footnote on the objects that the protocol of a board does not score; empty if it scores all. One place's rows."""
    own = board[board["kind"] == "measured"]
    missing = own["n_objects_all"] - own["n_objects"]
    if not missing.sum():
        return ""
    count, every = int(missing.max()), int(own["n_objects_all"].max())
    protocol = find_protocol(str(own["protocol"].iloc[0]))
    others = ", ".join(item.name for item in PROTOCOLS.values() if item.late_objects and not item.repeats_peer)
    why = f"no frame that {protocol.name} scores has {'it' if count == 1 else 'them'}"
    if not protocol.late_objects:
        why = f"{protocol.name} scores none that appears after the first frame; {others} do"
    return f"{count} of {every} objects {'is' if count == 1 else 'are'} not scored: {why}."


def _best(shown: pd.DataFrame) -> pd.DataFrame:
    """LaTeX command of every cell of a matrix."""
    styles = shown.map(lambda _: "")
    published = shown["", "kind"] == "published" if ("", "kind") in shown else pd.Series(False, shown.index)
    for column in shown.columns:
        scores = pd.to_numeric(shown[column].mask(published), errors="coerce")  # marked ones are not numbers
        if column[0]:
            styles.loc[scores.notna() & (scores == scores.max()), column] = r"\textbf"
    styles.loc[published] = r"\textit"
    return styles


def _places(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for (dataset, split, protocol), board in table.groupby(["dataset", "split", "protocol"], sort=True):
        yield f"{dataset}/{split}, protocol {protocol}", board


def _shown(board: pd.DataFrame, columns: Any) -> pd.DataFrame:
    cells = {title: [cell(row) for _, row in board.iterrows()] for title, cell, _ in columns}
    if set(cells.get("kind", ())) == {"measured"}:
        del cells["kind"]  # it tells nothing
    return pd.DataFrame({title: column for title, column in cells.items() if any(column)})


def _styles(shown: pd.DataFrame, board: pd.DataFrame) -> pd.DataFrame:
    """LaTeX command of every cell, or none: as it is shown, so that equal numbers are all bold."""
    styles = shown.map(lambda _: "")
    ranked = board["rank"].notna().to_numpy()
    for title in {"J&F", "J", "F"} & set(shown):
        scores = pd.to_numeric(shown[title].where(ranked), errors="coerce")
        styles.loc[scores.notna() & (scores == scores.max()), title] = r"\textbf"
    styles.loc[(board["kind"] == "published").to_numpy()] = r"\textit"
    return styles


def _tabular(shown: pd.DataFrame, styles: pd.DataFrame, caption: str, label: str) -> str:
    """shown: its columns may have two levels, of which the first spans several columns."""
    if shown.columns.nlevels == 1:
        shown = shown.set_axis(pd.MultiIndex.from_product([[""], shown.columns]), axis=1)
    titles = [title for _, title in shown.columns]
    numeric = [title not in ("model", "kind", "published as", "state") for title in titles]
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{_escape(caption)}}}",
        rf"\label{{{''.join(c if c.isalnum() or c in ':-' else '-' for c in label)}}}",
        rf"\begin{{tabular}}{{@{{}}{''.join('r' if right else 'l' for right in numeric)}@{{}}}}",
        r"\toprule",
        *_groups(shown),
        " & ".join(map(_escape, titles)) + r" \\",
        r"\midrule",
    ]
    for row, commands in zip(shown.to_numpy(), styles.to_numpy(), strict=True):
        cells = zip(map(_escape, row), commands, strict=True)
        lines.append(
            " & ".join(f"{command}{{{cell}}}" if command and cell else cell for cell, command in cells) + r" \\"
        )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def _groups(shown: pd.DataFrame) -> Iterator[str]:
    """The line above the titles of columns that belong together, and the rules under it; nothing if none do."""
    cells, rules, end = [], [], 0
    for group, count in spans(shown):
        cells.append(rf"\multicolumn{{{count}}}{{c}}{{{_escape(group)}}}" if group else " &" * (count - 1))
        if group:
            rules.append(rf"\cmidrule(lr){{{end + 1}-{end + count}}}")
        end += count
    if rules:
        yield " & ".join(cells) + r" \\"
        yield " ".join(rules)


_ESCAPES = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
})  # fmt: skip


def _escape(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return str(text).translate(_ESCAPES)
