#!/usr/bin/env python
"""Test sets of restoration, and the manifests to train on: one voice is held out whole.

    python scripts/restoration_sets.py -o OUT --corpora corpora/asterisk [--noise FOLDER ...]

Who speaks the Asterisk prompts (16 kHz, CC BY-SA 3.0):

| language | voice | in |
| --- | --- | --- |
| en, es | Allison (one woman in two languages) | training |
| it | Carlo | training |
| ru | a woman, `IvrvoiceRU` | training |
| fr | June | the tests of `held_out` alone |

`OUT/train.jsonl` and `valid.jsonl` are the clean prompts of their splits, without the held-out voice; that
is what to train a restorer on. `OUT/held_out/SET.jsonl` are prompts of the voice that is in neither, and
`OUT/known/SET.jsonl` test prompts of the voices that are, whose sentences are in neither. Prompts of
`train.jsonl` are in `OUT/calibrate/SET.jsonl`, for what may be set by training data alone
(`calibrate_guard.py`); recorded noise is not, as it is for tests. Each row is a degraded recording with the
clean one as `target_audio`, its text, and `degradation`, what was drawn.

The seed is none that a recipe has, and rooms are simulated: those of the preset `restoration` are not. The
same prompts, options and packages give the same samples.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from speech_peft.audio import io, manifest
from speech_peft.audio.degrade import Degrader, parse
from speech_peft.audio.manifest import Row
from speech_peft.bench.own_files import Others, own_file
from speech_peft.errors import ConfigError

LANGUAGES = ("en", "es", "fr", "it", "ru")
HELD_OUT = "fr"
SEED = 90_210
RATE = 16_000
SECONDS = (2.0, 12.0)
"""Shorter ones tell no voice; longer ones cost the judge."""

_NOISE = {"kind": "noise", "snr": [0, 10], "colors": ["white", "pink", "brown", "hum"]}
_BABBLE = {"kind": "babble", "snr": [0, 10]}
_ROOM = {"kind": "reverb", "rt60": [0.2, 0.9], "rooms": "simulated"}
_BAND = {"kind": "band_limit", "low": [0, 300], "high": [2000, 4000]}
_CLIP = {"kind": "clip", "level": [0.15, 0.6], "soft": 0.3}
_CODEC = {"kind": "codec", "codecs": ["mp3", "opus", "aac", "alaw", "mulaw", "gsm"]}
SETS: dict[str, list[dict[str, Any]]] = {
    "noise": [{"kind": "one_of", "steps": [_NOISE, _NOISE, _BABBLE]}],
    "band_limit": [_BAND],
    "clip": [_CLIP],
    "codec": [_CODEC],
    "reverb": [_ROOM],
    "mixed": [
        {**_ROOM, "p": 0.5},
        {"kind": "one_of", "steps": [_NOISE, _NOISE, _BABBLE]},
        {**_BAND, "p": 0.3},
        {**_CLIP, "p": 0.3},
        {**_CODEC, "p": 0.5},
    ],
}
RECORDED = "recorded_noise"
"""The set of `--noise`: noise that nobody computed."""


@dataclass(frozen=True)
class Made:
    """A set that was written."""

    path: Path
    rows: int
    seconds: float


def choose(rows: Sequence[Row], number: int, name: str) -> list[Row]:
    """`number` rows of a fair length, others for each set, by a hash of its name and their ids."""
    fair = [row for row in rows if SECONDS[0] <= (row.duration or 0.0) <= SECONDS[1]]
    fair.sort(key=lambda row: hashlib.sha256(f"{name}\n{row.lang}\n{row.id}".encode()).digest())
    return fair[:number]


def write_set(
    rows: Sequence[Row], steps: Sequence[Mapping[str, Any]], path: Path, pool: Sequence[Row], seed: int = SEED
) -> Made:
    """The rows degraded, their clean recordings beside them, and the manifest of both."""
    degrader, made = Degrader(parse(steps), seed), []
    where = {id(row): place for place, row in enumerate(pool)}
    for row in rows:
        named = replace(row, id=f"{row.lang}/{row.id}")
        clean = own_file(named, path.parent.parent / "clean").with_suffix(row.audio.suffix)
        clean.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(row.audio, clean)
        samples = io.load(clean, RATE).samples
        result = degrader(samples, RATE, id=named.id, pool=Others(pool, where[id(row)]))
        target = own_file(named, path.with_suffix(""))
        io.save(target, result.samples, RATE, "FLOAT")  # louder than full scale is not cut off
        drawn = json.dumps(result.applied, default=str)
        extra = {**row.extra, "degradation": drawn, "kind": _kind(result.applied)}
        duration = len(samples) / RATE
        made.append(replace(named, audio=target, duration=duration, target_audio=clean, extra=extra))
    manifest.write(path, made)
    return Made(path, len(made), sum(row.duration or 0.0 for row in made))


def _kind(applied: Sequence[Mapping[str, Any]]) -> str:
    """What was done in words, as a column to slice by: `noise pink`, `babble`, `codec gsm`."""
    names = []
    for step in applied:
        more = next((step[key] for key in ("color", "codec") if key in step), "")
        names.append(f"{step.get('step', step['kind'])} {more}".strip())
    return " + ".join(names)


def prompts(folder: Path) -> dict[str, dict[str, list[Row]]]:
    """By language its splits; what is not there is prepared."""
    from speech_peft.prepare.corpora.asterisk_prompts import prepare

    found = {}
    for lang in LANGUAGES:
        if not (folder / lang / "corpus.json").is_file():
            print(f"preparing the prompts of {lang} ...", flush=True)
            prepare(folder / lang, lang=lang)
        found[lang] = {
            part: manifest.read(folder / lang / f"{part}.jsonl") for part in ("train", "valid", "test")
        }
    return found


def main(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the manifests and recordings.")],
    corpora: Annotated[
        Path, typer.Option(help="Folder with the prepared prompts: en, es, fr, it, ru.")
    ] = Path("corpora/asterisk"),
    noise: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of recorded noise, such as ESC-10's rain; may be repeated: one more set."),
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="Of the held-out voice in each set.")] = 24,
    known: Annotated[int, typer.Option(min=0, help="Of each language of the other voices in each set.")] = 5,
    calibrate: Annotated[int, typer.Option(min=0, help="Training prompts of each language in each set.")] = 5,
    seed: Annotated[int, typer.Option(help="Of what is drawn; recipes have 0.")] = SEED,
) -> None:
    """Write the test sets and the manifests to train on."""
    for folder in noise or ():
        if not manifest.recordings(folder):
            raise ConfigError(f"--noise {folder}: holds no recordings")
    found = prompts(corpora)
    for part in ("train", "valid"):
        rows = [
            replace(row, id=f"{lang}/{row.id}")
            for lang in LANGUAGES
            if lang != HELD_OUT
            for row in found[lang][part]
        ]
        manifest.write(out / f"{part}.jsonl", rows)
        print(f"{part}: {len(rows)} clean prompts -> {out / part}.jsonl")
    sets = dict(SETS)
    if noise:
        sets[RECORDED] = [{"kind": "noise", "snr": [0, 10], "files": [str(folder) for folder in noise]}]
    unheard = [row for part in found[HELD_OUT].values() for row in part]
    heard, learned = (
        {lang: found[lang][part] for lang in LANGUAGES if lang != HELD_OUT} for part in ("test", "train")
    )
    for name, steps in sets.items():
        chosen = {"held_out": (choose(unheard, clips, name), unheard)}
        for group, voices, number in (("known", heard, known), ("calibrate", learned, calibrate)):
            if number and (group, name) != ("calibrate", RECORDED):
                pool = [row for rows in voices.values() for row in rows]
                few = [row for rows in voices.values() for row in choose(rows, number, name)]
                chosen[group] = (few, pool)
        for group, (rows, pool) in chosen.items():
            made = write_set(rows, steps, out / group / f"{name}.jsonl", pool, seed)
            print(f"{group}/{name}: {made.rows} clips, {made.seconds / 60:.1f} min -> {made.path}")


if __name__ == "__main__":
    typer.run(main)
