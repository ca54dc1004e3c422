# Counts to scores, and scores to tables.


rule leaderboard:
    input:
        metrics=metrics_of_study,
        tables=tables_of_study,
        submissions=submissions_of_study,
        scores=server_scores,
    output:
        leaderboard=report(
            declared.leaderboard / "leaderboard.csv",
            category="Leaderboard",
            caption="../report/leaderboard.rst",
        ),
        texts=multiext(str(declared.leaderboard / "leaderboard"), ".md", ".tex", ".parquet"),
        tables=expand(
            declared.leaderboard / "{table}.{form}",
            table=["sequences", "objects", "attributes", "comparisons", "reproduction"],
            form=["csv", "parquet"],
        ),
    log:
        declared.study_log("leaderboard"),
    benchmark:
        f"<benchmarks>/leaderboard/{study.name}.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        study=definition_of_study(),
        paths=paths,
    message:
        "leaderboard of {input.metrics}"
    script:
        "../scripts/leaderboard.py"


# What is finished right now, also while jobs run or after some failed. Nothing is declared: it is always made anew,
# and does not wait for another Snakemake in the same folder.
rule partial:
    log:
        declared.study_log("partial"),
    conda:
        "../../envs/default.yaml"
    threads: 2
    params:
        study=definition_of_study(),
        paths=paths,
    message:
        "leaderboard of what is finished, into {params.paths.partial}"
    script:
        "../scripts/partial.py"
