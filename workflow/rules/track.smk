# Run one model on a shard of sequences. The masks are written to the store `<results>/predictions/<run>/`, where each
# sequence is either complete or missing. The declared output only shows that all sequences of the shard are complete.

# The resources of a job grow with the work in its shard and with every attempt.


rule track:
    input:
        table=declared.sequences("{dataset}/{split}"),
        weights=weights_of,
        members=members_of,
        weights_of_members=weights_of_members,
    output:
        status=declared.shard("{dataset}/{split}", "{model}", "{shard}"),
    log:
        declared.shard_logs("{dataset}/{split}", "{model}") / "{shard}.log",
    benchmark:
        "<benchmarks>/track/<run>/{shard}.tsv"
    conda:
        lambda wildcards: f"../../envs/{model_of(wildcards).env}.yaml"
    threads: cpus_of
    resources:
        gpu=lambda wildcards: int(kind_of(wildcards) == "gpu"),
        mem_mb=lambda wildcards, attempt: workload_of_shard(wildcards).memory_mb(kind_of(wildcards)) * attempt,
        runtime=lambda wildcards, attempt: workload_of_shard(wildcards).minutes(kind_of(wildcards)) * attempt,
    params:
        store=store_of,
        sequences=lambda wildcards: shards_of(wildcards)[wildcards.shard],
        definition=lambda wildcards: model_of(wildcards).definition(split_of(wildcards)).to_json(),
        python=lambda wildcards: model_of(wildcards).python,
        stored=stored_masks_of,
        members=lambda wildcards: {
            name: [model.definition().to_json(), bool(weights_of(Namespace(model=name)))]
            for name, model in tracking_members_of(wildcards).items()
        },
        resize=lambda wildcards: split_of(wildcards).resize,
        write=frames_to_write,
        inference=study.inference,
        device=study.inference.device,
        precision=study.inference.precision,
        real_time=study.inference.real_time,
    message:
        "{wildcards.model} on {wildcards.dataset}/{wildcards.split}: {wildcards.shard}"
    script:
        "../scripts/track.py"
