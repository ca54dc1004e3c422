from pathlib import Path

from vosarena.base.logs import logged
from vosarena.submissions.pack import pack_submission

files, params = snakemake.input, snakemake.params
with logged(snakemake.log[0]):
    statuses = [Path(status) for status in files.shards]
    pack_submission(params.split, Path(files.table), params.store, Path(snakemake.output.archive), statuses)
