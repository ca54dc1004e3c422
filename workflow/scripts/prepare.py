from pathlib import Path

from vosarena.data.catalog import Split
from vosarena.data.prepare import prepare_split
from vosarena.logs import logged

with logged(snakemake.log[0]):
    done = Path(snakemake.output.done)
    split = Split(**snakemake.params.split)
    prepare_split(split, done.parent)
    done.write_text(f"{split} from {split.path or 'procedural videos'}\n")
