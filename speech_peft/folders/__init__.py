"""Folder in, folder out: planned, done once, gone on with after any interruption."""
