"""Whisper's text decoder: searches, readings, times of words."""
