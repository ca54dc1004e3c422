import shutil
from pathlib import Path

from vosarena.base.logs import logged
from vosarena.finetuning.launch import finetune
from vosarena.finetuning.task import HeldOut, TrainingTask
from vosarena.inference.devices import take_devices

with logged(snakemake.log[0]):
    params, output = snakemake.params, Path(snakemake.output.weights)
    training = [Path(table).parent for table in snakemake.input.training]
    evaluated = [Path(table).parent for table in snakemake.input.evaluated]
    if params.device != "cpu" and params.recipe.nodes == 1:
        take_devices(params.recipe.gpus)
    held_out = [HeldOut(Path(table).parent, **params.held_out) for table in snakemake.input.held_out]
    task = TrainingTask(
        recipe=params.recipe,
        datasets=dict(zip(params.recipe.training_splits, training, strict=True)),
        weights=Path(snakemake.input.weights),
        output=output,
        work=output.parent / "checkpoint",
        tracker=params.tracker,
        options=params.options,
        device=params.device,
        evaluated=dict(zip(params.evaluated, evaluated, strict=True)),
        held_out=held_out[0] if held_out else None,
    )
    finetune(task)
    for path in snakemake.output[1:]:
        shutil.copyfile(task.work / Path(path).name, path)
