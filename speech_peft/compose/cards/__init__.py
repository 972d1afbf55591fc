"""Adapters in a folder, found by what their cards say and by how they sound."""
