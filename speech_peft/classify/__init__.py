"""Recordings to labels."""
