"""Long recordings cut into what a model hears at once."""
