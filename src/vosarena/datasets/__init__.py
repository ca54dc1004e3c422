"""From a dataset's name to a table of its sequences."""
