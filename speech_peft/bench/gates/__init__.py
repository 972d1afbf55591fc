"""Limits on scores: what a build or a nightly job asks of them."""
