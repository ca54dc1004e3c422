"""What `vosarena fetch`, `datasets` and `models` share: their options and the look of their tables."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where it is needed, so that `vosarena --help` is quick
    from rich.table import Table


def add_catalog_options(parser: argparse.ArgumentParser) -> None:
    """Add `--catalog` and `--resources`."""
    parser.add_argument(
        "--catalog",
        type=Path,
        action="append",
        default=[],
        help="catalog folder to use in addition to the built-in one (may be repeated)",
    )
    parser.add_argument(
        "--resources",
        type=Path,
        default=Path("resources"),
        help="folder of downloads, datasets and weights (default: %(default)s)",
    )


def make_table(*columns: str) -> Table:
    """Return an empty table for the terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        prose = column in ("title", "licence", "description")
        table.add_column(column, overflow="fold" if prose else "ellipsis", no_wrap=not prose)
    return table


def format_size(size: int) -> str:
    """Return a number of bytes as text, and nothing for 0."""
    from rich.filesize import decimal

    return decimal(size) if size else ""
