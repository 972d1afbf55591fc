"""What a manifest will cost, measured on a minute of it."""
