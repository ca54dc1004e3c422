from pathlib import Path

from vosarena.base.logs import logged
from vosarena.metrics.measure_split import measure_predictions

files, params, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
with logged(snakemake.log[0]):
    measure_predictions(
        Path(files.table),
        params.store,
        [Path(status) for status in files.shards],
        Path(snakemake.output.metrics),
        dataset=wildcards.dataset,
        split=wildcards.split,
        model=wildcards.model,
        protocols=params.protocols,
        resize=params.resize,
        jobs=snakemake.threads,
    )
