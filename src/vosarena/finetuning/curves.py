"""Draw the loss of a training run as a figure."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

# At the top, so that a missing matplotlib shows before the training and not after it.
from matplotlib import style
from matplotlib.figure import Figure

from vosarena.base.files import atomic_path


def write_curves(table: Path, figure: Path) -> None:
    """Draw the loss of every step and its moving average.

    Args:
        table: Parquet table with the columns `iteration` and `total_loss`.
        figure: SVG file to write.
    """
    log = pd.read_parquet(table, columns=["iteration", "total_loss"])
    window = max(1, len(log) // 20)
    mean = log["total_loss"].rolling(window, min_periods=1).mean()
    # Text is kept as text, and element names are the same in every run, so the same losses give the same bytes.
    with style.context(["default", {"svg.fonttype": "none", "svg.hashsalt": "vosarena"}]):
        drawing = Figure(figsize=(7.2, 3.6), layout="constrained")
        axes = drawing.subplots()
        axes.plot(log["iteration"], log["total_loss"], color="#9ecae1", linewidth=1, label="every step")
        axes.plot(log["iteration"], mean, color="#08519c", linewidth=2, label=f"mean over {window} steps")
        axes.set(xlabel="iteration", ylabel="training loss", ylim=(0, None))
        axes.legend()
        with atomic_path(figure) as temporary:
            drawing.savefig(temporary, format="svg", metadata={"Date": None})
