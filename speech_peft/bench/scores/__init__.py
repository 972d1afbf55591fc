"""Scores of runs with intervals, one file a task."""
