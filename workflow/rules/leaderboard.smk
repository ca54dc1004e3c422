# Counts to scores, and scores to tables.


rule leaderboard:
    input:
        metrics=metrics_of_study,
        tables=tables_of_study,
    output:
        leaderboard=multiext("<results>/leaderboard/leaderboard", ".md", ".csv", ".parquet"),
        tables=expand(
            "<results>/leaderboard/{table}.{form}",
            table=["sequences", "objects", "attributes", "comparisons"],
            form=["csv", "parquet"],
        ),
    log:
        "<logs>/leaderboard.log",
    benchmark:
        "<benchmarks>/leaderboard.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        runs=lambda wildcards: [
            dict(dataset=split.dataset, split=split.name, model=model.name, protocols=study.protocols_of(split))
            for split, model in runs(scored=True)
        ],
    message:
        "leaderboard of {input.metrics}"
    script:
        "../scripts/leaderboard.py"
