from vosarena.base.logs import logged
from vosarena.datasets.archives import fetch_archive
from vosarena.fetching.sources import policy_of

params = snakemake.params
with logged(snakemake.log[0]):
    fetch_archive(params.archive, params.resources, policy_of(params.download))
