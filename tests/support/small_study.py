"""A study on tiny clips, run without Snakemake.

python -m tests.support.small_study ROOT JOBS runs it in a process of its own, with its tables, page, figures, bundle.
"""

import sys
from pathlib import Path
from typing import Any

from vosarena.config.paths import Paths
from vosarena.config.study import Study, load_study
from vosarena.datasets.prepare import fetch_split
from vosarena.datasets.table import read_table
from vosarena.fetching.policy import RetryPolicy
from vosarena.inference.job import Job, ShardTask
from vosarena.inference.run import track_sequences
from vosarena.leaderboard.build import build_leaderboard
from vosarena.leaderboard.inputs import local_runs
from vosarena.metrics.measure_split import measure_predictions
from vosarena.sharing.bundle import collect


def study_of(root: Path, models: list[Any], protocols: list[str] | None = None) -> tuple[Study, Paths]:
    """A study on the dataset `clips` next to `root`."""
    config = {
        "study": "small",
        "datasets": [{"path": str(root.parent / "clips"), "name": "clips"}],
        "models": models,
        "protocols": protocols or ["davis2017"],
    }
    return load_study(config), Paths("small", root / "results", root / "resources")


def study_in(
    root: Path, models: list[Any], *, protocols: list[str] | None = None, jobs: int = 1, with_masks: bool = False
) -> Path:
    """Run a study on `clips` next to `root` with these models, and bundle it."""
    study, paths = study_of(root, models, protocols)
    track_and_measure(study, paths, jobs)
    output = root / "small.zip"
    folder = root / "members"
    folder.mkdir()
    collect(study, paths, folder, with_masks).write(output)
    return output


def track_and_measure(study: Study, paths: Paths, jobs: int = 1) -> None:
    """Do what the workflow does for a study with one split, from its folder to its metrics."""
    (split,) = study.local_splits()
    folder, table = paths.dataset(split), fetch_split(split, paths.resources, RetryPolicy())
    names = tuple(record.sequence for record in read_table(table))
    for run in local_runs(study, paths):
        job = Job(study.models[run.model].definition())
        task = ShardTask(names, folder / "JPEGImages", folder / "Annotations", job, run.store)
        assert not track_sequences(task).failed
        labels = {"dataset": run.dataset, "split": run.split, "model": run.model}
        measure_predictions(
            run.table, run.store, [], run.metrics, **labels, protocols=run.protocols, resize="never", jobs=jobs
        )


def main() -> None:
    """Run the study and make everything of it."""
    from vosarena.report.figures import draw_figures
    from vosarena.report.page import build_report

    root, jobs = Path(sys.argv[1]), int(sys.argv[2])
    models = ["static", "flow"]
    study_in(root, models, jobs=jobs, with_masks=True)
    study, paths = study_of(root, models)
    build_leaderboard(local_runs(study, paths), paths.leaderboard)
    build_report(study, paths, paths.report, jobs)
    draw_figures(study, paths, paths.figures)


if __name__ == "__main__":
    main()
