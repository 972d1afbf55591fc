"""Whisper by CTranslate2: its decoder finds the texts, several batches at a time, in int8 on a CPU.

The encoder is CTranslate2's too, or torch's: where a CPU multiplies bfloat16 in hardware torch encodes twice
as fast as int8 there does, and an adapter that is no change of weights runs in torch alone. Both encode as
many frames as there are. CTranslate2 masks no padding, so a batch holds clips of one length.
"""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from . import word_times
from .search import Found
from .whisper_reader import never_written
from .word_times import TimedWord

if TYPE_CHECKING:
    from ...backbones.base import Features
    from ...backbones.whisper import Whisper

_SHORTEST_FRAMES = 8  # that CTranslate2 aligns: its median filter has seven


class Ct2Engine:
    """A `ctranslate2.models.Whisper` beside the torch model of the same weights."""

    name: str = "ct2"
    stretch: float = 1.0
    most_rows: int | None = 8  # twice as many are no faster

    def __init__(
        self,
        backbone: "Whisper",
        model: Any,
        workers: int = 1,
        own_encoder: bool = True,
        hooked: bool = False,
    ):
        """`own_encoder`: CTranslate2 encodes too. `hooked`: adapters hang on the encoder, which then hears
        one batch at a time."""
        self.backbone, self.model, self.workers, self.own_encoder = backbone, model, workers, own_encoder
        self._one_at_a_time: Any = threading.Lock() if hooked else nullcontext()
        self._never = never_written(backbone.generation, backbone.module.config.vocab_size)

    def encode(self, features: "Features") -> Float[Tensor, "b t d"]:
        """In float32, on the CPU or where the model is."""
        if self.own_encoder:
            return _tensor(self.model.encode(_view(features.values), to_cpu=False), features.values.device)
        with self._one_at_a_time:
            return self.backbone.encode(features).states.float()

    def find(
        self,
        states: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b t"] | None,
        prompt: Int[Tensor, "b p"],
        limits: Int[Tensor, " b"],
        width: int = 1,
        ngram: int = 0,
    ) -> list[Found]:
        prompts, caps = prompt.tolist(), limits.tolist()
        found: list[Found | None] = [None] * len(prompts)
        for frames, rows in _of_one_length(states, mask).items():
            part = states[rows, :frames]
            own = self._found(part, [prompts[i] for i in rows], [caps[i] for i in rows], width, ngram)
            for i, one in zip(rows, own, strict=True):
                found[i] = one
        return [one for one in found if one is not None]

    def _found(
        self, states: Tensor, prompts: list[list[int]], limits: list[int], width: int, ngram: int
    ) -> list[Found]:
        most = max(limits) + 1  # one more than may be: whether it would have ended there
        results = self.model.generate(
            _view(states),
            prompts,
            beam_size=width,
            no_repeat_ngram_size=ngram,
            length_penalty=0.0 if ngram else 1.0,  # what is read again was too long: by the sum
            max_length=max(2 * most, most + len(prompts[0])),  # it takes the half, or what the prompt leaves
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
            suppress_tokens=self._never,
        )
        return [
            _one(result.sequences_ids[0], result.scores[0], result.no_speech_prob, limit, bool(ngram))
            for result, limit in zip(results, limits, strict=True)
        ]

    def words(
        self,
        states: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b t"],
        tokens: Sequence[Sequence[int]],
        *,
        seconds: Sequence[float],
        language: Sequence[str | None],
        task: str,
    ) -> list[tuple[TimedWord, ...]]:
        backbone = self.backbone
        found: list[tuple[TimedWord, ...]] = [()] * len(tokens)
        counts = mask.sum(1).tolist()
        frames = word_times.frames_of(mask, seconds, backbone.frame_rate)
        kinds: dict[tuple[int, ...], list[int]] = {}
        for i, (code, count) in enumerate(zip(language, frames, strict=True)):
            start = backbone.generation.prompt(code, task) if count >= _SHORTEST_FRAMES else ()
            kinds.setdefault(start, []).append(i)
        for start, rows in kinds.items():
            part, own = states[rows], [list(tokens[i]) for i in rows]
            if not start:
                codes, lengths = [language[i] for i in rows], [seconds[i] for i in rows]
                aligned = word_times.align(
                    backbone, part, mask[rows], own, seconds=lengths, language=codes, task=task
                )
            else:
                counted = [2 * frames[i] for i in rows]  # of features, which the encoder halves
                traced = self.model.align(_view(part), list(start), own, counted)
                aligned = [
                    _placed(backbone, tokens[i], one, min(seconds[i], counts[i] / backbone.frame_rate))
                    for i, one in zip(rows, traced, strict=True)
                ]
            for i, one in zip(rows, aligned, strict=True):
                found[i] = one
        return found


def _one(tokens: Sequence[int], score: float, no_speech: float, limit: int, summed: bool) -> Found:
    """Its score is the mean of the tokens' log-probabilities and the end's, or their sum; of what runs into
    the limit the mean goes for the part that stays."""
    stopped = len(tokens) > limit
    mean = score / max(1, len(tokens)) if summed else score
    total = mean * (limit + 1 if stopped else max(1, len(tokens)))
    return Found(tuple(tokens[:limit]), total, no_speech, stopped=stopped)


def _placed(backbone: "Whisper", tokens: Sequence[int], aligned: Any, end: float) -> tuple[TimedWord, ...]:
    """Words where the monotone path of their tokens first comes to them; the end of the text is in it too."""
    pairs = np.array(aligned.alignments)
    _, first = np.unique(pairs[:, 0], return_index=True)
    starts = pairs[first, 1] / backbone.frame_rate
    probabilities = np.array(aligned.text_token_probs, np.float32)
    return word_times.words_at(backbone, tokens, starts, end, probabilities)


def _of_one_length(states: Tensor, mask: Tensor | None) -> dict[int, list[int]]:
    """Rows by how many frames they have."""
    counts = [states.shape[1]] * len(states) if mask is None else mask.sum(1).tolist()
    rows: dict[int, list[int]] = {}
    for i, count in enumerate(counts):
        rows.setdefault(count, []).append(i)
    return rows


def _view(values: Tensor) -> Any:
    """The same memory as CTranslate2 takes it."""
    values = values.contiguous()
    storage = import_module("ctranslate2").StorageView
    return storage.from_array(values if values.is_cuda else values.float().numpy())


def _tensor(view: Any, device: torch.device) -> Tensor:
    return torch.as_tensor(view if device.type == "cuda" else np.array(view), device=device)
