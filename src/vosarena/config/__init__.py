"""The config file and the catalog: keys, defaults, studies and paths."""
