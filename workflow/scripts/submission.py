from pathlib import Path

from vosarena.data.catalog import Split
from vosarena.logs import logged
from vosarena.reporting.submission import pack_submission

with logged(snakemake.log[0]):
    predictions = Path(snakemake.input.shards[0]).parents[1]
    split = Split(**snakemake.params.split)
    pack_submission(split, Path(snakemake.input.table), predictions, Path(snakemake.output.archive))
