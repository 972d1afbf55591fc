#!/usr/bin/env python
"""How much a recording restored window by window differs from the same restored at once.

    python scripts/measure_seams.py AUDIO... --adapter FOLDER [--seconds 27] [--window 12]

The recordings are joined to one of `--seconds`, which the encoder can hear as a whole. Prints a JSON line;
`db` is the power of the whole over that of the difference, `changed_db` the same of what restoring changed.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from speech_peft.audio import io
from speech_peft.restore.restorer import Restorer

RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audio", nargs="+", type=Path)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--seconds", type=float, default=27.0)
    parser.add_argument("--window", type=float, default=12.0)
    options = parser.parse_args()
    joined = np.concatenate([io.load(path, RATE).samples for path in options.audio])
    samples = np.resize(joined, round(options.seconds * RATE))
    whole, parts = (restored(options.adapter, samples, window) for window in (30.0, options.window))
    line = {
        "suite": "seams",
        "db": round(ratio(whole, parts), 2),
        "changed_db": round(ratio(samples, whole), 2),
        "seconds": options.seconds,
        "window": options.window,
    }
    print(json.dumps(line))


def restored(adapter: str, samples: np.ndarray, window: float) -> np.ndarray:
    (result,) = Restorer(adapter, guard=None, window_seconds=window).restore(samples, rate=RATE)
    if result.samples is None:
        raise SystemExit(f"not restored: {result.error}")
    return result.samples


def ratio(signal: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(np.square(signal).sum() / np.square(signal - other).sum()))


if __name__ == "__main__":
    main()
