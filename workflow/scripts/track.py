from pathlib import Path

from vosarena.base.logs import logged
from vosarena.datasets.sequences import ANNOTATIONS, IMAGES
from vosarena.inference.child import ended_with_all_threads
from vosarena.inference.interpreter import track_shard_in
from vosarena.inference.run import Job, track_shard
from vosarena.predictions.store import Store

with ended_with_all_threads(), logged(snakemake.log[0]):
    root, status = Path(snakemake.input.table).parent, Path(snakemake.output.status)
    weights = Path(snakemake.input.weights) if snakemake.input.get("weights") else None
    params = snakemake.params
    shard = {
        "names": params.sequences,
        "images": root / IMAGES,
        "annotations": root / ANNOTATIONS,
        "job": Job(params.definition, weights, params.device, params.precision, snakemake.threads),
        "store": Store(params.store),
        "status": status,
        "resize": params.resize,
        "minutes": snakemake.resources.get("runtime"),
    }
    if params.python:
        track_shard_in(params.python, Path(snakemake.log[0]), **shard)
    track_shard(**shard)
