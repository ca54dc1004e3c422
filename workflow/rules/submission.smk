# Masks to archives for evaluation servers, after every check that can be made without the ground truth.


rule submission:
    input:
        table="<resources>/datasets/{dataset}/{split}/sequences.parquet",
        shards=statuses_of,
    output:
        archive="<results>/submissions/<run>.zip",
    log:
        "<logs>/submission/<run>.log",
    benchmark:
        "<benchmarks>/submission/<run>.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        split=lambda wildcards: asdict(split_of(wildcards)),
    message:
        "{wildcards.model} on {wildcards.dataset}/{wildcards.split}: pack for the server"
    script:
        "../scripts/submission.py"


rule submissions:
    input:
        submissions_of_study,
    message:
        "submissions: {input}"
