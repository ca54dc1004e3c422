from pathlib import Path

from vosarena.data.catalog import Split
from vosarena.logs import logged
from vosarena.reporting.submission import pack_submission

with logged(snakemake.log[0]):
    statuses = [Path(status) for status in snakemake.input.shards]
    split, store = Split(**snakemake.params.split), statuses[0].parents[1]
    pack_submission(split, Path(snakemake.input.table), store, Path(snakemake.output.archive), statuses)
