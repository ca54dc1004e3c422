"""vosarena: a benchmark of semi-supervised video object segmentation."""

__version__ = "0.1.0"
