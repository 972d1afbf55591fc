"""Files that others wrote, read with limits; files of ours, written for others to read."""
