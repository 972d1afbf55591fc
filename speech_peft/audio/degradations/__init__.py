"""Steps that make a clean recording worse: noise, rooms, codecs."""
