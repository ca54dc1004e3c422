from pathlib import Path

from vosarena.base.logs import logged
from vosarena.fetching.sources import policy_of
from vosarena.fetching.weights import fetch_weights

with logged(snakemake.log[0]):
    policy = policy_of(snakemake.params.download)
    fetch_weights(snakemake.params.weights, Path(snakemake.output.weights), policy)
