from pathlib import Path

from vosarena.data.weights import fetch_weights
from vosarena.logs import logged

with logged(snakemake.log[0]):
    fetch_weights(snakemake.params.weights, Path(snakemake.output.weights))
