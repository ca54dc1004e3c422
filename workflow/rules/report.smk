# Write the report, which shows all results on one page, and figures for papers.


rule report:
    input:
        leaderboard=tables_of_leaderboard,
        metrics=metrics_of_study,
        predictions=predictions_of_study,
        trainings=curves_of_study,
    output:
        page=declared.report / "index.html",
        speed=declared.report / "speed.js",
        folders=[directory(declared.report / name) for name in ("media", "tables")],
    log:
        declared.study_log("report"),
    benchmark:
        f"<benchmarks>/report/{study.name}.tsv"
    conda:
        "../../envs/default.yaml"
    threads: 2
    params:
        study=definition_of_study(),
        paths=paths,
    message:
        "report: {output.page}"
    script:
        "../scripts/report.py"


rule figures:
    input:
        leaderboard=[declared.leaderboard / f"{name}.parquet" for name in ("leaderboard", "speed")],
        metrics=metrics_of_study,
        predictions=predictions_of_scored,
    output:
        figures=report(
            directory(declared.figures),
            patterns=["{name}.png", "{name}.svg"],
            category="Figures",
            caption="../report/figures.rst",
        ),
    log:
        declared.study_log("figures"),
    benchmark:
        f"<benchmarks>/figures/{study.name}.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        study=definition_of_study("figures"),
        paths=paths,
    message:
        "figures: {output}"
    script:
        "../scripts/figures.py"
