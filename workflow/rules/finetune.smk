# Train the weights of a model, starting from those of another model, on the splits that its catalog entry names.


rule finetune:
    input:
        weights=lambda wildcards: weights_of(Namespace(model=model_of(wildcards).finetune.from_model)),
        training=lambda wildcards: [declared.sequences(split) for split in model_of(wildcards).finetune.training_splits],
        evaluated=[declared.sequences(split) for split in study.splits],
        held_out=lambda wildcards: [declared.sequences(split) for split in validation_split_of(wildcards)],
    output:
        weights=declared.finetuned("{model}") / "weights.pth",
        losses=declared.finetuned("{model}") / "loss.parquet",
        scores=declared.finetuned("{model}") / "validation.parquet",
        figure=declared.finetuned("{model}") / "curves.svg",
        training=declared.finetuned("{model}") / "training.json",
    log:
        "<logs>/finetune/{model}.log",
    benchmark:
        "<benchmarks>/finetune/{model}.tsv"
    priority: 1  # before other jobs, because tracking with its weights comes last
    conda:
        lambda wildcards: f"../../envs/{model_of(wildcards).env}.yaml"
    threads: lambda wildcards: training_job_of(wildcards).threads
    resources:
        gpu=lambda wildcards: training_job_of(wildcards).gpu,
        gres=lambda wildcards: training_job_of(wildcards).gres,
        nodes=lambda wildcards: training_job_of(wildcards).nodes,
        tasks=lambda wildcards: training_job_of(wildcards).nodes,
        tasks_per_gpu=0,  # torchrun starts the processes
        mem_mb=lambda wildcards, attempt: training_job_of(wildcards).memory_mb * attempt,
        runtime=lambda wildcards, attempt: training_job_of(wildcards).minutes() * attempt,
    params:
        recipe=recipe_of,
        tracker=lambda wildcards: model_of(wildcards).tracker,
        options=lambda wildcards: dict(model_of(wildcards).options),
        definition=definition_of_training,
        files=lambda wildcards: [files_of_split(split) for split in model_of(wildcards).finetune.splits],
        evaluated=list(study.splits),
        held_out=held_out_of,
        device=study.inference.device,
    message:
        "{wildcards.model}: fine-tune on {params.recipe.training_splits}"
    script:
        "../scripts/finetune.py"
