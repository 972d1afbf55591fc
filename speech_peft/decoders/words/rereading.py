"""Which of several readings of a clip stays: the one that explains most of it and is itself heard there.

A decoder that runs in circles writes tokens that no stretch of the audio is left for, with high probability;
a beam that may not repeat itself leaves out what was really said eight times. So readings are compared by
where they were heard (the heads of cross attention that follow time), not by their probability:

    score = coverage - unheard

coverage is the share of the frames that any of the readings attends to that this one attends to, unheard the
share of its tokens that the alignment leaves no more than two frames.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from ...core.current import going_on_with
from .word_times import Trace, traces

if TYPE_CHECKING:
    from ...backbones.whisper import Whisper
    from .decoded import Decoded

_ATTENDED = 0.1  # of a token's peak
_NO_TIME = 2  # frames of 20 ms; the fastest speaker's tokens have four
_LITTLE_LESS = 0.9  # of the coverage: a reading that keeps it has left nothing out

Again = Callable[[Sequence[int], int], "list[Decoded]"]
"""Reads clips (by their places) again, so that no run of so many tokens is written twice (0: it may be)."""


@dataclass(frozen=True)
class Clips:
    """What was encoded, for those who read it again."""

    backbone: "Whisper"
    states: Float[Tensor, "b t d"]
    mask: Bool[Tensor, "b t"] | None
    prompt: Int[Tensor, "b p"]
    seconds: Sequence[float]
    languages: Sequence[str | None]
    rows: Int[Tensor, " b"]
    """Which clips they are of the batch that adapters were told of."""

    def part(self, chosen: Sequence[int]) -> "Clips":
        """Some of them, in this order."""
        rows = torch.tensor(list(chosen), device=self.states.device)
        mask = None if self.mask is None else self.mask[rows]
        seconds, languages = [self.seconds[i] for i in chosen], [self.languages[i] for i in chosen]
        return Clips(
            self.backbone, self.states[rows], mask, self.prompt[rows], seconds, languages, self.rows[rows]
        )


@dataclass(frozen=True)
class Evidence:
    """What a reading has in the audio."""

    covered: Bool[ndarray, " t"]
    """Frames that one of its tokens attends to."""
    unheard: float
    """Share of its tokens without time of their own."""


def best(
    clips: Clips, first: Sequence["Decoded"], again: Again, ngram: int, plain: bool = True
) -> list["Decoded"]:
    """The reading of each clip that stays; of equals the earlier one.

    Where the beam without repeats leaves out what the first reading covers, one that may repeat is asked
    too, if `plain`: what was said eight times is found by that.
    """
    readings = [[one] for one in first]
    proofs = [[proof] for proof in evidence(clips, first)]

    def ask(chosen: Sequence[int], of: int) -> None:
        found = again(chosen, of)
        for i, one, proof in zip(chosen, found, evidence(clips.part(chosen), found), strict=True):
            readings[i].append(one)
            proofs[i].append(proof)

    ask(range(len(first)), ngram)
    missing = [i for i, pair in enumerate(proofs) if _left_out(*pair)]
    if plain and missing:
        ask(missing, 0)
    return [found[choose(proof)] for found, proof in zip(readings, proofs, strict=True)]


def choose(proofs: Sequence[Evidence]) -> int:
    """The place of the reading with the best score; of equals the first.

    >>> whole, half = np.ones(10, bool), np.arange(10) < 5
    >>> [choose([Evidence(whole, unheard), Evidence(half, 0.0)]) for unheard in (0.2, 0.9)]
    [0, 1]
    """
    reached = max(1, int(np.any([proof.covered for proof in proofs], axis=0).sum()))
    return int(np.argmax([proof.covered.sum() / reached - proof.unheard for proof in proofs]))


def evidence(clips: Clips, readings: Sequence["Decoded"]) -> list[Evidence]:
    """What each reading has in its clip."""
    mask = clips.mask
    if mask is None:
        mask = torch.ones(clips.states.shape[:2], dtype=torch.bool, device=clips.states.device)
    with going_on_with(clips.backbone.module, clips.rows):
        found = traces(
            clips.backbone,
            clips.states,
            mask,
            [one.tokens for one in readings],
            seconds=clips.seconds,
            language=clips.languages,
        )
    return [_evidence(trace) for trace in found]


def _evidence(trace: Trace) -> Evidence:
    own = trace.shares[:-1]  # without the end of text
    if not len(own):
        return Evidence(np.zeros(trace.shares.shape[1], bool), 0.0)
    covered = (own > _ATTENDED * own.max(axis=1, keepdims=True)).any(axis=0)
    return Evidence(covered, float((np.diff(trace.starts) <= _NO_TIME).mean()))


def _left_out(first: Evidence, second: Evidence) -> bool:
    return second.covered.sum() < _LITTLE_LESS * first.covered.sum()
