from pathlib import Path

from vosarena.data.archives import Archive, fetch_archive
from vosarena.data.sources import policy_of
from vosarena.logs import logged

with logged(snakemake.log[0]):
    resources = Path(snakemake.output.note).parents[2]
    fetch_archive(Archive(**snakemake.params.archive), resources, policy_of(snakemake.params.download))
