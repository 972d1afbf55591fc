"""Adapters that differ by what a clip is said to be: its task, or its language."""
