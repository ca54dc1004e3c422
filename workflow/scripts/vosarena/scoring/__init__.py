"""From masks to scores: pairs of files, counts per frame and object (Parquet), protocols, the command `evaluate`."""
