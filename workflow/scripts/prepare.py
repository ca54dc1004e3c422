from pathlib import Path

from vosarena.data.archives import archives_of
from vosarena.data.catalog import Split
from vosarena.data.prepare import prepare_split
from vosarena.logs import logged

with logged(snakemake.log[0]):
    done = Path(snakemake.output.done)
    split = Split(**snakemake.params.split)
    prepare_split(split, done.parent)
    origin = ", ".join(archive.file for archive in archives_of(split)) or split.path or "procedural videos"
    done.write_text(f"{split} from {origin}\n")
