from pathlib import Path

from vosarena.base.logs import logged
from vosarena.config.study import Split
from vosarena.datasets.prepare import prepare_split

with logged(snakemake.log[0]):
    prepare_split(Split(**snakemake.params.split), Path(snakemake.output.done).parent)
