"""Which token comes next: the likeliest each time, or a beam of likely transcripts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .whisper_reader import Reader

if TYPE_CHECKING:
    from ...backbones.whisper import Whisper

_DROP_SHARE = 0.25  # of the rows must have ended before it pays to copy the others together


@dataclass(frozen=True)
class Found:
    """The tokens of one clip, without prompt and end, and their log-probability."""

    tokens: tuple[int, ...]
    logprob: float
    no_speech: float
    logprobs: tuple[float, ...] = ()
    stopped: bool = False


def by_reader(
    backbone: "Whisper",
    states: Float[Tensor, "b t d"],
    mask: Bool[Tensor, "b t"] | None,
    prompt: Int[Tensor, "b p"],
    limits: Int[Tensor, " b"],
    width: int = 1,
    ngram: int = 0,
) -> list[Found]:
    """What the stock decoder writes of each clip: the likeliest tokens, or by a beam."""
    reader = Reader(backbone, states, mask)
    if width == 1 and not ngram:
        return greedy(reader, prompt, limits)
    return beam(reader, prompt, limits, width, ngram)


def greedy(reader: Reader, prompt: Int[Tensor, "b p"], limits: Int[Tensor, " b"]) -> list[Found]:
    """The likeliest token each time, until every row has ended or is at its limit."""
    total, steps = len(prompt), int(limits.max()) + 1
    eot = reader.generation.eot
    written = torch.full((total, steps), eot, device=prompt.device)
    logprobs = torch.zeros(total, steps, device=prompt.device)
    rows = torch.arange(total, device=prompt.device)  # which clip each row of the batch belongs to
    open_ = torch.ones(total, dtype=torch.bool, device=prompt.device)  # of the rows in the batch
    hidden = reader.read(prompt)
    no_speech = reader.no_speech(hidden[:, _start(reader, prompt)])
    bias = reader.forbidden(first=True)
    for step in range(steps):
        scores = reader.scores(hidden[:, -1], bias)
        best, token = scores.max(-1)
        token = token.masked_fill(~open_, eot)
        logprob = (best.float() - scores.float().logsumexp(-1)).masked_fill(~open_, 0.0)
        written[rows, step], logprobs[rows, step] = token, logprob
        open_ = open_ & (token != eot) & (step < limits[rows])
        alive = int(open_.sum())
        if not alive:
            break
        if alive <= (1 - _DROP_SHARE) * len(rows):
            kept = open_.nonzero()[:, 0]
            reader.keep(kept)
            rows, token, open_ = rows[kept], token[kept], open_[kept]
        hidden = reader.read(token[:, None])
        if step == 0:
            bias = reader.forbidden(first=False)
    found = []
    for row, limit, share, silence in zip(
        written.tolist(), limits.tolist(), logprobs.tolist(), no_speech, strict=True
    ):
        end = row.index(eot) if eot in row[: limit + 1] else limit
        found.append(
            Found(
                tuple(row[:end]),
                sum(share[: end + 1]),
                silence,
                tuple(share[:end]),
                eot not in row[: limit + 1],
            )
        )
    return found


def beam(
    reader: Reader, prompt: Int[Tensor, "b p"], limits: Int[Tensor, " b"], width: int, ngram: int = 0
) -> list[Found]:
    """Beam search over all clips at once; a clip is done when `width` of its transcripts have ended.

    Transcripts compete by their mean log-probability, as a sum would prefer the shortest. With `ngram`, no
    run of so many tokens is written twice, and they compete by the sum: what is read again was too long.
    """
    clips, device, eot = len(prompt), prompt.device, reader.generation.eot
    hidden = reader.read(prompt)
    no_speech = reader.no_speech(hidden[:, _start(reader, prompt)])
    hidden = hidden[:, -1].repeat_interleave(width, 0)
    reader.keep(torch.arange(clips, device=device).repeat_interleave(width))
    sums = torch.full((clips, width), float("-inf"), device=device)
    sums[:, 0] = 0.0  # all beams start equal: one of them counts
    history = torch.zeros(clips, width, 0, dtype=torch.long, device=device)
    ended: list[list[tuple[float, float, tuple[int, ...]]]] = [[] for _ in range(clips)]
    caps = limits.tolist()
    bias = reader.forbidden(first=True)
    for step in range(max(caps) + 1):
        scores = reader.scores(hidden, bias).float().log_softmax(-1).view(clips, width, -1)
        if ngram:
            _forbid_repeats(scores, history.tolist(), ngram)
        vocabulary = scores.shape[-1]
        best, index = (sums[..., None] + scores).flatten(1).topk(2 * width, dim=-1)
        parent, token = index // vocabulary, index % vocabulary
        choice = _advance(best.tolist(), parent.tolist(), token.tolist(), history.tolist(), ended, eot, width)
        if all(len(done) >= width or step >= cap for done, cap in zip(ended, caps, strict=True)):
            break
        picked = torch.tensor(choice, device=device)
        sums, parent, token = best.gather(1, picked), parent.gather(1, picked), token.gather(1, picked)
        past = history.gather(1, parent[..., None].expand(-1, -1, history.shape[-1]))
        history = torch.cat([past, token[..., None]], -1)
        reader.reorder((parent + torch.arange(clips, device=device)[:, None] * width).flatten())
        hidden = reader.read(token.reshape(-1, 1))[:, -1]
        if step == 0:
            bias = reader.forbidden(first=False)
        for clip, cap in enumerate(caps):  # a clip at its limit ends with what it has
            if step + 1 == cap and len(ended[clip]) < width:
                logprob = float(sums[clip, 0])
                ended[clip].append((logprob / (cap + 1), logprob, tuple(history[clip, 0].tolist())))
    rows = []
    for done, silence, cap in zip(ended, no_speech, caps, strict=True):
        whole = [found for found in done if len(found[2]) < cap]  # what was cut off only wins by default
        rank = 1 if ngram else 0
        _, logprob, tokens = max(whole or done, key=lambda found: found[rank], default=(0.0, 0.0, ()))
        rows.append(Found(tokens, logprob, silence, stopped=len(tokens) >= cap))
    return rows


def _start(reader: Reader, prompt: Int[Tensor, "b p"]) -> int:
    """Where the start of the transcript stands in all rows; what precedes it was said before."""
    return prompt[0].tolist().index(reader.generation.sot)


def _forbid_repeats(scores: Float[Tensor, "b w v"], history: Sequence[Any], ngram: int) -> None:
    """Minus infinity for every token that would end a run of `ngram` tokens that was written before."""
    for clip, beams in enumerate(history):
        for beam, tokens in enumerate(beams):
            tail = tokens[len(tokens) - ngram + 1 :]
            starts = range(len(tokens) - ngram + 1)
            if banned := [tokens[i + ngram - 1] for i in starts if tokens[i : i + ngram - 1] == tail]:
                scores[clip, beam, banned] = float("-inf")


def _advance(
    best: Sequence[Sequence[float]],
    parent: Sequence[Sequence[int]],
    token: Sequence[Sequence[int]],
    history: Sequence[Any],
    ended: Sequence[list[tuple[float, float, tuple[int, ...]]]],
    eot: int,
    width: int,
) -> list[list[int]]:
    """For each clip the `width` best continuations that go on; those that end are added to `ended`."""
    choice = []
    for clip, row in enumerate(token):
        going = []
        for place, (word, score) in enumerate(zip(row, best[clip], strict=True)):
            if word != eot:
                going.append(place)
            elif place < width and len(ended[clip]) < width and score > float("-inf"):
                tokens = tuple(history[clip][parent[clip][place]])
                ended[clip].append((score / (len(tokens) + 1), score, tokens))
        choice.append(going[:width])
    return choice
