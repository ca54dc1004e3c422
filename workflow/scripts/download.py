from vosarena.base.logs import logged
from vosarena.datasets.archives import fetch_archive

params = snakemake.params
with logged(snakemake.log[0]):
    fetch_archive(params.archive, params.resources, params.download.policy)
