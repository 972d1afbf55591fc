"""What adapters listen to besides their own input, and by what."""
