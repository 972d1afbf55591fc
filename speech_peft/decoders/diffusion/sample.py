"""Texts of clips from a masked decoder in a few passes: revealed place by place, or masked anew at random.

All clips of one bucket are filled together, each with its candidates, which share its memory. Until they
branch, candidates are one row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .masked import MaskedDecoder, Memory
from .reveal import POLICIES, Guess

FALLING = (1.0, 0.7, 0.5, 0.3)
"""Ratios of masking anew that leave more and more alone."""
PUBLISHED = (1.0, 0.9, 0.85, 0.8)
"""Whisfusion's (arXiv:2508.07048)."""


def falling(steps: int) -> tuple[float, ...]:
    """Ratios from 1 down to 0.3, in so many passes.

    >>> falling(4), falling(2)
    ((1.0, 0.7, 0.5, 0.3), (1.0, 0.5))
    """
    if steps == len(FALLING):
        return FALLING
    return (1.0, *(round(0.7 - 0.4 * (i + 0.5) / (steps - 1), 3) for i in range(steps - 1)))


@dataclass(frozen=True)
class Sampling:
    """How texts are filled."""

    policy: str = "entropy"
    """`confidence`, `entropy`, or `random`: all are filled at once, and a share is masked anew each time."""
    steps: int = 8
    """The most passes, of `random` exactly as many as there are ratios."""
    bound: float = 0.1
    """`entropy`: of the sum of entropies that one pass may spend, in nats."""
    bias: float = 6.0
    """`entropy`, `confidence`: how much the left comes before the right, over the length of the text."""
    corrects: bool | None = None
    """Whether filled places are judged again in each pass; None: if the decoder was trained on it."""
    ratios: tuple[float, ...] = FALLING
    """`random`: how much is masked in each pass."""
    candidates: int = 1
    branches: tuple[int, ...] = ()
    """`random`: how many rows a clip has in each pass; by default one in the first, then all candidates."""
    seed: int = 0

    def rows_at(self, step: int) -> int:
        if not self.branches:
            return 1 if step == 0 else self.candidates
        return min(self.candidates, self.branches[min(step, len(self.branches) - 1)])


@dataclass(frozen=True)
class Filled:
    """Texts of clips, `k` candidates each."""

    tokens: Int[Tensor, "b k n"]
    probability: Float[Tensor, "b k n"]
    """Of each token when it was last looked at."""
    passes: Int[Tensor, " b"]
    """Of the decoder, for each clip."""
    silence: Float[Tensor, " b"]
    """The probability that a text ends where it begins, before anything else is known of it."""
    row_passes: int
    """Rows that went through the decoder, all passes together."""


def fill(decoder: MaskedDecoder, memory: Memory, lengths: Sequence[int], sampling: Sampling) -> Filled:
    """Texts of every clip. One that does not end in its bucket is filled again in one twice as long."""
    found: dict[int, Filled] = {}
    pending = list(enumerate(lengths))
    row_passes = 0
    while pending:
        again = []
        for length in sorted({length for _, length in pending}):
            which = [i for i, one in pending if one == length]
            rows = torch.tensor(which, device=memory.keys[0].device)
            part = memory if len(which) == len(memory) else memory.picked(rows)
            filled = fill_bucket(decoder, part, length, sampling)
            row_passes += filled.row_passes
            ended = (filled.tokens == decoder.end).any(-1).all(-1).tolist()
            for place, i in enumerate(which):
                if not ended[place] and length < decoder.room:
                    again.append((i, min(2 * length, decoder.room)))
                before = found[i].passes if i in found else 0
                one = _picked(filled, place)
                found[i] = replace(one, passes=one.passes + before)
        pending = again
    return _stacked([found[i] for i in range(len(memory))], decoder.end, row_passes)


@torch.no_grad()
def fill_bucket(decoder: MaskedDecoder, memory: Memory, length: int, sampling: Sampling) -> Filled:
    """Texts of `length` places for every clip."""
    if sampling.policy == "random":
        return _by_masking_anew(decoder, memory, length, sampling)
    return _by_revealing(decoder, memory, length, sampling)


# ---- place by place ----------------------------------------------------------------------------------------


def _by_revealing(decoder: MaskedDecoder, memory: Memory, length: int, sampling: Sampling) -> Filled:
    clips, device = len(memory), memory.keys[0].device
    tokens = torch.full((clips, length), decoder.end, device=device)
    masked = torch.ones(clips, length, dtype=torch.bool, device=device)
    sure = torch.zeros(clips, length, device=device)
    passes = torch.zeros(clips, dtype=torch.long, device=device)
    rows, part, row_passes = torch.arange(clips, device=device), memory, 0
    bias = forbidden(decoder, device)
    silence = torch.zeros(clips, device=device)
    corrects = decoder.corrects if sampling.corrects is None else sampling.corrects
    for step in range(sampling.steps):
        own = masked[rows]
        asked = torch.ones_like(own) if corrects else own
        probability, entropy, guess, ends = _asked(decoder, tokens[rows], own, asked, part, bias)
        if step == 0:
            silence = ends[:, 0]
        left = sampling.steps - step
        told = Guess(probability, entropy, own, guess == decoder.end, left, sampling.bound, sampling.bias)
        now = POLICIES[sampling.policy](told)
        changed = _corrected(tokens[rows], guess, own) if corrects else torch.zeros_like(now)
        put = now | changed
        tokens[rows] = torch.where(put, guess, tokens[rows])
        sure[rows] = torch.where(put | (asked & ~own), probability, sure[rows])
        masked[rows] = _closed(decoder, tokens[rows], own & ~now)
        tokens[rows] = tokens[rows].masked_fill(_behind_end(decoder, tokens[rows], masked[rows]), decoder.end)
        passes[rows] += 1
        row_passes += len(rows)
        alive = masked[rows].any(1)
        if corrects:  # what came in now may change what was there
            alive |= put.any(1)
        if not bool(alive.any()):
            break
        if int(alive.sum()) < len(rows):
            part, rows = part.picked(alive.nonzero()[:, 0]), rows[alive]
    return Filled(tokens[:, None], sure[:, None], passes, silence, row_passes)


def _asked(
    decoder: MaskedDecoder,
    tokens: Int[Tensor, "r n"],
    masked: Bool[Tensor, "r n"],
    asked: Bool[Tensor, "r n"],
    memory: Memory,
    bias: Float[Tensor, " v"] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """At the places asked for: probability of the likeliest token, entropy, that token, and of an end."""
    scores = decoder.scores(decoder.hidden(tokens, masked, memory)[asked]).float()
    if bias is not None:
        scores = scores + bias
    shares = scores.log_softmax(-1)
    best, which = shares.max(-1)
    probability = torch.ones(tokens.shape, device=tokens.device)
    entropy, ends = torch.zeros_like(probability), torch.zeros_like(probability)
    guess = tokens.clone()
    probability[asked], guess[asked] = best.exp(), which
    entropy[asked] = torch.special.entr(shares.exp()).sum(-1)
    ends[asked] = shares[:, decoder.end].exp()
    return probability, entropy, guess, ends


def _corrected(tokens: Tensor, guess: Tensor, masked: Tensor) -> Bool[Tensor, "r n"]:
    """Places that were filled, and are another token now that more is known."""
    return ~masked & (guess != tokens)


def _behind_end(decoder: MaskedDecoder, tokens: Tensor, masked: Tensor) -> Bool[Tensor, "r n"]:
    """Places behind an end that was filled in, with nothing masked before it."""
    ended = (tokens == decoder.end) & ~masked
    whole_until = (masked.cumsum(1) == 0) & ended
    return (whole_until.cumsum(1) - whole_until.long()) > 0


def _closed(decoder: MaskedDecoder, tokens: Tensor, masked: Tensor) -> Bool[Tensor, "r n"]:
    """Without the places behind the end of a text that is whole until there: nothing is asked of them."""
    return masked & ~_behind_end(decoder, tokens, masked)


# ---- all at once, and again ------------------------------------------------------------------------------


def _by_masking_anew(decoder: MaskedDecoder, memory: Memory, length: int, sampling: Sampling) -> Filled:
    clips, device = len(memory), memory.keys[0].device
    tokens = torch.full((clips, length), decoder.end, device=device)
    sure = torch.zeros(clips, length, device=device)
    bias, row_passes, silence = forbidden(decoder, device), 0, torch.zeros(clips, device=device)
    for step, ratio in enumerate(sampling.ratios):
        k = sampling.rows_at(step)
        if (have := len(tokens) // clips) < k:
            tokens, sure = (_branched(x, clips, have, k) for x in (tokens, sure))
        masked = masks(clips, k, length, ratio, sampling.seed, step).to(device).flatten(0, 1)
        probability, _, guess, ends = _asked(decoder, tokens, masked, masked, memory, bias)
        if step == 0:
            silence = ends[::k, 0]
        tokens = torch.where(masked, guess, tokens)
        sure = torch.where(masked, probability, sure)
        row_passes += len(tokens)
    k, most = len(tokens) // clips, sampling.candidates
    if k < most:  # a single pass has one candidate alone
        tokens, sure = (_branched(x, clips, k, most) for x in (tokens, sure))
    passes = torch.full((clips,), len(sampling.ratios), device=device)
    tokens, sure = (x.unflatten(0, (clips, most)) for x in (tokens, sure))
    return Filled(tokens, sure, passes, silence, row_passes)


def masks(clips: int, k: int, length: int, ratio: float, seed: int, step: int) -> Bool[Tensor, "b k n"]:
    """Which places are masked: each by itself, the same for a candidate however many others there are.

    Drawn on the CPU: alike on every machine.
    """
    if ratio >= 1:
        return torch.ones(clips, k, length, dtype=torch.bool)
    drawn = [
        torch.rand(length, generator=torch.Generator().manual_seed(hash((seed, step, one)) % 2**63))
        for one in range(k)
    ]
    return (torch.stack(drawn) < ratio).expand(clips, k, length)


def _branched(x: Tensor, clips: int, have: int, k: int) -> Tensor:
    """k rows of a clip from fewer, which take turns."""
    turn = torch.arange(k, device=x.device) % have
    return x.unflatten(0, (clips, have))[:, turn].flatten(0, 1)


def forbidden(decoder: MaskedDecoder, device: torch.device) -> Float[Tensor, " v"] | None:
    """What is added to scores: minus infinity for tokens that are never written."""
    if not decoder.never:
        return None
    bias = torch.zeros(decoder.vocabulary, device=device)
    bias[torch.tensor(decoder.never, device=device)] = float("-inf")
    return bias


# ---- of several buckets ----------------------------------------------------------------------------------


def _picked(filled: Filled, place: int) -> Filled:
    part = slice(place, place + 1)
    tokens, sure = filled.tokens[part], filled.probability[part]
    return Filled(tokens, sure, filled.passes[part], filled.silence[part], 0)


def _stacked(clips: Sequence[Filled], end: int, row_passes: int) -> Filled:
    widest = max(one.tokens.shape[-1] for one in clips)

    def wide(x: Tensor, value: float) -> Tensor:
        return torch.nn.functional.pad(x, (0, widest - x.shape[-1]), value=value)

    return Filled(
        torch.cat([wide(one.tokens, end) for one in clips]),
        torch.cat([wide(one.probability, 1.0) for one in clips]),
        torch.cat([one.passes for one in clips]),
        torch.cat([one.silence for one in clips]),
        row_passes,
    )
