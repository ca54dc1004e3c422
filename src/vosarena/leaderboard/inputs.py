"""List the inputs of the leaderboard: the files of every model on every split of a study."""

from vosarena.config.paths import Paths
from vosarena.config.study import Study
from vosarena.leaderboard.build import LocalRun, ServerRun
from vosarena.leaderboard.server_scores import score_files


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
            training=study.seen(definition, split),
            origin=(definition.finetune and definition.finetune.from_model) or "",
        )
        for split in study.local_splits()
        for model, definition in study.models.items()
    ]


def server_runs(study: Study, paths: Paths) -> list[ServerRun]:
    """Return the runs that a server scores, each with the server's answer if there is one.

    Raises:
        DataError: A model has two scores files for one split.
    """
    runs = []
    for split in study.server_splits():
        scores = score_files(paths.scores, split.dataset, split.name, study.models)
        notice = split.submission.notice if split.submission else ""
        for model, definition in study.models.items():
            files = paths.sequences(split), paths.predictions(split, model), paths.submission(split, model)
            training = study.seen(definition, split)
            runs.append(ServerRun(split.dataset, split.name, model, *files, scores.get(model), notice, training))
    return runs
