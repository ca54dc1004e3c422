"""Text of users inside other languages: names, reasons and notes may hold any character, and are shown as they are.

Matplotlib needs nothing of this module: `reporting.figures` turns its parser of formulas off.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

# What spreadsheet programs take for the start of a formula, also after spaces; the apostrophe says that it is text.
_FORMULA = re.compile(r"'*(\s*[=+\-@＝＋－＠]|[\t\r\n])")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# What has a meaning in Markdown. A `<`, `*` or `_` that can be no start of anything stays as it is.
_MARKDOWN = re.compile(
    r"[\\`|\[\]~]|<(?=[A-Za-z/!?])|\*(?=\S)|(?<=\w)\*(?=\w)|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|(?<!\S)#|^[>+-](?=\s|$)"
)
_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    '"': r"\char34{}", "`": r"\char96{}", "|": r"\textbar{}",
})  # fmt: skip


def console(*, stderr: bool = False, pipe_width: int | None = None) -> Console:
    """A terminal on which `[red]` and `:smile:` are text. pipe_width: characters of a line where it is none."""
    from rich.console import Console

    terminal = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if pipe_width and not terminal.is_terminal:
        terminal.width = pipe_width
    return terminal


def csv_cell(value: Any) -> Any:
    """A value of a CSV file. Text that spreadsheet programs would execute gets an apostrophe; numbers stay numbers."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def csv_text(cell: str) -> str:
    """The text that csv_cell was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def csv_table(table: pd.DataFrame) -> pd.DataFrame:
    """A table with the cells that its CSV file has."""
    texts = table.select_dtypes(exclude=["number", "bool"]).columns
    return table.assign(**{name: table[name].map(csv_cell, na_action="ignore") for name in texts})


def one_line(text: Any) -> str:
    """Text in one line, without characters that cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def markdown_text(text: Any) -> str:
    """Text in one line that Markdown, also in a table, shows as it is."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", one_line(text))


def latex_text(text: Any) -> str:
    """Text in one line that LaTeX prints as it is."""
    return one_line(text).translate(_LATEX).replace("--", "-{}-").replace("--", "-{}-")


def script_json(content: Any) -> str:
    """JSON that may be part of a script element or a script: ASCII without `<`."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
