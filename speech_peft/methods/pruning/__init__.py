"""Which weights of an adapter are worth keeping: scores of them, and how many stay."""
