"""What commands say on a terminal, and the exit code that they end with."""
