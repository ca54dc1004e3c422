from pathlib import Path

from vosarena.data.sources import policy_of
from vosarena.data.weights import fetch_weights
from vosarena.logs import logged

with logged(snakemake.log[0]):
    policy = policy_of(snakemake.params.download)
    fetch_weights(snakemake.params.weights, Path(snakemake.output.weights), policy)
