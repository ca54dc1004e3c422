from pathlib import Path

from vosarena.base.logs import logged
from vosarena.config.study import Split
from vosarena.submissions.pack import pack_submission

with logged(snakemake.log[0]):
    statuses = [Path(status) for status in snakemake.input.shards]
    split, store = Split(**snakemake.params.split), statuses[0].parents[1]
    pack_submission(split, Path(snakemake.input.table), store, Path(snakemake.output.archive), statuses)
