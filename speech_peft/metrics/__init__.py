"""Scores a reader can trust: error rates, their intervals, and the page that shows them."""
