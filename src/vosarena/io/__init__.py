"""Frames, masks and videos as pixels: readers and writers."""
