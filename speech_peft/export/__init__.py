"""Trained models as files that other engines open."""
