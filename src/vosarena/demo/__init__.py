"""Procedural videos with exact ground truth, the same on every machine."""
