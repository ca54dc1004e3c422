# What the rules of leaderboard, submissions and report ask about the study.

from vosarena.leaderboard.imported import score_files
from vosarena.leaderboard.inputs import hidden_splits

SCORES = place("scores")  # answers of evaluation servers: scores/<dataset>/<split>/<model>.{txt,json,yaml}


def places():
    """Folders of the run, for the stages that look at all of it."""
    return dict(results=str(place("<results>")), resources=str(place("<resources>")), scores=str(SCORES))


def definition_of_study(*more):
    """What of the config decides which rows the tables have, and more of its keys."""
    return {key: config[key] for key in ("datasets", "models", "protocols", "catalog", *more) if key in config}


def submissions_of_study(wildcards):
    return [f"<results>/submissions/{split}/{model.name}.zip" for split, model in runs("first_frame")]


def server_scores(wildcards):
    """The answers that are there."""
    try:
        return [
            local(file)
            for split in hidden_splits(study)
            for file in score_files(SCORES, split.dataset, split.name, study.models).values()
        ]
    except VosarenaError as error:
        raise WorkflowError(str(error)) from None


def predictions_of_scored(wildcards):
    return [
        status
        for split, model in runs("full")
        for status in statuses_of(Namespace(dataset=split.dataset, split=split.name, model=model.name))
    ]


def report_of_study(wildcards):
    return ["<results>/report/index.html", "<results>/figures"] if runs("full") else []
