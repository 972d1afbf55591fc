"""Adapters trained on a frozen backbone, as a recipe says."""
