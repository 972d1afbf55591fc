"""Whisper's stock decoder read token by token: greedy, or with a beam.

The layers of the stock decoder are called one by one, as its own forward does, for two reasons: adapters
hooked onto them run, and cross attention can be told which states are padding, so that clips of every length
decode in one batch. (The stock forward takes no such mask.) Rows that have ended leave the batch.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from . import search

if TYPE_CHECKING:
    from ..backbones.whisper import Generation, Whisper

TOKENS_PER_SECOND = 12
"""More than the fastest speaker's: a decoder that loops on short audio is stopped here."""
SPARE_TOKENS = 10
MAX_TOKENS = 224
_RETRY_BEAM, _RETRY_NGRAM = 5, 3
_LOOP_RATIO = 2.4  # text that compresses better runs in circles (Whisper, arXiv:2212.04356, section 4.5)


@dataclass(frozen=True)
class Decoded:
    """What the decoder wrote about one clip, and how sure it was."""

    text: str
    tokens: tuple[int, ...]
    """Without prompt and end of text."""
    avg_logprob: float
    no_speech_prob: float
    logprobs: tuple[float, ...] = field(default=(), repr=False)
    """One a token; empty after a beam search."""
    stopped: bool = False
    """It reached the largest number of tokens that audio of this length may have."""

    @property
    def compression_ratio(self) -> float:
        """Length over compressed length: a loop compresses well."""
        raw = self.text.encode()
        return len(raw) / len(zlib.compress(raw)) if raw else 0.0

    @property
    def loops(self) -> bool:
        """It runs in circles, or did not come to an end."""
        return self.stopped or self.compression_ratio > _LOOP_RATIO


def greedy(
    backbone: "Whisper",
    states: Float[Tensor, "b t d"],
    mask: Bool[Tensor, "b t"] | None = None,
    *,
    language: str | Sequence[str | None] | None = None,
    seconds: Sequence[float] | None = None,
) -> list[Decoded]:
    """The likeliest token each time. `mask` is False where states are padding between clips of a batch."""
    return decode(backbone, states, mask, language=language, seconds=seconds, retry=False)


@torch.inference_mode()
def decode(
    backbone: "Whisper",
    states: Float[Tensor, "b t d"],
    mask: Bool[Tensor, "b t"] | None = None,
    *,
    beam_size: int = 1,
    language: str | Sequence[str | None] | None = None,
    seconds: Sequence[float] | None = None,
    retry: bool = True,
) -> list[Decoded]:
    """Transcripts of a batch; a language is given for all, for each, or not at all (English).

    With `retry`, a transcript that runs in circles, or into its limit, is read once more by a beam that may
    not write three tokens twice.
    """
    languages = [language] * len(states) if language is None or isinstance(language, str) else list(language)
    prompt = torch.tensor([backbone.generation.prompt(code) for code in languages], device=states.device)
    if seconds is None:
        frames = mask.sum(1).tolist() if mask is not None else [states.shape[1]] * len(states)
        seconds = [count / backbone.frame_rate for count in frames]
    room = min(MAX_TOKENS, backbone.module.config.max_target_positions - prompt.shape[1] - 1)
    limits = [min(room, int(TOKENS_PER_SECOND * s) + SPARE_TOKENS) for s in seconds]
    reader = Reader(backbone, states, mask)
    find = search.greedy if beam_size == 1 else search.beam
    caps = torch.tensor(limits, device=states.device)
    heard = _texts(backbone, find(reader, prompt, caps, beam_size))
    if looping := [i for i, one in enumerate(heard) if retry and one.loops]:
        again = torch.tensor(looping, device=states.device)
        reader = Reader(backbone, states[again], None if mask is None else mask[again])
        rows = search.beam(reader, prompt[again], caps[again], max(beam_size, _RETRY_BEAM), _RETRY_NGRAM)
        for i, one in zip(looping, _texts(backbone, rows), strict=True):
            heard[i] = one
    return heard


def _texts(backbone: "Whisper", rows: Sequence[search.Found]) -> list[Decoded]:
    texts = backbone.tokenizer.batch_decode([row.tokens for row in rows], skip_special_tokens=True)
    return [
        Decoded(
            text=" ".join(text.split()),
            tokens=row.tokens,
            avg_logprob=row.logprob / (len(row.tokens) + 1),
            no_speech_prob=row.no_speech,
            logprobs=row.logprobs,
            stopped=row.stopped,
        )
        for text, row in zip(texts, rows, strict=True)
    ]


@torch.inference_mode()
def detect_language(
    backbone: "Whisper", states: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"] | None = None
) -> list[dict[str, float]]:
    """The probability of each language for each clip; English alone where the model knows no other."""
    languages = backbone.generation.languages
    if not languages:
        return [{"en": 1.0}] * len(states)
    start = torch.full((len(states), 1), backbone.generation.sot, device=states.device)
    hidden = Reader(backbone, states, mask).read(start)[:, 0]
    table = backbone.module.proj_out.weight[torch.tensor(list(languages.values()), device=states.device)]
    shares = (hidden @ table.T).float().softmax(-1)
    return [dict(zip(languages, row, strict=True)) for row in shares.tolist()]


class Reader:
    """The decoder over one batch of encoder states, with what it has read so far in its cache."""

    def __init__(self, backbone: "Whisper", states: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"] | None):
        from transformers.cache_utils import DynamicCache, EncoderDecoderCache

        self.decoder: Any = backbone.decoder
        self.projection = backbone.module.proj_out.weight
        self.generation: Generation = backbone.generation
        self.states = states
        if mask is not None and bool(mask.all()):
            mask = None
        self.mask = None if mask is None else mask[:, None, None]
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.length = 0

    def read(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        """Hidden states of these next tokens; several are only taken at the start."""
        positions = torch.arange(self.length, self.length + tokens.shape[1], device=tokens.device)
        x = self.decoder.embed_tokens(tokens) + self.decoder.embed_positions.weight[positions]
        mask = self.mask
        if mask is not None and tokens.shape[1] > 1:
            mask = mask.expand(-1, -1, tokens.shape[1], -1)
        for layer in self.decoder.layers:  # self attention is causal by itself while its mask is None
            x = layer(
                x, None, self.states, encoder_attention_mask=mask, past_key_values=self.cache, use_cache=True
            )
        self.length += tokens.shape[1]
        return self.decoder.layer_norm(x)

    def keep(self, rows: Int[Tensor, " k"]) -> None:
        """Go on with these rows only, in this order."""
        self.cache.batch_select_indices(rows)
        # The layers read keys and values from the cache and of the states only that they are there.
        self.states = self.states[:1]
        if self.mask is not None:
            self.mask = self.mask[rows]

    def reorder(self, rows: Int[Tensor, " b"]) -> None:
        """Rows of one clip trade their history (beams); what they attend to in the audio is the same."""
        self.cache.self_attention_cache.batch_select_indices(rows)

    def forbidden(self, first: bool) -> Float[Tensor, " v"]:
        """What is added to the scores: minus infinity for tokens that are never written (here)."""
        g = self.generation
        bias = torch.zeros(len(self.projection), device=self.states.device, dtype=self.projection.dtype)
        never = {
            *g.suppress,
            g.sot,
            g.no_timestamps,
            g.start_of_previous,
            *g.languages.values(),
            *g.tasks.values(),
        }
        never |= {g.no_speech} if g.no_speech is not None else set()
        never |= set(g.begin_suppress) if first else set()
        bias[torch.tensor(sorted(never), device=bias.device)] = float("-inf")
        bias[g.timestamp_begin :] = float("-inf")
        return bias

    def scores(
        self, hidden: Float[Tensor, "*b d"], bias: Float[Tensor, " v"] | None
    ) -> Float[Tensor, "*b v"]:
        return F.linear(hidden, self.projection, bias)

    def no_speech(self, hidden: Float[Tensor, "b d"]) -> list[float]:
        """The probability of <|nospeech|>, which is read off where the transcript starts."""
        if self.generation.no_speech is None:
            return [0.0] * len(hidden)
        scores = self.scores(hidden, None).float()
        return (scores[:, self.generation.no_speech] - scores.logsumexp(-1)).exp().tolist()
