"""A system measured on a test set: runs, scores, limits and the page that shows them."""
