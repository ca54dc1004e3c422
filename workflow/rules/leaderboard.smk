# Counts to scores, and scores to tables.


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
