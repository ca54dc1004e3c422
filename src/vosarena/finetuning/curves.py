"""The loss of a training run as a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from vosarena.base.files import write_text

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 360, 60, 40, 30


def write_curves(table: Path, figure: Path) -> None:
    """Draw `total_loss` over `iteration` of a Parquet table as an SVG: every step, and a running mean above it."""
    log = pd.read_parquet(table)
    steps, loss = log["iteration"].to_numpy(float), log["total_loss"].to_numpy(float)
    window = max(1, len(loss) // 20)
    padded = np.concatenate([np.full(window - 1, loss[0]), loss])
    mean = np.convolve(padded, np.ones(window) / window, mode="valid")
    top, last = float(loss.max()) * 1.05 or 1.0, float(steps[-1])

    def line(values: np.ndarray, style: str) -> str:
        x = _LEFT + (_WIDTH - _LEFT - 20) * steps / last
        y = _TOP + (_HEIGHT - _BOTTOM - _TOP) * (1 - values / top)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        return f'<polyline fill="none" {style} points="{points}"/>'

    def text(x: float, y: float, words: str, anchor: str = "middle") -> str:
        return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{words}</text>'

    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"',
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        text(_WIDTH / 2, 18, f"Training loss (line: mean over {window} steps)"),
        *(text(_LEFT + (_WIDTH - _LEFT - 20) * t, _HEIGHT - 18, f"{t * last:.0f}") for t in ticks),
        *(text(_LEFT - 6, _TOP + (_HEIGHT - _BOTTOM - _TOP) * (1 - t) + 4, f"{t * top:.2f}", "end") for t in ticks),
        text(_WIDTH / 2, _HEIGHT - 3, "iteration"),
        line(loss, 'stroke="#9ecae1" stroke-width="1"'),
        line(mean, 'stroke="#08519c" stroke-width="2"'),
        "</svg>",
    ]
    write_text(figure, "\n".join(parts) + "\n")
