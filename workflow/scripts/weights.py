from pathlib import Path

from vosarena.base.logs import logged
from vosarena.fetching.weights import fetch_weights

with logged(snakemake.log[0]):
    params = snakemake.params
    fetch_weights(params.weights, Path(snakemake.output.weights), params.download.policy)
