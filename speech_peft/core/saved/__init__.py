"""Adapter folders: written whole, read within limits, found by address."""
