"""Helpers that know nothing about videos: errors, text, files, hashes, locks, logs."""
