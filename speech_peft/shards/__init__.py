"""Rows cut into shards: each is worked on by one process of many, and written as one file."""
