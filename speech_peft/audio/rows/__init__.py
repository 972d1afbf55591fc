"""Manifests: the rows of recordings that every task reads, in every form that they are written in."""
