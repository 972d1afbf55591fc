"""Recordings to recordings without noise, gaps and echoes."""
