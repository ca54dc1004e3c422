# Counts to scores, and scores to tables.


rule leaderboard:
    message:
        "leaderboard"
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
    params:
        protocols={str(split): study.protocols_of(split) for split in study.splits.values()},
    log:
        "<logs>/leaderboard.log",
    benchmark:
        "<benchmarks>/leaderboard.tsv"
    conda:
        "../../envs/default.yaml"
    script:
        "../scripts/leaderboard.py"
