from vosarena.base.logs import logged
from vosarena.datasets.archives import extract_archive

params = snakemake.params
with logged(snakemake.log[0]):
    keep = params.download.archives == "keep"
    extract_archive(params.archive, params.resources, params.download.policy, keep)
