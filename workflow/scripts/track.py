from pathlib import Path

from vosarena.data.sequences import ANNOTATIONS, IMAGES
from vosarena.logs import logged
from vosarena.tracking.run import Job, track_shard
from vosarena.tracking.store import Store

with logged(snakemake.log[0]):
    root, status = Path(snakemake.input.table).parent, Path(snakemake.output.status)
    weights = Path(snakemake.input.weights) if snakemake.input.get("weights") else None
    params = snakemake.params
    track_shard(
        params.sequences,
        root / IMAGES,
        root / ANNOTATIONS,
        Job(params.definition, weights, params.device, params.precision, snakemake.threads),
        Store(status.parent.parent),
        status,
        params.resize,
        minutes=snakemake.resources.get("runtime"),
    )
