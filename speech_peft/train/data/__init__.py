"""What a training hears, and in what order."""
