"""The section of the page that explains why scores differ: `vosarena explain` for every measured model and split."""

from collections.abc import Sequence
from typing import Any

from vosarena.config.paths import Paths
from vosarena.config.study import Study
from vosarena.leaderboard.build import LocalRun
from vosarena.leaderboard.explain import explain


def explanations(study: Study, paths: Paths, runs: Sequence[LocalRun]) -> list[dict[str, Any]]:
    """Return the explanation of each run that has metrics, as `vosarena explain --json` gives it.

    Args:
        study: The study.
        paths: Its files.
        runs: Its measured runs.
    """
    return [
        explain(study, study.model(run.model), study.splits[f"{run.dataset}/{run.split}"], paths).to_json()
        for run in runs
        if run.metrics.is_file()
    ]
