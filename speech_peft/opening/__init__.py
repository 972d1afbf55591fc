"""Weights and adapters opened for use, by address."""
