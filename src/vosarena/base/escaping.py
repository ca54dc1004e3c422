"""Escape users' text for other languages: names, reasons and notes may contain any character and appear unchanged.

Matplotlib does not need this module: the style of `report.figures` switches its parser of formulas off.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

# Start of a formula in spreadsheet programs, also after spaces; an apostrophe in front of it marks text.
_FORMULA = re.compile(r"'*(\s*[=+\-@＝＋－＠]|[\t\r\n])")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# Characters with a meaning in Markdown. A `<`, `*` or `_` that cannot start anything stays unchanged.
_MARKDOWN = re.compile(
    r"[\\`|\[\]~]|<(?=[A-Za-z/!?])|\*(?=\S)|(?<=\w)\*(?=\w)|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|(?<!\S)#|^[>+-](?=\s|$)"
)
_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    '"': r"\char34{}", "`": r"\char96{}", "|": r"\textbar{}",
})  # fmt: skip


def console(*, stderr: bool = False, pipe_width: int | None = None) -> Console:
    """Return a console that prints `[red]` and `:smile:` as text.

    Args:
        stderr: Whether to write to standard error.
        pipe_width: Width in characters if the output is not a terminal.
    """
    from rich.console import Console

    terminal = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if pipe_width and not terminal.is_terminal:
        terminal.width = pipe_width
    return terminal


def csv_cell(value: Any) -> Any:
    """Return a value for a CSV file; text that spreadsheet programs would execute gets an apostrophe."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def csv_text(cell: str) -> str:
    """Return the text that `csv_cell` got."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def csv_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with the cells of its CSV file."""
    texts = table.select_dtypes(exclude=["number", "bool"]).columns
    return table.assign(**{name: table[name].map(csv_cell, na_action="ignore") for name in texts})


def one_line(text: Any) -> str:
    """Return text in one line, without unprintable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def markdown_text(text: Any) -> str:
    """Return text in one line that Markdown shows unchanged, also in tables."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", one_line(text))


def latex_text(text: Any) -> str:
    """Return text in one line that LaTeX prints unchanged."""
    return one_line(text).translate(_LATEX).replace("--", "-{}-").replace("--", "-{}-")


def script_json(content: Any) -> str:
    """Return JSON that is safe inside a script element: ASCII without `<`."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
