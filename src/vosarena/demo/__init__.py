"""Procedural sequences with exact ground truth, identical on every machine."""
