# Train the weights of a model, starting from those of another model, on the splits that its catalog entry names.


rule finetune:
    input:
        weights=lambda wildcards: weights_of(Namespace(model=model_of(wildcards).finetune.from_model)),
        training=lambda wildcards: [declared.sequences(split) for split in model_of(wildcards).finetune.data],
        evaluated=[declared.sequences(split) for split in study.splits],
    output:
        weights=declared.finetuned("{model}") / "weights.pth",
        losses=declared.finetuned("{model}") / "loss.parquet",
        figure=declared.finetuned("{model}") / "loss.svg",
    log:
        "<logs>/finetune/{model}.log",
    benchmark:
        "<benchmarks>/finetune/{model}.tsv"
    conda:
        lambda wildcards: f"../../envs/{model_of(wildcards).env}.yaml"
    threads: 2
    resources:
        gpu=0 if study.inference.device == "cpu" else 1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 2880 * attempt,
    params:
        recipe=lambda wildcards: model_of(wildcards).finetune,
        definition=lambda wildcards: model_of(wildcards).finetune.model_dump(mode="json"),
        evaluated=list(study.splits),
        device=study.inference.device,
    message:
        "{wildcards.model}: fine-tune on {params.definition[data]}"
    script:
        "../scripts/finetune.py"
