from vosarena.base.logs import logged
from vosarena.datasets.archives import extract_archive
from vosarena.fetching.sources import policy_of

params = snakemake.params
with logged(snakemake.log[0]):
    keep = params.download.get("archives") != "remove"
    extract_archive(params.archive, params.resources, policy_of(params.download), keep)
