"""Classifications as files: csv, json, jsonl.

A recording has one row for itself (`span` is "clip") and, when it is longer than a window, one for each
window of its timeline ("window"). Numbers are rounded here and nowhere else.
"""

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any

from ..files import escapes, json_text
from .result import Classified, Heard

SCHEMA = 1
Top = list[list[str | float]]


def as_json(result: Classified, top_k: int) -> dict[str, Any]:
    """Everything there is to say, adapter by adapter."""
    return {
        "schema": SCHEMA,
        "id": result.id,
        "audio_filepath": result.path,
        "duration": round(result.duration, 3),
        "rtfx": round(result.duration / result.seconds, 2) if result.seconds else None,
        "truncated": result.truncated,
        "notes": list(result.notes),
        "adapters": {name: _adapter(heard, top_k) for name, heard in result.heard.items()},
        **result.about,
    }


def _adapter(heard: Heard, top_k: int) -> dict[str, Any]:
    windows = [
        {"start": round(w.start, 3), "end": round(w.end, 3), "top": _top(heard.top(top_k, w))}
        for w in heard.windows
    ]
    return {"top": _top(heard.top(top_k)), "windows": windows}


def _top(labels: tuple[tuple[str, float], ...]) -> Top:
    return [[label, round(probability, 6)] for label, probability in labels]


def rows(result: Classified, top_k: int) -> Iterator[dict[str, Any]]:
    """The recording, then its windows in the order of time, for one adapter after the other."""
    for name, heard in result.heard.items():
        spans: list[tuple[str, float, float, Top]] = [("clip", 0.0, result.duration, _top(heard.top(top_k)))]
        if len(heard.windows) > 1:
            spans += [("window", w.start, w.end, _top(heard.top(top_k, w))) for w in heard.windows]
        for span, start, end, top in spans:
            yield {
                "id": result.id,
                "audio_filepath": result.path,
                "adapter": name,
                "span": span,
                "start": round(start, 3),
                "end": round(end, 3),
                "top": top,
            }


def _json(result: Classified, top_k: int) -> str:
    return json_text.write(as_json(result, top_k), ensure_ascii=False, indent=2) + "\n"


def _jsonl(result: Classified, top_k: int) -> str:
    return "".join(json_text.write(row, ensure_ascii=False) + "\n" for row in rows(result, top_k))


def _csv(result: Classified, top_k: int) -> str:
    """The columns of jsonl, with label_1, probability_1, label_2, ... for `top`; no cell is a formula."""
    table = list(rows(result, top_k))
    most = max((len(row["top"]) for row in table), default=0)
    ranks = [f"{name}_{rank}" for rank in range(1, most + 1) for name in ("label", "probability")]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*(name for name in table[0] if name != "top"), *ranks])
    for row in table:
        top = row.pop("top")
        cells = [*row.values(), *(cell for pair in top for cell in pair)]
        writer.writerow([escapes.csv(cell) if isinstance(cell, str) else cell for cell in cells])
    return file.getvalue()


WRITERS: dict[str, Callable[[Classified, int], str]] = {"csv": _csv, "json": _json, "jsonl": _jsonl}


def render(result: Classified, format: str, top_k: int) -> str:
    """The content of the file; `format` is a key of WRITERS."""
    return WRITERS[format](result, top_k)
