# Compute integer counts per frame and object from masks.


rule measure:
    input:
        table=declared.sequences("{dataset}/{split}"),
        shards=statuses_of,
    output:
        metrics=declared.metrics("{dataset}/{split}", "{model}"),
    log:
        "<logs>/measure/<run>.log",
    benchmark:
        "<benchmarks>/measure/<run>.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        store=store_of,
        protocols=lambda wildcards: study.protocols_of(split_of(wildcards)),
        resize=lambda wildcards: split_of(wildcards).resize,
    message:
        "{wildcards.model} on {wildcards.dataset}/{wildcards.split}: compare masks"
    script:
        "../scripts/measure.py"
