from pathlib import Path

from vosarena.base.logs import logged
from vosarena.datasets.archives import Archive, fetch_archive
from vosarena.fetching.sources import policy_of

with logged(snakemake.log[0]):
    resources = Path(snakemake.output.note).parents[2]
    fetch_archive(Archive(**snakemake.params.archive), resources, policy_of(snakemake.params.download))
