"""Methods: one file per family of papers, found by name through `registry.METHODS`."""
