# Masks to integer counts per frame and object.


rule measure:
    input:
        table="<resources>/datasets/{dataset}/{split}/sequences.parquet",
        shards=statuses_of,
    output:
        metrics="<results>/metrics/<run>.parquet",
    log:
        "<logs>/measure/<run>.log",
    benchmark:
        "<benchmarks>/measure/<run>.tsv"
    conda:
        "../../envs/default.yaml"
    threads: 2
    params:
        protocols=lambda wildcards: study.protocols_of(split_of(wildcards)),
        resize=lambda wildcards: split_of(wildcards).resize,
    message:
        "{wildcards.model} on {wildcards.dataset}/{wildcards.split}: compare masks"
    script:
        "../scripts/measure.py"
