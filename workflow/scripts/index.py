from pathlib import Path

from vosarena.base.logs import logged
from vosarena.config.study import Split
from vosarena.datasets.table import index_split

with logged(snakemake.log[0]):
    table = Path(snakemake.output.table)
    index_split(table.parent, table, Split(**snakemake.params.split))
