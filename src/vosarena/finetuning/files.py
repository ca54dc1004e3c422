"""Names of the tables of a training, which need no torch."""

LOSSES, SCORES = "loss.parquet", "validation.parquet"
