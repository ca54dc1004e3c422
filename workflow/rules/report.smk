# Everything on one page, and figures for papers.


def predictions_of_scored(wildcards):
    return [
        status
        for split, model in runs(scored=True)
        for status in statuses_of(Namespace(dataset=split.dataset, split=split.name, model=model.name))
    ]


def report_of_study(wildcards):
    return ["<results>/report/index.html", "<results>/figures"] if runs(scored=True) else []


rule report:
    input:
        leaderboard="<results>/leaderboard/leaderboard.parquet",
        metrics=metrics_of_study,
        predictions=predictions_of_scored,
    output:
        page="<results>/report/index.html",
        media=directory("<results>/report/media"),
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.tsv"
    conda:
        "../../envs/default.yaml"
    threads: 2
    params:
        study=definition_of_study(),
        places=places(),
    message:
        "report: {output.page}"
    script:
        "../scripts/report.py"


rule figures:
    input:
        leaderboard="<results>/leaderboard/leaderboard.parquet",
        metrics=metrics_of_study,
        predictions=predictions_of_scored,
    output:
        figures=report(
            directory("<results>/figures"),
            patterns=["{name}.png", "{name}.svg"],
            category="Figures",
            caption="../report/figures.rst",
        ),
    log:
        "<logs>/figures.log",
    benchmark:
        "<benchmarks>/figures.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        study=definition_of_study(),
        places=places(),
    message:
        "figures: {output}"
    script:
        "../scripts/figures.py"
