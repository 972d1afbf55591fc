"""A clip as torch reads it, with base and adapter unmerged: what other engines are held against."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray

from ..backbones.whisper import Whisper
from ..opening.loading import Opened

MOST_TOKENS = 24
SECONDS, RATE = 3.0, 16_000


@dataclass(frozen=True)
class Reading:
    """A clip's features, the tokens that are likeliest one after another, and the logits of each."""

    features: Float32[ndarray, "1 m f"]
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logits: Float32[ndarray, "n v"]
    """Row i is what tokens[i] was chosen by."""


@dataclass(frozen=True)
class Difference:
    """How far the logits of an engine are from those of torch, over so many tokens."""

    largest: float
    same: int
    """Tokens that are the likeliest of both."""
    tokens: int


@torch.no_grad()
def read(opened: Opened, whisper: Whisper, samples: Float32[ndarray, " s"], whole: bool) -> Reading:
    """Torch's reading of a clip at 16 kHz; `whole` pads it to the native window, as some engines have to.

    Tokens are chosen greedily and nothing is forbidden, so that each engine chooses as its logits say.
    """
    native = round((whisper.max_seconds or 30.0) * RATE)
    samples = samples[:native]
    lengths = torch.tensor([len(samples)])
    with opened.model.using(*opened.runs):
        audio = torch.from_numpy(samples)[None]
        features = whisper.prepare(audio, lengths, native if whole else 0)
        states = whisper.encode(features).states
        prompt = whisper.generation.prompt()
        tokens, logits = list(prompt), torch.empty(0)
        while len(tokens) < len(prompt) + MOST_TOKENS and tokens[-1] != whisper.generation.eot:
            hidden = whisper.decoder(
                input_ids=torch.tensor([tokens]), encoder_hidden_states=states
            ).last_hidden_state
            logits = whisper.module.get_submodule("proj_out")(hidden)[0, len(prompt) - 1 :].float()
            tokens.append(int(logits[-1].argmax()))
    return Reading(features.values.numpy(), prompt, tuple(tokens[len(prompt) :]), logits.numpy())


def compare(reading: Reading, logits: Float32[ndarray, "n v"]) -> Difference:
    """Over the tokens that the engine got to, up to the first that it would have chosen otherwise."""
    rows = min(len(reading.logits), len(logits))
    same = reading.logits[:rows].argmax(1) == logits[:rows].argmax(1)
    rows = rows if same.all() else int(same.argmin()) + 1
    off = np.abs(reading.logits[:rows] - logits[:rows]).max(initial=0.0)
    return Difference(float(off), int(same[:rows].sum()), rows)


def hum(seconds: float = SECONDS) -> Float32[ndarray, " s"]:
    """A sound for want of a recording: three gliding tones and a little noise, the same at each call."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(0).standard_normal(len(time))
    tones: Sequence[float] = (220.0, 700.0, 1900.0)
    glides = sum(np.sin(2 * np.pi * tone * time * (1 + 0.1 * np.sin(3 * time))) for tone in tones)
    return (0.1 * glides * (1 + np.sin(9 * time)) + 0.01 * noise).astype(np.float32)
