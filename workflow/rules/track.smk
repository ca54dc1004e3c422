# One model on a shard of sequences. The masks go into the store `<results>/predictions/<run>/`, each sequence whole
# or not at all; the declared output only says that all sequences of the shard are there.


rule track:
    input:
        table="<resources>/datasets/{dataset}/{split}/sequences.parquet",
        weights=weights_of,
    output:
        status="<results>/predictions/<run>/.shards/{shard}.json",
    log:
        "<logs>/track/<run>/{shard}.log",
    benchmark:
        "<benchmarks>/track/<run>/{shard}.tsv"
    conda:
        lambda wildcards: f"../../envs/{model_of(wildcards).env}.yaml"
    threads: 1
    resources:
        gpu=lambda wildcards: (1 if model_of(wildcards).weights and study.device != "cpu" else 0),
        mem_mb=lambda wildcards, attempt: (8000 if weights_of(wildcards) else 2000) * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        sequences=lambda wildcards: shards_of(wildcards)[wildcards.shard],
        definition=lambda wildcards: model_of(wildcards).definition(),
        resize=lambda wildcards: split_of(wildcards).resize,
        device=study.device,
        precision=study.precision,
    message:
        "{wildcards.model} on {wildcards.dataset}/{wildcards.split}: {wildcards.shard}"
    script:
        "../scripts/track.py"
