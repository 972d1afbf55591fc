"""Those who are asked whether a restored recording is still the same: of its voice, its words, its speech."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray

from ..audio import chunks
from .loading import DEFAULT_WEIGHTS, Opened

RATE = 16_000
CLIP_SECONDS = 28.0
"""The longest clip that is compared at once; Whisper hears 30 s."""
Samples = Float32[ndarray, " s"]


@dataclass(frozen=True)
class Words:
    """What a recogniser heard in a clip."""

    text: str
    confidence: float
    """Mean log-probability of a token."""
    loop: bool = False
    """Whether it said the same over and over."""


class Speaker(Protocol):
    """Something that tells voices apart."""

    name: str
    limit: float
    """The cosine that two clips of one voice reach."""

    def __call__(self, clips: Sequence[Samples]) -> Float32[ndarray, " d"]: ...


class Recogniser(Protocol):
    """Something that hears words."""

    name: str

    def __call__(self, clips: Sequence[Samples]) -> list[Words]: ...


def lost_speech(before: Sequence[Samples], after: Sequence[Samples]) -> float | None:
    """The share of the speech of `before`, by Silero's detector, where `after` has none; None without speech.

    It needs no language. Where the detector hesitates (0.3 to 0.5), nothing counts as lost.
    """
    scores = [
        np.concatenate([chunks.detector("silero")(clip) for clip in clips]) for clips in (before, after)
    ]
    spoken = scores[0] >= 0.5
    return float((scores[1][spoken] < 0.3).mean()) if spoken.any() else None


class Resemblyzer:
    """The speaker encoder of the `resemblyzer` package (GE2E, Apache-2.0, weights in its wheel)."""

    name, limit = "resemblyzer", 0.55
    """Of 140 clips of 2 to 12 s, degraded in seven ways, the clean recording reaches it in 96 %, another
    speaker in 72 % (0.65: 81 and 29 %). Noise moves this embedding as far as another voice does, so the limit
    stops gross changes only; a higher one would refuse what was restored best."""

    def __init__(self, device: str = "cpu"):
        from resemblyzer import VoiceEncoder  # type: ignore[import-not-found]

        self._encoder = VoiceEncoder(device, verbose=False)

    def __call__(self, clips: Sequence[Samples]) -> Float32[ndarray, " d"]:
        joined = np.concatenate(clips)
        level = np.sqrt(np.mean(np.square(joined)) + 1e-12)
        return self._encoder.embed_utterance(joined * np.float32(0.03 / level))  # the level it was trained at


class States:
    """The frozen encoder's mean states, without its adapter: no speaker encoder, but always there."""

    name, limit = "mean states of the frozen encoder", 0.95
    """Clean recordings are at 0.974 to 1, and so are those of other speakers (30 pairs): it tells speech from
    what is none, and no voice from another."""

    def __init__(self, opened: Opened):
        self.opened = opened

    @torch.inference_mode()
    def __call__(self, clips: Sequence[Samples]) -> Float32[ndarray, " d"]:
        backbone = self.opened.backbone
        device = next(self.opened.model.parameters()).device
        total, frames = torch.zeros(backbone.dim), 0
        with self.opened.model.using():
            for clip in clips:
                audio = torch.from_numpy(np.ascontiguousarray(clip))[None].to(device)
                encoded = backbone.encode(backbone.prepare(audio, torch.tensor([len(clip)], device=device)))
                states = encoded.states.float()[encoded.mask]
                total, frames = total + states.sum(0).cpu(), frames + len(states)
        return (total / max(1, frames)).numpy()


class Whisper:
    """The embedded Whisper, or another, as the witness of words."""

    def __init__(self, weights: str = DEFAULT_WEIGHTS, device: str = "cpu", offline: bool = False):
        from .transcriber import Transcriber

        self.name = weights
        self._transcriber = Transcriber(weights, device=device, offline=offline, vad="none")

    def __call__(self, clips: Sequence[Samples]) -> list[Words]:
        heard = []
        for result in self._transcriber.transcribe(list(clips)):
            if result.error is not None:
                raise RuntimeError(result.error)
            segments = result.segments
            sure = float(np.mean([s.avg_logprob for s in segments])) if segments else 0.0
            loop = any("loop" in segment.flags for segment in segments)
            heard.append(Words(result.text, sure, loop))
        return heard
