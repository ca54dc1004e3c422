"""Inputs of the leaderboard: the files of every model on every split of a study."""

from vosarena.config.paths import Paths
from vosarena.config.study import Split, Study
from vosarena.leaderboard.build import LocalRun, ServerRun
from vosarena.leaderboard.server_scores import score_files


def local_splits(study: Study) -> list[Split]:
    """Splits with ground truth."""
    return [split for split in study.splits.values() if split.ground_truth == "full"]


def server_splits(study: Study) -> list[Split]:
    """Splits that only a server can score."""
    return [split for split in study.splits.values() if split.ground_truth == "first_frame"]


def local_runs(study: Study, paths: Paths) -> list[LocalRun]:
    """Runs that are measured with the ground truth."""
    return [
        LocalRun(
            dataset=split.dataset,
            split=split.name,
            model=model,
            protocols=study.protocols_of(split),
            metrics=paths.metrics(split, model),
            table=paths.sequences(split),
            store=paths.predictions(split, model),
        )
        for split in local_splits(study)
        for model in study.models
    ]


def server_runs(study: Study, paths: Paths) -> list[ServerRun]:
    """Runs that a server scores, with its answer if there is one."""
    runs = []
    for split in server_splits(study):
        scores = score_files(paths.scores, split.dataset, split.name, study.models)
        for model in study.models:
            files = paths.sequences(split), paths.predictions(split, model), paths.submission(split, model)
            runs.append(ServerRun(split.dataset, split.name, model, *files, scores.get(model)))
    return runs
