"""Boards: a board is the leaderboard of one dataset, split and protocol. The tables of a study contain several."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd


class BoardKey(NamedTuple):
    """The key of a board. Its fields are columns of every table."""

    dataset: str
    split: str
    protocol: str


KEYS = list(BoardKey._fields)


def board_keys(table: pd.DataFrame) -> list[BoardKey]:
    """Return the keys of the boards of a table, sorted."""
    return sorted(BoardKey(*map(str, key)) for key in table[KEYS].drop_duplicates().itertuples(index=False))


def rows_of(table: pd.DataFrame, key: Sequence[str]) -> pd.DataFrame:
    """Return the rows of one board.

    Args:
        table: Any table with the columns KEYS.
        key: Dataset, split and protocol.
    """
    return table[(table[KEYS] == list(key)).all(axis=1)]
