"""The report's first sentence, written from the numbers of one split under one protocol."""

import pandas as pd

from vosarena.leaderboard.comparison import ALL
from vosarena.leaderboard.statistics import FEWEST

_SURE = 0.05
_WEAKNESS = 2  # sequences that an attribute needs to be called a weakness


def headline(board: pd.DataFrame, attributes: pd.DataFrame) -> list[tuple[str, bool]]:
    """Pieces of text with whether they are to stand out. board, attributes: rows of one place (see leaderboard)."""
    place = "/".join(board[["dataset", "split"]].iloc[0])
    ranked = board[board["rank"].notna()].sort_values("rank")
    if ranked.empty:
        count = int((board["kind"] != "published").sum())
        return [(f"No complete score on {place} yet: {count} runs are unfinished or wait for a server.", False)]
    best = ranked.iloc[0]
    pieces = [(best["model"], True), (f" leads {place} with J&F ", False), (f"{best['j_and_f']:.1f}", True)]
    if pd.notna(best["ci_low"]):
        pieces.append((f" [{best['ci_low']:.1f}, {best['ci_high']:.1f}]", False))
    if len(ranked) > 1:
        second = ranked.iloc[1]
        behind = best["j_and_f"] - second["j_and_f"]
        doubt = ""
        if best["kind"] == "measured" and best["n_sequences"] < FEWEST:
            doubt = f" on {best['n_sequences']} sequences, too few to rule out chance"
        elif pd.notna(second["p_vs_best"]) and second["p_vs_best"] >= _SURE:
            doubt = f", which may be chance (p = {second['p_vs_best']:.2f})"
        pieces.append((f", {behind:.1f} ahead of {second['model']}{doubt}", False))
    mine = attributes[
        (attributes["model"] == best["model"])
        & (attributes["attribute"] != ALL)
        & (attributes["n_sequences"] >= _WEAKNESS)
        & attributes["j_and_f"].notna()
    ]
    if len(mine):
        worst = mine.loc[mine["j_and_f"].idxmin()]
        if worst["j_and_f"] < best["j_and_f"]:
            pieces += [("; it is weakest on ", False), (worst["attribute"].replace("-", " "), True)]
            pieces.append((f" ({worst['j_and_f']:.1f} on {worst['n_sequences']} sequences)", False))
    return [*pieces, (".", False)]
