"""Results as text files: txt, srt, vtt, tsv, json, jsonl."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ..files import escapes, json_text
from .result import Choice, Result, Segment
from .routing.drawing import page
from .routing.routed import Routing
from .subtitles import PLAIN, Shape, cues

SCHEMA = 1
"""Version of the JSON; Whisper's own fields keep their names and meaning."""


def as_json(result: Result) -> dict[str, Any]:
    """A superset of what openai-whisper writes."""
    return {
        "schema": SCHEMA,
        "text": result.text,
        "language": result.language,
        "duration": round(result.duration, 3),
        "rtfx": round(result.duration / result.seconds, 2) if result.seconds else None,
        "truncated": result.truncated,
        "notes": list(result.notes),
        "segments": [_segment(segment) for segment in result.segments],
        **({"routing": _routing(result.routing)} if result.routing else {}),
        **({"chosen": [_choice(start, one) for start, one in result.chosen]} if result.chosen else {}),
        **({"views": [_view(start, one) for start, one in result.views]} if result.views else {}),
        **result.about,
    }


def _view(start: float, view: int) -> dict[str, Any]:
    return {"start": round(start, 3), "microphone": view}


def _routing(routing: Routing) -> dict[str, Any]:
    """Mean weights by site, and by half seconds the mean of the sites."""
    steps = routing.weights.mean(0).tolist()
    return {
        "adapters": list(routing.adapters),
        "sites": {site: _rounded(shares) for site, shares in routing.means.items()},
        "steps": [
            {"start": round(start, 3), "weights": [round(share, 4) for share in shares]}
            for start, shares in zip(routing.starts, steps, strict=True)
        ],
    }


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    return {name: round(share, 4) for name, share in shares.items()}


def _choice(start: float, choice: Choice) -> dict[str, Any]:
    return {
        "start": round(start, 3),
        "adapters": dict(choice.adapters),
        "language": choice.language,
        "why": choice.why,
    }


def _segment(segment: Segment) -> dict[str, Any]:
    row = asdict(segment)
    for name in ("start", "end"):
        row[name] = round(row[name], 3)
    for name in ("avg_logprob", "no_speech_prob", "compression_ratio"):
        row[name] = round(row[name], 4)
    row["words"] = [
        word
        | {
            "start": round(word["start"], 3),
            "end": round(word["end"], 3),
            "probability": round(word["probability"], 4),
        }
        for word in row["words"]
    ]
    return row


def _txt(result: Result, shape: Shape) -> str:
    return "".join(f"{escapes.line(segment.text)}\n" for segment in result.segments)


def _json(result: Result, shape: Shape) -> str:
    return json_text.write(as_json(result), ensure_ascii=False, indent=2) + "\n"


def _jsonl(result: Result, shape: Shape) -> str:
    """One object a segment."""
    rows = (_segment(segment) for segment in result.segments)
    return "".join(json_text.write(row, ensure_ascii=False) + "\n" for row in rows)


def _tsv(result: Result, shape: Shape) -> str:
    """Milliseconds, as openai-whisper writes them."""
    rows = [(round(1000 * s.start), round(1000 * s.end), escapes.line(s.text)) for s in result.segments]
    return "".join("\t".join(map(str, row)) + "\n" for row in [("start", "end", "text"), *rows])


def _srt(result: Result, shape: Shape) -> str:
    return _subtitles(result, shape, escapes.srt).to_string("srt")


def _vtt(result: Result, shape: Shape) -> str:
    return _subtitles(result, shape, escapes.vtt).to_string("vtt")


def _subtitles(result: Result, shape: Shape, escape: Callable[[str], str]) -> Any:
    from pysubs2 import SSAEvent, SSAFile

    file = SSAFile()
    for cue in cues(result, shape, escape):
        event = SSAEvent(start=round(1000 * cue.start), end=round(1000 * cue.end))
        event.plaintext = cue.text.replace("-->", "→")  # also one that two words make together
        file.append(event)
    return file


WRITERS: dict[str, Callable[[Result, Shape], str]] = {
    "txt": _txt,
    "srt": _srt,
    "vtt": _vtt,
    "tsv": _tsv,
    "json": _json,
    "jsonl": _jsonl,
}
DRAWN = "html"
"""The page of a fusion's choices, written where it is asked for by name."""


def render(result: Result, format: str, shape: Shape = PLAIN) -> str:
    """The content of the file; the shape is that of subtitles."""
    return page(result) if format == DRAWN else WRITERS[format](result, shape)
