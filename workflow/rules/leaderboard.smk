# Counts to scores, and scores to tables.

from vosarena.reporting.imported import score_files
from vosarena.reporting.study import hidden_splits, scored_splits

SCORES = "scores"  # answers of evaluation servers: scores/<dataset>/<split>/<model>.{txt,json,yaml}


def places():
    """Folders of the run, for the stages that look at all of it."""
    return dict(
        results=workflow.pathvars.apply("<results>"), resources=workflow.pathvars.apply("<resources>"), scores=SCORES
    )


def definition_of_study():
    """What of the config decides which rows the tables have."""
    return {key: config[key] for key in ("datasets", "models", "protocols", "catalog") if key in config}


def submissions_of_study(wildcards):
    return [
        f"<results>/submissions/{split}/{model.name}.zip"
        for split, model in runs(scored=False)
        if split.ground_truth != "full"
    ]


def server_scores(wildcards):
    """The answers that are there."""
    try:
        return [
            str(file)
            for split in hidden_splits(study)
            for file in score_files(Path(SCORES), split.dataset, split.name, study.models).values()
        ]
    except VosarenaError as error:
        raise WorkflowError(str(error)) from None


rule leaderboard:
    input:
        metrics=metrics_of_study,
        tables=tables_of_study,
        submissions=submissions_of_study,
        scores=server_scores,
    output:
        leaderboard=report(
            "<results>/leaderboard/leaderboard.csv",
            category="Leaderboard",
            caption="../report/leaderboard.rst",
        ),
        texts=multiext("<results>/leaderboard/leaderboard", ".md", ".tex", ".parquet"),
        tables=expand(
            "<results>/leaderboard/{table}.{form}",
            table=["sequences", "objects", "attributes", "comparisons", "reproduction"],
            form=["csv", "parquet"],
        ),
    log:
        "<logs>/leaderboard.log",
    benchmark:
        "<benchmarks>/leaderboard.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        study=definition_of_study(),
        places=places(),
    message:
        "leaderboard of {input.metrics}"
    script:
        "../scripts/leaderboard.py"


# What is finished right now, also while jobs run or after some failed. Nothing is declared: it is always made anew,
# and does not wait for another Snakemake in the same folder.
rule partial:
    log:
        "<logs>/partial.log",
    conda:
        "../../envs/default.yaml"
    threads: 2
    params:
        study=definition_of_study(),
        places=places(),
    message:
        "leaderboard of what is finished, into {params.places[results]}/partial/leaderboard"
    script:
        "../scripts/partial.py"
