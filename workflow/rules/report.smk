# Everything on one page, and figures for papers.


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
        study=definition_of_study("figures"),
        places=places(),
    message:
        "figures: {output}"
    script:
        "../scripts/figures.py"
