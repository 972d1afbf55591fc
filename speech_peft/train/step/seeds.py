"""Randomness as a function of a place in the run: a resumed run draws again what it drew there."""

import hashlib


def seed(*parts: int) -> int:
    """A 63-bit seed; the same parts give the same seed on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def chance(*parts: int) -> float:
    """A number in [0, 1) that the parts decide."""
    return seed(*parts, 1) / 2**63
