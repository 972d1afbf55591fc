"""Sweeps: the grid, what is measured of each of its cells, and the table of them all."""
