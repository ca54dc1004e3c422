"""Train a model's weights on splits of datasets."""
