"""A module of this name clashes with SAM 2's on purpose: so do many of its forks."""
