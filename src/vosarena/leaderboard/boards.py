"""A board is the leaderboard of one dataset, split and protocol: the tables of a study hold several."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd


class BoardKey(NamedTuple):
    """Names a board; its fields are columns of every table."""

    dataset: str
    split: str
    protocol: str


KEYS = list(BoardKey._fields)


def board_keys(table: pd.DataFrame) -> list[BoardKey]:
    """The boards of a table, sorted."""
    return sorted(BoardKey(*map(str, key)) for key in table[KEYS].drop_duplicates().itertuples(index=False))


def rows_of(table: pd.DataFrame, key: Sequence[str]) -> pd.DataFrame:
    """The rows of one board."""
    return table[(table[KEYS] == list(key)).all(axis=1)]
