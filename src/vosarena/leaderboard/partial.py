"""Build a leaderboard from the sequences that are finished now, while jobs are running or after some failed."""

import logging
from dataclasses import replace
from pathlib import Path

from vosarena.base.errors import DataError
from vosarena.config.paths import Paths
from vosarena.config.study import Study
from vosarena.datasets.table import read_table
from vosarena.leaderboard.build import LocalRun, build_leaderboard
from vosarena.leaderboard.inputs import local_runs, server_runs
from vosarena.metrics.measure import Resize, measure
from vosarena.metrics.measure_split import pair_predictions
from vosarena.metrics.pairs import MeasureError
from vosarena.metrics.protocols import find_protocol
from vosarena.predictions.manifest import ModelDefinition
from vosarena.predictions.store import Store

logger = logging.getLogger(__name__)


def partial_leaderboard(study: Study, paths: Paths, jobs: int = 1) -> list[LocalRun]:
    """Measure the finished sequences, and write their tables into `paths.partial`. No other file is changed.

    Sequences that change during this and predictions from another definition of the model are left out.

    Args:
        study: The study.
        paths: Its files.
        jobs: Number of sequences that are measured at the same time.

    Returns:
        The runs that have finished sequences.

    Raises:
        DataError: No sequence is finished yet.
    """
    output = paths.partial
    runs = []
    for run in local_runs(study, paths):
        split, model = study.splits[f"{run.dataset}/{run.split}"], study.models[run.model]
        metrics = output / "metrics" / run.dataset / run.split / f"{run.model}.parquet"
        if run.table.is_file() and _measure_finished(run, model.definition(split), split.resize, metrics, jobs):
            runs.append(replace(run, metrics=metrics))
    server = [run for run in server_runs(study, paths) if run.table.is_file()]
    if not runs and not server:
        tables = [paths.sequences(split) for split in study.splits.values()]
        if missing := [table for table in tables if not table.is_file()]:
            raise DataError(f"{missing[0]}: there is no table of sequences yet; run the workflow again to create it")
        raise DataError(f"nothing is finished yet: {paths.results / 'predictions'} has no sequence of the config")
    build_leaderboard(runs, output / "leaderboard", server, study.titles())
    return runs


def _measure_finished(run: LocalRun, definition: ModelDefinition, resize: Resize, output: Path, jobs: int) -> bool:
    store = Store(run.store)
    manifests = store.manifests(record.sequence for record in read_table(run.table))
    finished = {
        name: found.masks_digest for name, found in manifests.items() if found.identity.definition == definition
    }
    if not finished:
        return False
    try:
        measure(
            pair_predictions(run.table, store, finished),
            output,
            dataset=run.dataset,
            split=run.split,
            model=run.model,
            jobs=jobs,
            resize=resize,
            adaptive=any(find_protocol(name).adaptive for name in run.protocols),
        )
    except MeasureError as error:
        logger.warning("%s", error)  # the others were measured
        return error.measured > 0
    return True
