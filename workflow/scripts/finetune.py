import shutil
from pathlib import Path

from vosarena.base.logs import logged
from vosarena.finetuning.train import finetune

with logged(snakemake.log[0]):
    recipe, output = snakemake.params.recipe, Path(snakemake.output.weights)
    training = [Path(table).parent for table in snakemake.input.training]
    evaluated = [Path(table).parent for table in snakemake.input.evaluated]
    finetune(
        recipe,
        dict(zip(recipe.data, training, strict=True)),
        Path(snakemake.input.weights),
        output,
        output.parent / "checkpoint",
        snakemake.params.device,
        dict(zip(snakemake.params.evaluated, evaluated, strict=True)),
    )
    for name in ("losses", "figure"):
        target = Path(snakemake.output[name])
        shutil.copyfile(output.parent / "checkpoint" / target.name, target)
