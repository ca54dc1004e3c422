from pathlib import Path

from vosarena.base.logs import logged
from vosarena.datasets.table import index_split

table = Path(snakemake.output.table)
with logged(snakemake.log[0]):
    index_split(table.parent, table, snakemake.params.split)
