# Counts to scores, and scores to tables.


rule leaderboard:
    input:
        metrics=metrics_of_study,
    output:
        multiext(
            "<results>/leaderboard/leaderboard",
            parquet=".parquet",
            csv=".csv",
            markdown=".md",
        ),
        sequences=multiext("<results>/leaderboard/sequences", ".parquet", ".csv"),
        objects=multiext("<results>/leaderboard/objects", ".parquet", ".csv"),
    log:
        "<logs>/leaderboard.log",
    benchmark:
        "<benchmarks>/leaderboard.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        protocols={
            str(split): study.protocols_of(split) for split in study.splits.values()
        },
    message:
        "leaderboard"
    script:
        "../scripts/leaderboard.py"
