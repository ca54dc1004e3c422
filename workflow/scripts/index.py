from pathlib import Path

from vosarena.data.catalog import Split
from vosarena.data.index import index_split
from vosarena.logs import logged

with logged(snakemake.log[0]):
    table = Path(snakemake.output.table)
    index_split(table.parent, table, Split(**snakemake.params.split))
