"""Rows cut into shards, each worked on by one process and written as one file: as many machines as there are."""
