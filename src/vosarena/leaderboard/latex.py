"""Write the leaderboard as LaTeX (booktabs) for papers: models by split, each board, attributes, and reproduction."""

import re
from collections.abc import Iterator, Mapping

import pandas as pd

from vosarena.base.escaping import latex_text
from vosarena.config.titles import Titles
from vosarena.leaderboard.boards import BoardKey, board_keys, rows_of
from vosarena.leaderboard.columns import LEADERBOARD, REPRODUCTION, SPEED, Shown, columns_for, shown_cells
from vosarena.leaderboard.cross_dataset import column_groups, cross_dataset_tables, footnote
from vosarena.leaderboard.kinds import Kind
from vosarena.leaderboard.tables import attribute_tables, empty_note, unscored_note

# Properties of pandas' Styler: a LaTeX command around the cell.
_BEST, _SECOND, _PUBLISHED = "textbf:--rwrap;", "underline:--rwrap;", "textit:--rwrap;"
_SCORE = next(column for column in LEADERBOARD if column.name == "j_and_f")
_INTERVAL = next(column.title for column in LEADERBOARD if column.name == "ci_low")
_NARROW = ("model", _SCORE.title, "J", "F")  # what fits one column of a page with two
_LEFT = {"attribute", *(column.title for column in (*LEADERBOARD, *REPRODUCTION) if column.words)}


def latex(tables: Mapping[str, pd.DataFrame], titles: Titles) -> str:
    r"""Return all tables as LaTeX, each in a table environment.

    The document needs \usepackage{booktabs}. Each board has a table for one column of a page, with model and scores,
    and one for the whole width, with all columns. The best ranked score of each column is bold and the second best is
    underlined. Published rows are italic.

    Args:
        tables: The tables by name, as returned by build_leaderboard.
        titles: Titles of models and datasets.
    """
    board = _with_titles(tables["leaderboard"], titles)
    keys = board_keys(board)

    def name(key: BoardKey) -> str:
        """Return the title of a split, with the protocol only if it has several."""
        several = sum(other[:2] == key[:2] for other in keys) > 1
        return titles.split(key.dataset, key.split) + (f", protocol {key.protocol}" if several else "")

    parts = [r"% needs \usepackage{booktabs}"]
    for title, shown in cross_dataset_tables(board, titles.split):
        label = f"matrix:{title.rpartition(' ')[2]}"
        parts.append(_table(shown, _cross_dataset_styles(shown), _sentences(title, footnote(shown)), label))
    for key in keys:
        rows = rows_of(board, key)
        plain = shown_cells(rows, columns_for(LEADERBOARD, Shown.LATEX))
        notes = (note.rstrip(".") for note in (unscored_note(rows), empty_note(rows)))
        shown, styles = _with_intervals(plain, rows), _board_styles(plain, rows)
        narrow = [title for title in shown if title in _NARROW]
        caption = _sentences(name(key), *notes, _explained(plain[[title for title in plain if title != "p"]]))
        parts.append(_table(shown[narrow], styles[narrow], caption, _label("leaderboard", key)))
        caption = _sentences(name(key), *notes, _explained(plain))
        label = _label("leaderboard-wide", key)
        parts.append(_table(shown, styles[list(shown)], caption, label, environment="table*"))
    for key, shown, note in attribute_tables(_with_titles(tables["attributes"], titles)):
        caption = _sentences(f"{name(key)}: J&F by attribute", note)
        parts.append(_table(shown, _attribute_styles(shown), caption, _label("attributes", key)))
    reproduction = _with_titles(tables["reproduction"], titles)
    for key in board_keys(reproduction):
        shown = shown_cells(rows_of(reproduction, key), columns_for(REPRODUCTION, Shown.LATEX))
        caption = f"Published and reproduced: {name(key)}"
        parts.append(_table(shown, shown.map(lambda _: ""), caption, _label("reproduction", key)))
    return "\n\n".join(parts) + "\n"


def speed_latex(speed: pd.DataFrame, titles: Titles) -> str:
    """Return the table `speed` as LaTeX, one table for each split.

    Args:
        speed: The table.
        titles: Titles of models and datasets.
    """
    parts = []
    for (dataset, split), rows in _with_titles(speed, titles).groupby(["dataset", "split"], sort=True):
        shown = shown_cells(rows, SPEED[2:])
        caption = _sentences(f"{titles.split(dataset, split)}: speed", SPEED[3].description)
        parts.append(_table(shown, shown.map(lambda _: ""), caption, f"speed:{dataset}-{split}"))
    return "\n\n".join([r"% needs \usepackage{booktabs}", *parts]) + "\n"


def _with_titles(table: pd.DataFrame, titles: Titles) -> pd.DataFrame:
    """Return the table with the titles of the study's models. Published rows keep the names from their papers."""
    named = table["model"].map(titles.model)
    if "kind" in table:
        named = named.where(table["kind"] != Kind.PUBLISHED.value, table["model"])
    return table.assign(model=named)


def _with_intervals(shown: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the cells with the interval next to its score instead of in a column of its own."""
    if _INTERVAL not in shown:
        return shown
    scores = [_SCORE.page_text(row) for _, row in rows.iterrows()]
    return shown.assign(**{_SCORE.title: scores}).drop(columns=_INTERVAL)


def _sentences(*parts: str) -> str:
    return ". ".join(filter(None, parts))


def _explained(shown: pd.DataFrame) -> str:
    """Explain intervals and p-values, if the table has them."""
    notes = {
        _INTERVAL: "Intervals: bootstrap over sequences",
        "p": "p: paired permutation test against the best model",
    }
    return _sentences(*(note for title, note in notes.items() if title in shown))


def _label(kind: str, key: BoardKey) -> str:
    return f"{kind}:{'-'.join(key)}"


def _best_styles(scores: pd.DataFrame) -> pd.DataFrame:
    """Return styles for the best and the second best score of each column, compared as shown.

    Equal scores have the same style. The second best is marked only if a column has three or more scores.
    """
    styles = scores.map(lambda _: "")
    for column in scores:
        numbers = pd.to_numeric(scores[column], errors="coerce")  # scores of a part of a split are not numbers: `70.1*`
        ranks = numbers.rank(method="dense", ascending=False)
        styles.loc[ranks == 1, column] = _BEST
        if numbers.count() > 2:
            styles.loc[ranks == 2, column] = _SECOND
    return styles


def _cross_dataset_styles(shown: pd.DataFrame) -> pd.DataFrame:
    published = shown["", "kind"] == Kind.PUBLISHED if ("", "kind") in shown else pd.Series(False, shown.index)
    scores = shown[[column for column in shown if column[0]]]
    styles = _best_styles(scores.mask(published)).reindex(columns=shown.columns, fill_value="")
    styles.loc[published] = _PUBLISHED
    return styles


def _board_styles(shown: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the styles of one board, where `rows` are the rows from which `shown` was made."""
    ranked = rows["rank"].notna().to_numpy()
    scores = shown[[title for title in ("J&F", "J", "F") if title in shown]]
    styles = _best_styles(scores[ranked]).reindex(index=shown.index, columns=shown.columns, fill_value="")
    styles.loc[(rows["kind"] == Kind.PUBLISHED.value).to_numpy()] = _PUBLISHED
    return styles


def _attribute_styles(shown: pd.DataFrame) -> pd.DataFrame:
    """Return the styles of a table with a row for each attribute and a column for each model."""
    scores = shown.drop(columns=["attribute", "sequences"]).T
    return _best_styles(scores).T.reindex(columns=shown.columns, fill_value="")


def _table(shown: pd.DataFrame, styles: pd.DataFrame, caption: str, label: str, environment: str = "table") -> str:
    """Return one table as LaTeX.

    Args:
        shown: The cells as text. The columns may have two levels, of which the first groups several columns.
        styles: The Styler property of each cell.
        caption: The caption as plain text.
        label: The label as plain text; characters that a label cannot contain become dashes.
        environment: `table*` for a table across both columns of a page.
    """
    titles = [column[-1] if isinstance(column, tuple) else column for column in shown.columns]
    styler = shown.style.hide(axis="index").format(_cell).format_index(latex_text, axis="columns")
    text: str = styler.apply(lambda _: styles.where(shown != "", ""), axis=None).to_latex(
        hrules=True,
        column_format=f"@{{}}{''.join('l' if title in _LEFT else 'r' for title in titles)}@{{}}",
        multicol_align="c",
        environment=environment,
        position="htbp",
        position_float="centering",
        caption=latex_text(caption),
        label="".join(c if (c.isascii() and c.isalnum()) or c in ":-" else "-" for c in label),
    )
    # Only the score is bold or underlined, and its interval is small.
    text = re.sub(r"\\(textbf|underline)\{([\d.]+) (\[[\d., ]+\])\}", r"\\\1{\2} \3", text)
    text = re.sub(r"([\d.]+\}?) (\[[\d., ]+\])", r"\1\\,{\\scriptsize\2}", text)
    if shown.columns.nlevels == 2:
        groups, rules, rest = text.partition(r"\toprule" + "\n")
        first, end, rest = rest.partition("\n")
        text = f"{groups}{rules}{first}{end}{' '.join(_group_rules(shown))}\n{rest}"
    return text.rstrip("\n")


def _cell(text: str) -> str:
    r"""Return the text of a cell, with braces so that `[` or `*` at the start of a row is not an argument of `\\`."""
    shown = latex_text(text)
    return f"{{}}{shown}" if shown.startswith(("[", "*")) else shown


def _group_rules(shown: pd.DataFrame) -> Iterator[str]:
    r"""Yield the \cmidrule under each group of columns, which Styler cannot draw."""
    end = 0
    for group, count in column_groups(shown):
        if group:
            yield rf"\cmidrule(lr){{{end + 1}-{end + count}}}"
        end += count
