"""What Whisper's stock decoder writes about each clip of a batch: greedy, or with a beam.

Text that runs in circles is read again in other ways, and the reading that explains most of what was heard
stays (`rereading`). Rows that have ended leave the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...core.current import going_on_with
from . import rereading, search
from .decoded import Decoded
from .whisper_reader import Reader

if TYPE_CHECKING:
    from ...backbones.whisper import Whisper

Find = Callable[..., list[search.Found]]
"""States, mask, prompt, limits, and the width and ngram of a beam: the tokens of each clip."""
TOKENS_PER_SECOND = 12
"""More than the fastest speaker's: a decoder that loops on short audio is stopped here."""
SPARE_TOKENS = 10
MAX_TOKENS = 224
_RETRY_BEAM, _RETRY_NGRAM = 5, 3


def seconds_of(
    states: Float[Tensor, "b t d"],
    mask: Bool[Tensor, "b t"] | None,
    limits: Int[Tensor, " b"],
    frame_rate: float,
) -> list[float]:
    """How long each clip is: as its limit of tokens says, where that is its own, and at most as long as there
    are states."""
    counts = [states.shape[1]] * len(states) if mask is None else mask.sum(1).tolist()
    return [
        min((limit - SPARE_TOKENS) / TOKENS_PER_SECOND, count / frame_rate)
        if SPARE_TOKENS < limit < MAX_TOKENS
        else count / frame_rate
        for limit, count in zip(limits.tolist(), counts, strict=True)
    ]


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
    task: str = "transcribe",
    before: Sequence[int] = (),
    retry: bool = True,
    find: "Find | None" = None,
) -> list[Decoded]:
    """Transcripts of a batch; a language is given for all, for each, or not at all (English).

    The task may be "translate", into English. `before` is what `previous` makes of a text that came before.

    With `retry`, a transcript that runs in circles, or into its limit, is read again by a beam, and by one
    that may not write three tokens twice. People repeat themselves too: another reading is taken only where
    it explains more of the audio and is itself heard there. `looped` says that the first was doubtful.
    `find` is an engine's; by default the stock decoder's.
    """
    find = find or partial(search.by_reader, backbone)
    languages = [language] * len(states) if language is None or isinstance(language, str) else list(language)
    rows_of = [[*before, *backbone.generation.prompt(code, task)] for code in languages]
    prompt = torch.tensor(rows_of, device=states.device)
    if seconds is None:
        frames = mask.sum(1).tolist() if mask is not None else [states.shape[1]] * len(states)
        seconds = [count / backbone.frame_rate for count in frames]
    room = min(MAX_TOKENS, backbone.module.config.max_target_positions - prompt.shape[1] - 1)
    limits = [min(room, int(TOKENS_PER_SECOND * s) + SPARE_TOKENS) for s in seconds]
    caps = torch.tensor(limits, device=states.device)
    heard = _texts(backbone, find(states, mask, prompt, caps, beam_size))
    if not retry or not (looping := [i for i, one in enumerate(heard) if one.loops]):
        return heard
    rows = torch.tensor(looping, device=states.device)
    clips = rereading.Clips(
        backbone,
        states[rows],
        None if mask is None else mask[rows],
        prompt[rows],
        [seconds[i] for i in looping],
        [languages[i] for i in looping],
        rows,
    )

    def again(chosen: Sequence[int], ngram: int) -> list[Decoded]:
        part = clips.part(chosen)
        limits, width = caps[rows[list(chosen)]], max(beam_size, _RETRY_BEAM)
        with going_on_with(backbone.module, part.rows):
            return _texts(backbone, find(part.states, part.mask, part.prompt, limits, width, ngram))

    first = [heard[i] for i in looping]
    best = rereading.best(clips, first, again, _RETRY_NGRAM, plain=beam_size == 1)
    for i, one in zip(looping, best, strict=True):
        heard[i] = replace(one, looped=True)
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
