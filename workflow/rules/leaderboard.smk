# Compute scores from counts, and write tables of the scores.


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
        speed=multiext(str(declared.leaderboard / "speed"), ".md", ".tex", ".csv", ".parquet"),
        by_objects=multiext(str(declared.leaderboard / "speed_by_objects"), ".csv", ".parquet"),
        tables=expand(
            declared.leaderboard / "{table}.{form}",
            table=["sequences", "objects", "attributes", "comparisons", "survival", "reproduction"],
            form=["csv", "parquet"],
        ),
        references=declared.references,
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


# Build a leaderboard from the sequences that are finished now, also while jobs are running or after some failed. No
# inputs or outputs are declared, so it always runs and does not wait for another Snakemake in the same folder.
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
