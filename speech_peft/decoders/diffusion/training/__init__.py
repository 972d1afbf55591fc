"""What a masked decoder learns from."""
