from vosarena.base.logs import logged
from vosarena.datasets.prepare import prepare_split

params = snakemake.params
with logged(snakemake.log[0]):
    prepare_split(params.split, params.resources)
