"""List the inputs of the leaderboard: the files of every model on every split of a study."""

from vosarena.config.paths import Paths
from vosarena.config.study import Split, Study
from vosarena.leaderboard.build import LocalRun, ServerRun
from vosarena.leaderboard.server_scores import score_files


def local_splits(study: Study) -> list[Split]:
    """Return the splits with ground truth."""
    return [split for split in study.splits.values() if split.ground_truth == "full"]


def server_splits(study: Study) -> list[Split]:
    """Return the splits that only a server can score."""
    return [split for split in study.splits.values() if split.ground_truth == "first_frame"]


def local_runs(study: Study, paths: Paths) -> list[LocalRun]:
    """Return the runs that are measured with the ground truth."""
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
    """Return the runs that a server scores, each with the server's answer if there is one.

    Raises:
        DataError: A model has two scores files for one split.
    """
    runs = []
    for split in server_splits(study):
        scores = score_files(paths.scores, split.dataset, split.name, study.models)
        notice = split.submission.notice if split.submission else ""
        for model in study.models:
            files = paths.sequences(split), paths.predictions(split, model), paths.submission(split, model)
            runs.append(ServerRun(split.dataset, split.name, model, *files, scores.get(model), notice))
    return runs
