"""Draft and verify: somebody guesses a text, Whisper's own decoder reads it in one pass and corrects it.

A pass over a whole draft gives what the stock decoder would write at every place of it. The prefix that it
agrees with stays, the first token that it does not becomes its own, and what follows is the next draft. So
the text is the stock greedy text, token for token, in as many passes as there are corrections (speculative
decoding, arXiv:2211.17192, with a drafter of one pass or none).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .engine import Stock, TorchEngine
from .ragged import Ragged
from .search import Found
from .whisper_reader import Reader
from .word_times import TimedWord

if TYPE_CHECKING:
    from ...backbones.whisper import Whisper

_LOOK_AHEAD = 1
"""Tokens of the draft among which a correction is looked for: a word that the draft has too much."""
_AHEAD = 6
"""Tokens of a draft that are read at once: on a processor each costs, and behind a correction they were read
for nothing. Twice as many when all were right."""
_SPARE = 32
"""Places behind the longest draft that there is."""

GoOn = Callable[[Sequence[int], Sequence[Sequence[int]]], list[list[int]]]
"""Clips, and what stands of their texts, to what may follow, ends included."""


@dataclass(frozen=True)
class Drafts:
    """What may be said in each clip of a batch."""

    tokens: Sequence[Sequence[int]]
    """Texts with their ends."""
    passes: Sequence[int]
    """That each took."""
    go_on: GoOn | None = None
    costs: int = 1
    """Passes that `go_on` takes. Where it takes none it is asked behind every correction, else where nothing
    of a draft is left."""


@runtime_checkable
class Drafter(Protocol):
    """Guesses texts from the states that Whisper's decoder reads."""

    def drafts(
        self,
        states: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b t"] | None,
        prompt: Int[Tensor, "b p"],
        limits: Int[Tensor, " b"],
    ) -> Drafts: ...


@dataclass
class Row:
    """A clip on its way."""

    clip: int
    limit: int
    draft: list[int]
    text: list[int] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)
    drafts: int = 0
    passes: int = 0
    ended: bool = False
    ahead: int = _AHEAD
    corrected: bool = False
    """By the last pass."""

    @property
    def open(self) -> bool:
        return not self.ended and len(self.text) <= self.limit

    def take(self, written: Sequence[int], logs: Sequence[float], end: int) -> int:
        """Goes on with what the stock decoder writes behind each token of the draft that was read; how many
        of these were agreed on.

        `written[j]` follows the first j tokens of the draft.
        """
        agreed = 0
        while agreed < min(len(self.draft), len(written)) and written[agreed] == self.draft[agreed]:
            agreed += 1
        for token, log in zip(written[: agreed + 1], logs, strict=False):
            if not self.open:
                break
            self.logs.append(log)
            if token == end:
                self.ended = True
            else:
                self.text.append(token)
        self.corrected = agreed < len(written)
        if self.corrected:
            self.draft, self.ahead = rest(self.draft, agreed, written[agreed]), _AHEAD
        else:
            self.draft, self.ahead = self.draft[agreed:], 2 * self.ahead
        self.passes += 1
        return min(agreed, len(written) - 1)

    def found(self, silence: float) -> Found:
        """As the stock search has it."""
        stopped = not self.ended
        tokens = self.text[: self.limit]
        return Found(
            tuple(tokens),
            sum(self.logs[: len(tokens) + 1]),
            silence,
            tuple(self.logs[: len(tokens)]),
            stopped,
        )


def rest(draft: Sequence[int], agreed: int, correction: int) -> list[int]:
    """What is left of a draft when the token behind its first `agreed` is another.

    Where the draft has the correction a little later, it goes on from there (what lay between was too much),
    else the correction takes one token's place.

    >>> rest([5, 6, 6, 7, 8], 2, 7), rest([5, 6, 7, 8], 1, 9)
    ([8], [7, 8])
    """
    ahead = list(draft[agreed + 1 : agreed + 1 + _LOOK_AHEAD])
    skip = ahead.index(correction) + 1 if correction in ahead else 0
    return list(draft[agreed + 1 + skip :])


@dataclass(frozen=True)
class Verified:
    """The stock greedy text of each clip, and what it took."""

    found: list[Found]
    passes: list[int]
    """Of either decoder, one behind the other."""


def verify(
    backbone: "Whisper",
    states: Float[Tensor, "b t d"],
    mask: Bool[Tensor, "b t"] | None,
    prompt: Int[Tensor, "b p"],
    limits: Int[Tensor, " b"],
    drafts: Drafts,
) -> Verified:
    """The greedy text of each clip, by reading drafts of it."""
    plain = Reader(backbone, states[:0], None)
    first, later = plain.forbidden(first=True), plain.forbidden(first=False)
    end, before = backbone.generation.eot, prompt.shape[1]
    rows = [
        Row(i, limit, list(draft)[: limit + 1])
        for i, (limit, draft) in enumerate(zip(limits.tolist(), drafts.tokens, strict=True))
    ]
    silences: list[float] = []
    room = before + max(row.limit for row in rows) + max(len(row.draft) for row in rows) + _SPARE
    reader = Ragged(backbone, states, mask, room)
    active, pending = list(rows), prompt
    start = torch.zeros(len(rows), dtype=torch.long, device=prompt.device)
    while active:
        longest = max(min(len(row.draft), row.ahead) for row in active)
        drafted = [(row.draft + [end] * longest)[:longest] for row in active]
        chunk = torch.cat([pending, torch.tensor(drafted, device=prompt.device, dtype=torch.long)], 1)
        hidden = reader.read(chunk, start)
        if not silences:
            silences = plain.no_speech(hidden[:, prompt[0].tolist().index(backbone.generation.sot)])
        scores = plain.scores(hidden[:, pending.shape[1] - 1 :], later)
        if pending is prompt:
            scores[:, 0] = plain.scores(hidden[:, before - 1], first)
        best, written = scores.max(-1)
        logs = (best.float() - scores.float().logsumexp(-1)).tolist()
        agreed = [
            row.take(tokens, shares, end)
            for row, tokens, shares in zip(active, written.tolist(), logs, strict=True)
        ]
        start = start + pending.shape[1] + torch.tensor(agreed, device=start.device)
        kept = [i for i, row in enumerate(active) if row.open]
        if len(kept) < len(active):
            chosen = torch.tensor(kept, dtype=torch.long, device=start.device)
            active, start = [active[i] for i in kept], start[chosen]
            if active:
                reader.keep(chosen)
        if not active:
            break
        pending = torch.tensor([[row.text[-1]] for row in active], device=prompt.device)
        if drafts.go_on is not None:
            _draft_on(
                drafts, [row for row in active if not row.draft or (row.corrected and not drafts.costs)]
            )
    found = [row.found(silence) for row, silence in zip(rows, silences, strict=True)]
    passes = [row.passes + row.drafts + own for row, own in zip(rows, drafts.passes, strict=True)]
    return Verified(found, passes)


def _draft_on(drafts: Drafts, rows: Sequence[Row]) -> None:
    """These rows go on with what the drafter takes to follow their texts."""
    assert drafts.go_on is not None
    if not rows:
        return
    ahead = drafts.go_on([row.clip for row in rows], [row.text for row in rows])
    for row, draft in zip(rows, ahead, strict=True):
        row.draft = draft[: max(0, row.limit + 1 - len(row.text))]
        row.drafts += drafts.costs


class VerifiedEngine(TorchEngine):
    """Writes the stock greedy text, and finds its words, as the stock decoder does; a drafter helps."""

    name: str = "verified"

    def __init__(self, backbone: "Whisper", drafter: Drafter, stock: Stock):
        super().__init__(backbone)
        self.drafter, self.stock = drafter, stock
        self.passes: list[int] = []
        """Of each clip of the last batch, drafts included."""

    @torch.inference_mode()
    def find(
        self,
        states: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b t"] | None,
        prompt: Int[Tensor, "b p"],
        limits: Int[Tensor, " b"],
        width: int = 1,
        ngram: int = 0,
    ) -> list[Found]:
        if width > 1 or ngram:
            with self.stock():
                return super().find(states, mask, prompt, limits, width, ngram)
        drafts = self.drafter.drafts(states, mask, prompt, limits)
        with self.stock():
            verified = verify(self.backbone, states, mask, prompt, limits, drafts)
        self.passes = verified.passes
        return verified.found

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
        with self.stock():
            return super().words(states, mask, tokens, seconds=seconds, language=language, task=task)
