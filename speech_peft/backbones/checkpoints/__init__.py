"""Weights: found by address, converted, read within limits."""
