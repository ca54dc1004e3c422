"""Run trackers on sequences and write their masks into the store."""
