"""Run a tracker on sequences and write its masks into the store."""
