"""Runs of a system over a test set, one file a task."""
