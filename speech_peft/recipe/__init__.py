"""What a run is told: the parts of a recipe, read and checked without torch."""
