"""The leaderboard as LaTeX (booktabs) for papers: models beside splits, each split, attributes, what was published."""

from collections.abc import Iterator, Mapping

import pandas as pd

from vosarena.base.escaping import latex_text
from vosarena.leaderboard.cross_dataset import footnote, matrices, spans
from vosarena.leaderboard.tables import (
    COLUMNS,
    REPRODUCED,
    at_places,
    attribute_tables,
    shown_cells,
    unscored,
)
from vosarena.leaderboard.titles import Titles

_TEXTS = ("model", "kind", "published as", "state", "attribute")  # columns of words, aligned to the left
_BEST, _SECOND, _PUBLISHED = r"\textbf", r"\underline", r"\textit"


def latex(tables: Mapping[str, pd.DataFrame], titles: Titles) -> str:
    r"""All tables, one \begin{table} each; the document needs \usepackage{booktabs}.

    The best ranked score of each column is bold, the second best underlined; published rows are italic.
    """
    board = _titled(tables["leaderboard"], titles)
    parts = [r"% needs \usepackage{booktabs}"]
    for title, shown in matrices(board, titles.split):
        label = f"matrix:{title.rpartition(' ')[2]}"
        parts.append(_tabular(shown, _of_matrix(shown), _sentences(title, footnote(shown)), label))
    for place, rows in at_places(board):
        shown = shown_cells(rows, [column for column in COLUMNS if column[2]])
        caption = _sentences(_place(place, titles), unscored(rows).rstrip("."), _explained(shown))
        parts.append(_tabular(shown, _of_board(shown, rows), caption, _label("leaderboard", place)))
    for place, shown, note in attribute_tables(_titled(tables["attributes"], titles)):
        caption = _sentences(f"{_place(place, titles)}: J&F by attribute", note)
        parts.append(_tabular(shown, _of_attributes(shown), caption, _label("attributes", place)))
    for place, rows in at_places(_titled(tables["reproduction"], titles)):
        shown = shown_cells(rows, [column for column in REPRODUCED if column[2]])
        caption = f"Published and here: {_place(place, titles)}"
        parts.append(_tabular(shown, shown.map(lambda _: ""), caption, _label("reproduction", place)))
    return "\n\n".join(parts) + "\n"


def _titled(table: pd.DataFrame, titles: Titles) -> pd.DataFrame:
    """With the titles of models that were run here; published rows have the names that their papers gave them."""
    named = table["model"].map(titles.model)
    return table.assign(model=named.where(table["kind"] != "published", table["model"]) if "kind" in table else named)


def _place(place: tuple[str, str, str], titles: Titles) -> str:
    return f"{titles.split(*place[:2])}, protocol {place[2]}"


def _sentences(*parts: str) -> str:
    return ". ".join(filter(None, parts))


def _explained(shown: pd.DataFrame) -> str:
    """What intervals and p mean, where a table has them."""
    known = {
        "95% interval": "Intervals: bootstrap over sequences",
        "p": "p: permutation test against the best",
    }
    return _sentences(*(words for title, words in known.items() if title in shown))


def _label(kind: str, place: tuple[str, str, str]) -> str:
    return f"{kind}:{place[0]}-{place[1]}-{place[2]}"


def _marked(styles: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Styles with the best and, of three or more, the second best of each column as it is shown: equal ones are all."""
    for column in scores:
        numbers = pd.to_numeric(scores[column], errors="coerce")  # marked ones are no numbers
        ranks = numbers.rank(method="dense", ascending=False)
        styles.loc[ranks.index[ranks == 1], column] = _BEST
        if numbers.count() > 2:
            styles.loc[ranks.index[ranks == 2], column] = _SECOND
    return styles


def _of_matrix(shown: pd.DataFrame) -> pd.DataFrame:
    """LaTeX command of every cell of a matrix."""
    published = shown["", "kind"] == "published" if ("", "kind") in shown else pd.Series(False, shown.index)
    scores = shown[[column for column in shown if column[0]]]
    styles = _marked(shown.map(lambda _: ""), scores.mask(published))
    styles.loc[published] = _PUBLISHED
    return styles


def _of_board(shown: pd.DataFrame, board: pd.DataFrame) -> pd.DataFrame:
    """The same of a split's table."""
    unranked = shown.index[board["rank"].isna()]
    scores = shown[[title for title in ("J&F", "J", "F") if title in shown]].drop(unranked)
    styles = _marked(shown.map(lambda _: ""), scores)
    styles.loc[(board["kind"] == "published").to_numpy()] = _PUBLISHED
    return styles


def _of_attributes(shown: pd.DataFrame) -> pd.DataFrame:
    """The same of a table with a row for each attribute and a column for each model."""
    models = shown.drop(columns=["attribute", "sequences"])
    return _marked(models.T.map(lambda _: ""), models.T).T.reindex(columns=shown.columns, fill_value="")


def _tabular(shown: pd.DataFrame, styles: pd.DataFrame, caption: str, label: str) -> str:
    """shown: its columns may have two levels, of which the first spans several columns."""
    if shown.columns.nlevels == 1:
        shown = shown.set_axis(pd.MultiIndex.from_product([[""], shown.columns]), axis=1)
    titles = [title for _, title in shown.columns]
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\label{{{''.join(c if (c.isascii() and c.isalnum()) or c in ':-' else '-' for c in label)}}}",
        rf"\begin{{tabular}}{{@{{}}{''.join('l' if title in _TEXTS else 'r' for title in titles)}@{{}}}}",
        r"\toprule",
        *_groups(shown),
        " & ".join(map(latex_text, titles)) + r" \\",
        r"\midrule",
    ]
    for row, commands in zip(shown.to_numpy(), styles.to_numpy(), strict=True):
        cells = zip(map(latex_text, row), commands, strict=True)
        line = " & ".join(f"{command}{{{cell}}}" if command and cell else cell for cell, command in cells)
        start = "{}" if line.startswith(("[", "*")) else ""  # else an argument of the line above
        lines.append(rf"{start}{line} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def _groups(shown: pd.DataFrame) -> Iterator[str]:
    """The line above the titles of columns that belong together, and the rules under it; nothing if none do."""
    cells, rules, end = [], [], 0
    for group, count in spans(shown):
        cells.append(rf"\multicolumn{{{count}}}{{c}}{{{latex_text(group)}}}" if group else " &" * (count - 1))
        if group:
            rules.append(rf"\cmidrule(lr){{{end + 1}-{end + count}}}")
        end += count
    if rules:
        yield " & ".join(cells) + r" \\"
        yield " ".join(rules)
