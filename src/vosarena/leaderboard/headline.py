"""Write the first sentence of the report from the numbers of one board."""

import pandas as pd

from vosarena.leaderboard.comparison import ALL
from vosarena.leaderboard.kinds import Kind
from vosarena.leaderboard.statistics import MIN_SEQUENCES

_SIGNIFICANT = 0.05
_MIN_OF_ATTRIBUTE = 2  # smallest number of sequences for an attribute to be called a weakness


def headline(board: pd.DataFrame, attributes: pd.DataFrame) -> list[tuple[str, bool]]:
    """Return the first sentence of the report.

    Args:
        board: Rows of one board in the table `leaderboard`.
        attributes: Rows of the same board in the table `attributes`.

    Returns:
        Pieces of text, each with whether it is emphasised.
    """
    split = "/".join(board[["dataset", "split"]].iloc[0])
    ranked = board[board["rank"].notna()].sort_values("rank")
    if ranked.empty:
        count = int((board["kind"] != Kind.PUBLISHED.value).sum())
        runs = "1 run is unfinished or waits" if count == 1 else f"{count} runs are unfinished or wait"
        return [(f"No complete score on {split} yet: {runs} for a server.", False)]
    best = ranked.iloc[0]
    pieces = [(best["model"], True), (f" leads {split} with J&F ", False), (f"{best['j_and_f']:.1f}", True)]
    if pd.notna(best["ci_low"]):
        pieces.append((f" [{best['ci_low']:.1f}, {best['ci_high']:.1f}]", False))
    if len(ranked) > 1:
        pieces.append((f", {_lead(best, ranked.iloc[1])}", False))
    of_best = attributes[
        (attributes["model"] == best["model"])
        & (attributes["attribute"] != ALL)
        & (attributes["n_sequences"] >= _MIN_OF_ATTRIBUTE)
        & attributes["j_and_f"].notna()
    ]
    if len(of_best):
        worst = of_best.loc[of_best["j_and_f"].idxmin()]
        if worst["j_and_f"] < best["j_and_f"]:
            pieces += [("; it is weakest on ", False), (worst["attribute"].replace("-", " "), True)]
            pieces.append((f" ({worst['j_and_f']:.1f} on {worst['n_sequences']} sequences)", False))
    return [*pieces, (".", False)]


def _lead(best: pd.Series, second: pd.Series) -> str:
    """Return how far the best model is ahead of the second, and whether that may be chance."""
    if best["rank"] == second["rank"]:
        return f"as does {second['model']}"
    ahead = f"{best['j_and_f'] - second['j_and_f']:.1f} ahead of {second['model']}"
    if best["kind"] == Kind.MEASURED and best["n_sequences"] < MIN_SEQUENCES:
        return f"{ahead} on {best['n_sequences']} sequences, too few to rule out chance"
    if pd.notna(second["p_vs_best"]) and second["p_vs_best"] >= _SIGNIFICANT:
        return f"{ahead}, which may be chance (p = {second['p_vs_best']:.2f})"
    return ahead
