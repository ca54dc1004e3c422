"""Helpers without knowledge of videos: errors, text, files, hashes, locks, logs."""
