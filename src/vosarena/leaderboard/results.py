"""Read the results of a study as DataFrames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from vosarena.base.errors import DataError
from vosarena.base.text import nearest
from vosarena.config.paths import Paths
from vosarena.leaderboard.speed import with_speed
from vosarena.metrics.read import read_rows
from vosarena.metrics.scores import score


@dataclass(frozen=True)
class Results:
    """Results on disk. The tables are read when they are first used.

    Attributes:
        metrics_files: The metrics files, by (dataset, split, model).
        tables: The tables of the study's leaderboard, by name: `leaderboard`, `sequences`, `objects`, `attributes`,
            `comparisons`, `reproduction`, `speed`. Empty if no leaderboard was found.
        study: Name of the study; "" if there is none.
    """

    metrics_files: Mapping[tuple[str, str, str], Path]
    tables: Mapping[str, pd.DataFrame]
    study: str = ""

    @cached_property
    def counts(self) -> pd.DataFrame:
        """Counts by frame and object of all models: one row per dataset, split, model, sequence, object_id and frame.

        Columns: dataset, split, model, sequence, object_id, frame (file name without suffix), frame_index (number);
        intersection, gt_pixels, pred_pixels, gt_boundary, pred_boundary, gt_matched, pred_matched (pixels, see
        `vosarena.metrics.counts.Counts`); tolerance (pixels); j and f (0 to 1).
        """
        rows = [read_rows(path) for path in self.metrics_files.values()]
        return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row per model, dataset, split and protocol; the columns are those of leaderboard.csv, with the speeds.

        Raises:
            DataError: The study has no leaderboard.
        """
        if "leaderboard" not in self.tables:
            raise DataError("there is no leaderboard of one study; run the workflow, or give the name of the study")
        return self.tables["leaderboard"]

    def scores(self, protocol: str) -> pd.DataFrame:
        """Score every object of every model; the columns are those of `vosarena.metrics.scores.score`.

        Args:
            protocol: Name of the protocol, such as `davis2017`.
        """
        return score(list(self.metrics_files.values()), protocol, allow_incomplete=True)

    def __repr__(self) -> str:
        models = sorted({model for _, _, model in self.metrics_files})
        study = f"study {self.study}: " if self.study else ""
        return f"<Results {study}{len(self.metrics_files)} metrics files of {len(models)} models>"


def load_results(folder: str | Path = "results", *, study: str | None = None) -> Results:
    """Read the results of the workflow as DataFrames.

    Args:
        folder: The folder `results` of the workflow.
        study: Name of the study whose leaderboard is read; None reads it if there is only one.

    Returns:
        The counts of all models, and the tables of the leaderboard.

    Raises:
        DataError: The folder does not exist, has no metrics, or has no such study.

    Examples:
        >>> import vosarena
        >>> results = vosarena.load_results("results")
        >>> results
        <Results study demo: 2 metrics files of 2 models>
        >>> results.leaderboard[["model", "j_and_f"]].round(1)
            model  j_and_f
        0    flow     94.7
        1  static     94.7
        >>> results.counts.groupby("model", observed=True)["j"].mean().round(3)
        model
        flow      0.894
        static    0.894
        Name: j, dtype: float64
        >>> len(results.scores("davis2017"))
        8
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected the results of a run")
    files = {(path.parts[-3], path.parts[-2], path.stem): path for path in sorted(folder.glob("metrics/*/*/*.parquet"))}
    if not files:
        raise DataError(f"{folder}: no metrics in it; run the workflow first")
    studies = sorted(path.name for path in folder.glob("studies/*") if path.is_dir())
    if study is not None and study not in studies:
        raise DataError(f"{folder}: no study {study!r} in it; {nearest(study, studies)}")
    if study is None:
        study = studies[0] if len(studies) == 1 else ""
    tables = sorted(Paths(study, folder).leaderboard.glob("*.parquet")) if study else []
    found = {path.stem: pd.read_parquet(path) for path in tables}
    if "speed" in found:
        found["leaderboard"] = with_speed(found["leaderboard"], found["speed"])
    return Results(files, found, study)
