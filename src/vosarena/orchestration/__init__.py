"""Parts that only the Snakemake workflow needs: checks before a run, shards, failures."""
