from pathlib import Path

from vosarena.base.logs import logged
from vosarena.metrics.measure_split import measure_predictions

with logged(snakemake.log[0]):
    wildcards = snakemake.wildcards
    measure_predictions(
        Path(snakemake.input.table),
        [Path(status) for status in snakemake.input.shards],
        Path(snakemake.output.metrics),
        dataset=wildcards.dataset,
        split=wildcards.split,
        model=wildcards.model,
        protocols=snakemake.params.protocols,
        resize=snakemake.params.resize,
        jobs=snakemake.threads,
    )
