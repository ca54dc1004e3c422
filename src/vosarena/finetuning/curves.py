"""Draw a training as a figure: loss, scores on the held-out split, learning rate, and the share of waiting."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

# At the top, so that a missing matplotlib shows before the training and not after it.
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vosarena.base.files import atomic_path
from vosarena.finetuning.files import LOSSES, SCORES

_LIGHT, _DARK = "#9ecae1", "#08519c"


def write_curves(folder: Path, figure: Path) -> None:
    """Draw the curves of a training.

    Args:
        folder: Folder with `loss.parquet`, which has the columns `iteration`, `total_loss`, `learning_rate`, `seconds`
            and `waiting`, and `validation.parquet`, which has `iteration` and `j_and_f`.
        figure: SVG file to write.
    """
    log, scores = pd.read_parquet(folder / LOSSES), pd.read_parquet(folder / SCORES)
    window = max(1, len(log) // 20)
    # Text is kept as text, and element names are the same in every run, so the same curves give the same bytes.
    with style.context(["default", {"svg.fonttype": "none", "svg.hashsalt": "vosarena"}]):
        drawing = Figure(figsize=(9.6, 5.6), layout="constrained")
        (loss, score), (rate, waiting) = drawing.subplots(2, 2, sharex=True)
        loss.plot(log["iteration"], log["total_loss"], color=_LIGHT, linewidth=1, label="every step")
        mean = log["total_loss"].rolling(window, min_periods=1).mean()
        loss.plot(log["iteration"], mean, color=_DARK, linewidth=2, label=f"mean over {window} steps")
        loss.set(ylabel="training loss", ylim=(0, None))
        loss.legend()
        _draw_scores(score, scores)
        rate.plot(log["iteration"], log["learning_rate"], color=_DARK)
        rate.set(xlabel="iteration", ylabel="learning rate", ylim=(0, None))
        sums = log[["seconds", "waiting"]].rolling(window, min_periods=1).sum()
        waiting.plot(log["iteration"], 100 * sums["waiting"] / sums["seconds"], color=_DARK)
        waiting.set(xlabel="iteration", ylabel="time spent waiting for data (%)", ylim=(0, None))
        with atomic_path(figure) as temporary:
            drawing.savefig(temporary, format="svg", metadata={"Date": None})


def _draw_scores(axes: Axes, scores: pd.DataFrame) -> None:
    axes.set(ylabel="validation J&F")
    if scores.empty:
        axes.text(0.5, 0.5, "not validated", transform=axes.transAxes, ha="center", va="center")
        axes.set_yticks([])
        return
    axes.plot(scores["iteration"], scores["j_and_f"], color=_DARK, marker="o", markersize=4)
    if len(trained := scores[scores["iteration"] > 0]):
        best = trained.loc[trained["j_and_f"].idxmax()]
        axes.plot(best["iteration"], best["j_and_f"], "o", color="#d94801", label=f"best: {best['j_and_f']:.1f}")
        axes.legend()
