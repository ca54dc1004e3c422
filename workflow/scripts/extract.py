from pathlib import Path

from vosarena.base.logs import logged
from vosarena.datasets.archives import Archive, extract_archive
from vosarena.fetching.sources import policy_of

with logged(snakemake.log[0]):
    resources = Path(snakemake.output.note).parents[2]
    download = snakemake.params.download
    keep = download.get("archives") != "remove"
    extract_archive(Archive(**snakemake.params.archive), resources, policy_of(download), keep)
