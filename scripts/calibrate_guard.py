#!/usr/bin/env python
"""What the guard's measures are on recordings whose answer is known: where its limits should lie.

    python scripts/restoration_sets.py -o SETS --corpora corpora/asterisk
    python scripts/calibrate_guard.py SETS/calibrate/*.jsonl --train SETS/train.jsonl -o runs/guard.jsonl

Limits that are set on the recordings they are tested with say nothing, so every prompt must be one of
`--train`, which restorers learn from. The input is always the degraded recording. What a restorer might have
made of it:

| case | what it is | should |
| --- | --- | --- |
| clean | the clean recording: the best that a restorer can do | pass |
| quieter | input and clean half and half: a restorer that does some of it | pass |
| voice | the clean recording of another speaker | fail by the voice |
| other | another sentence of the same speaker, clean | fail by the words |
| hole | the input without its middle third | fail by the words |

The first line of the output names the data, by content, and the limits of that day. Each other is a case of a
clip: cosines by both measures of the voice, what the recogniser
heard before and after and how sure it was, and the checks of the guard as it is. Prints quantiles and how
many of each case pass; with --read nothing is measured, and the limits of today are tried on an old output.
"""

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from speech_peft.audio import io, manifest
from speech_peft.audio.manifest import Row
from speech_peft.errors import ConfigError
from speech_peft.opening.loading import DEFAULT_WEIGHTS, load
from speech_peft.restore.guard import Limits, Resemblyzer, States, Whisper, Words, compare

RATE = 16_000
SHOULD = {"clean": True, "quieter": True, "voice": False, "other": False, "hole": False}


def main(
    sets: Annotated[list[Path] | None, typer.Argument(help="Manifests of pairs.")] = None,
    train: Annotated[
        Path | None, typer.Option(help="Manifest of the training prompts they are made of.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="JSON lines, a case each.")] = Path(
        "runs/guard.jsonl"
    ),
    clips: Annotated[int, typer.Option(min=2, help="Of each set.")] = 6,
    layer: Annotated[int, typer.Option(help="Of Whisper tiny.en, whose states stand in for a voice.")] = 2,
    read: Annotated[bool, typer.Option("--read", help="Only evaluate what OUT holds.")] = False,
) -> None:
    """Measure, then show what the limits do."""
    if not read:
        if train is None:
            raise ConfigError("--train: name the manifest of training prompts that the sets are made of")
        lists = [manifest.read(path)[:clips] for path in sets or []]
        trained_only(lists, train)
        voices = [Resemblyzer(), States(load(None, DEFAULT_WEIGHTS, context="fit", layer=layer))]
        with out.open("w") as file:
            print(json.dumps({"about": about(sets or [], train, clips)}), file=file)
            for found in measured([rows for rows in lists if rows], voices, Whisper()):
                print(json.dumps(found), file=file, flush=True)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    for line in lines:
        if "about" in line:
            print(json.dumps(line["about"], indent=2))
    show([line for line in lines if "about" not in line])


def trained_only(lists: Sequence[Sequence[Row]], train: Path) -> None:
    """Refuse recordings that are not made of training prompts, by the content of the clean ones."""
    learned = {digest(row.audio) for row in manifest.read(train)}
    for row in (row for rows in lists for row in rows):
        if row.target_audio is None or digest(row.target_audio) not in learned:
            raise ConfigError(
                f"{row.id}: its clean recording is none of {train}; limits are set on training data alone. "
                "Try SETS/calibrate/*.jsonl of restoration_sets.py"
            )


def about(sets: Sequence[Path], train: Path, clips: int) -> dict[str, Any]:
    """What the measures are of."""
    files = {str(path): digest(path) for path in [*sets, train]}
    return {"data": files, "clips_of_each": clips, "limits": asdict(Limits())}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def measured(lists: Sequence[Sequence[Row]], voices: Sequence[Any], hear: Any) -> Iterator[dict[str, Any]]:
    """Cases of every clip; of each set the first one first, so that a part of them is a fair part."""
    everybody = [row for rows in lists for row in rows]
    heard: dict[Path, Words] = {}
    for turn in range(max(map(len, lists))):
        for rows in lists:
            if turn >= len(rows):
                continue
            row = rows[turn]
            degraded, clean = samples(row.audio), samples(row.target_audio)
            others = [o for o in everybody if o.lang == row.lang and o.target_audio != row.target_audio]
            strangers = [o for o in everybody if person(o) != person(row)]
            made = {"clean": clean, "quieter": 0.5 * (degraded + clean), "hole": hole(degraded)}
            if others:
                made["other"] = samples(others[turn % len(others)].target_audio)
            if strangers:
                made["voice"] = samples(strangers[turn * 7 % len(strangers)].target_audio)
            before = {voice.name: voice([degraded]) for voice in voices}
            heard[row.audio] = hear([degraded], [None])[0]
            for case, output in made.items():
                about = {"set": row.audio.parent.name, "id": row.id, "lang": row.lang, "case": case}
                if case in ("clean", "voice", "quieter"):
                    about["similarity"] = {v.name: cosine(before[v.name], v([output])) for v in voices}
                if case != "voice":
                    after = hear([output], [heard[row.audio].language])[0]
                    about["before"], about["after"] = asdict(heard[row.audio]), asdict(after)
                    about["multilingual"] = hear.multilingual
                yield about


def person(row: Row) -> str:
    """Allison speaks two languages."""
    return (row.speaker or "").rpartition("_")[2]


def samples(path: Path | None) -> np.ndarray:
    assert path is not None
    return io.load(path, RATE).samples


def hole(given: np.ndarray) -> np.ndarray:
    """Without its middle third."""
    made = given.copy()
    made[len(made) // 3 : 2 * len(made) // 3] = 0.0
    return made


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def show(cases: Sequence[Mapping[str, Any]]) -> None:
    """Quantiles of the cosines, and how often each case passes the words of the guard as it is."""
    cosines: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for one in cases:
        for measure, value in one.get("similarity", {}).items():
            cosines[measure, one["case"], one["set"]].append(value)
            cosines[measure, one["case"], "all"].append(value)
    print(f"{'cosine by':<36} {'case':<8} {'set':<15} {'n':>4}   min    5 %   25 %   50 %    max")
    for (measure, case, name), values in sorted(cosines.items()):
        shown = " ".join(f"{q:6.3f}" for q in np.quantile(values, [0, 0.05, 0.25, 0.5, 1]))
        print(f"{measure:<36.36} {case:<8} {name:<15} {len(values):>4} {shown}")
    passed: dict[tuple[str, str], list[bool]] = defaultdict(list)
    why: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for one in cases:
        if "before" not in one:
            continue
        before, after = [Words(**one["before"])], [Words(**one["after"])]
        checks = compare(before, after, Limits(), multilingual=one.get("multilingual", False))
        failed = [check.name for check in checks if check.ok is False]
        for key in (one["set"], "all", f"lang {one['lang']}"):
            passed[one["case"], key].append(not failed)
        for name in failed:
            why[one["case"]][name] += 1
    print(f"\n{'words of':<8} {'set':<15} {'n':>4}  pass")
    for (case, name), values in sorted(passed.items()):
        wish = "should" if SHOULD[case] else "should not"
        print(f"{case:<8} {name:<15} {len(values):>4} {np.mean(values):6.2f}  ({wish})")
    for case, names in why.items():
        print(f"{case}: fails by {dict(names)}")


if __name__ == "__main__":
    sys.exit(typer.run(main))
