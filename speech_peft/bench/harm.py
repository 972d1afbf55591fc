"""Does an adapter do harm? What it makes of clean speech of other speakers, beside what the base makes of it.

A gain on its own kind of speech says nothing about any other, and most users have both.
"""

from collections.abc import Mapping
from typing import Any


def summary(manifest: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    """What `scores.json` keeps of the clean set as `harm`: rates, and how far adapters are from the base."""
    base = next(iter(scores["runs"]))
    return {
        "manifest": manifest,
        "normaliser": scores["normaliser"],
        "metric": scores["metric"],
        "runs": {
            name: {key: run[key] for key in ("n", "wer", "cer")} for name, run in scores["runs"].items()
        },
        "comparisons": [one for one in scores["comparisons"] if one["a"] == base],
    }
