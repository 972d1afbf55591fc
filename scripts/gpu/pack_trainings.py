"""What the trainings of scripts/on_gpu need that are measured elsewhere: no test clips, more to learn from.

    scripts/on_gpu pack-trainings FOLDER --corpora CORPORA --text TEXT --sounds MANIFEST --abroad fillets-cs

In the order of their worth, as far as there is room: wheels for Python 3.12, a text that is spoken there,
adapters to go on from, Whisper tiny.en in 8 bits, English speech, five classes of sounds, Whisper base, and
Czech and Dutch with their English, some of it spoken. `loads.py` cuts the folder into what travels at once.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import soundfile
from pack import NEEDED, ROOT, TO_LEARN_FROM, clips, shuffled, size, weights, wheels
from place import SOUNDS

from speech_peft.audio import manifest
from speech_peft.audio.manifest import Row
from speech_peft.prepare.engines.base import Settings, open_voices

SPEAK_AND_ROOMS = ("hibari-tts", "pyroomacoustics")
FOLDS = (1, 2, 3)
SPOKEN = 225
"""Translations that are spoken, by so many voices: the bridge learns from what the decoder makes of them."""
VOICES = 60


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=float, default=176.0)
    parser.add_argument("--corpora", type=Path, default=ROOT / "corpora", help="queen, asterisk-en, ...")
    parser.add_argument("--text", type=Path, help="Sentences that are spoken there.")
    parser.add_argument("--sounds", type=Path, help="A manifest of ESC with its folds.")
    parser.add_argument("--abroad", nargs="*", default=[], help="Corpora whose column `english` is learned.")
    parser.add_argument("--adapter", action="append", default=[], metavar="NAME=FOLDER")
    options = parser.parse_args()
    folder = options.folder
    speech = folder / "clips"

    def rows_of(corpus: str, part: str) -> list[Row]:
        return manifest.read(options.corpora / corpus / f"{part}.jsonl")

    def room() -> float:
        """In which xz will put the weights: to 0.5 of tiny.en, which holds a matrix twice, 0.62 of base."""
        return options.megabytes * 2**20 - size(folder) + 0.5 * size(folder / "weights")

    wheels(folder / "wheels", (*NEEDED, *SPEAK_AND_ROOMS))
    if options.text:
        shutil.copy(options.text, folder / "text.txt")
    for given in options.adapter:
        name, _, where = given.partition("=")
        shutil.copytree(where, folder / "adapters" / name, dirs_exist_ok=True)
    weights(folder / "weights", "tiny.en")
    clips(speech, "strangers_valid", shuffled(rows_of("queen", "valid")), room())
    clips(speech, "voices", shuffled(rows_of("queen", "train")), room())
    clips(speech, "prompts_train", rows_of("asterisk-en", "train"), room(), TO_LEARN_FROM)
    if options.sounds:
        found = [row for row in manifest.read(options.sounds) if row.label in SOUNDS]
        clips(speech, "sounds", [row for row in found if row.extra.get("fold") in FOLDS], room())
    clips(speech, "sky", shuffled(rows_of("steel-sky", "all")), room(), TO_LEARN_FROM)
    weights(folder / "weights", "base")
    for part in ("valid", "train") if options.abroad else ():
        # Both say the same scenes by the same ids.
        every = [
            replace(row, id=f"{row.lang}/{row.id}", extra={"english": row.extra["english"]})
            for corpus in options.abroad
            for row in rows_of(corpus, part)
            if row.extra.get("english")
        ]
        every = shuffled(every) if part == "train" else every
        clips(speech, f"abroad_{part}", every, room() - 2 * 2**20, TO_LEARN_FROM)
        if part == "train":
            answered(speech, f"abroad_{part}")
    print(f"{folder}: {size(folder) / 2**20:.1f} MiB; next: python scripts/gpu/loads.py pack {folder} LOADS")


def answered(folder: Path, name: str) -> None:
    """Give some rows of a manifest their English as a synthetic voice says it."""
    path = folder / f"{name}.jsonl"
    rows, voices = manifest.read(path), open_voices("hibari", Settings(VOICES, 0))
    manifest.write(path, [_answered(folder / "english", i, row, voices) for i, row in enumerate(rows)])


def _answered(folder: Path, number: int, row: Row, voices: Sequence) -> Row:
    if number >= SPOKEN:
        return row
    voice = voices[number % len(voices)]
    samples, audio = voice.say(row.extra["english"]), folder / f"{number}.ogg"
    if len(samples) < 0.2 * voice.sample_rate:
        return row
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(
        audio, samples.clip(-1, 1), voice.sample_rate, format="OGG", subtype="OPUS", compression_level=0.95
    )
    return replace(row, target_audio=audio)


if __name__ == "__main__":
    main()
