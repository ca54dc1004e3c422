from pathlib import Path

from vosarena.data.catalog import Split
from vosarena.data.prepare import prepare_split
from vosarena.logs import logged

with logged(snakemake.log[0]):
    prepare_split(Split(**snakemake.params.split), Path(snakemake.output.done).parent)
