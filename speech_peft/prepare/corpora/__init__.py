"""Corpora as people have them on disk -> manifests. One file each, found through the registry."""
