"""Sounds of a kind at given moments, made by a mel diffusion and adapters in it."""
