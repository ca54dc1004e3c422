from dataclasses import replace
from pathlib import Path

from vosarena.base.logs import logged
from vosarena.datasets.sequences import ANNOTATIONS, IMAGES
from vosarena.inference.interpreter import exec_in_python
from vosarena.inference.job import Job, ShardTask
from vosarena.inference.process import ended_with_all_threads
from vosarena.inference.run import track_shard
from vosarena.predictions.manifest import ModelDefinition

with ended_with_all_threads(), logged(snakemake.log[0]):
    root, status = Path(snakemake.input.table).parent, Path(snakemake.output.status)
    weights = Path(snakemake.input.weights) if snakemake.input.get("weights") else None
    params = snakemake.params
    definition = ModelDefinition.from_json(params.definition)
    # The other CPUs of a job on a GPU prepare frames and write masks.
    threads = params.inference.threads if snakemake.resources.gpu else snakemake.threads
    workers = max(1, snakemake.threads - 1)
    job = Job(
        definition,
        weights,
        params.device,
        params.precision,
        threads,
        params.inference.jobs_per_gpu,
        workers,
        params.real_time,
    )
    files = map(Path, snakemake.input.get("weights_of_members", ()))
    members = {
        name: replace(job, definition=ModelDefinition.from_json(one), weights=next(files) if has_weights else None)
        for name, (one, has_weights) in params.members.items()
    }
    task = ShardTask(
        sequences=tuple(params.sequences),
        images=root / IMAGES,
        annotations=root / ANNOTATIONS,
        job=replace(job, members=members),
        store=Path(params.store),
        resize=params.resize,
        minutes=snakemake.resources.get("runtime"),
        write=params.write,
    )
    if params.python:
        exec_in_python(params.python, Path(snakemake.log[0]), task, status)
    else:
        track_shard(task, status)
