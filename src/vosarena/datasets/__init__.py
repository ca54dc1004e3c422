"""Datasets: archives, layouts, prepared splits and the table of their sequences."""
