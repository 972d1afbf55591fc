"""Networks of our own, for models of which transformers has none."""
