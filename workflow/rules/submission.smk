# Write archives of masks for evaluation servers, after every check that is possible without the ground truth.


rule submission:
    input:
        table=declared.sequences("{dataset}/{split}"),
        shards=statuses_of,
    output:
        archive=declared.submission("{dataset}/{split}", "{model}"),
    log:
        "<logs>/submission/<run>.log",
    benchmark:
        "<benchmarks>/submission/<run>.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        store=store_of,
        split=split_of,
        definition=lambda wildcards: split_of(wildcards).model_dump(mode="json"),
    message:
        "{wildcards.model} on {wildcards.dataset}/{wildcards.split}: pack for the server"
    script:
        "../scripts/submission.py"


rule submissions:
    input:
        submissions_of_study,
    message:
        "submissions: {input}"
