"""The forward pass that is under way: which adapters it runs, what it knows, and which sites it is in."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from .context import Context
from .rows import Run
from .selection import Selection


@dataclass
class Passage:
    """One way through one span of the model: what entered it, until it leaves."""

    owner: object
    """Whoever opened it, and will close it."""
    inside: Context
    """What is known of the frames and rows that pass inside."""
    ctx: Context
    """What is known of all frames of x. Given by whoever opens it: no compiler traces one made by default."""
    running: tuple[Run, ...] = ()
    """The adapters that saw x enter, and will see y leave."""
    x: Tensor | None = None
    selection: Selection | None = None
    room: bool = False
    """Whether it is that of a module which spans lie in, and not of a span."""


@dataclass
class Current:
    """The state that all ports of one model share: one forward at a time, threads get their own copy.

    All that a forward leaves between entering a span and leaving it stands in `passages`, innermost last. It
    goes with the span, with the block of `set` that it was opened in, or with an error that ends either.
    """

    active: tuple[str, ...] = ()
    ctx: Context = field(default_factory=Context)
    """What the caller says of this forward pass."""
    draws: Mapping[str, int] = field(default_factory=dict)
    """By adapter, the number of the choice that its procedure makes at random for the passes to come; without
    one it chooses nothing. Never changed in place: a recomputed pass has those of its first run."""
    passages: list[Passage] = field(default_factory=list)
    told: list[tuple[object, Context]] = field(default_factory=list)
    """What the blocks that are under way were told about their frames, and who noted it."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "passages": [], "told": []}  # no activation travels with a copy

    @property
    def here(self) -> Context:
        """What is known at this point of the model."""
        inside = self.passages[-1].inside if self.passages else self.ctx
        return inside.completed(self.told[-1][1]) if self.told else inside

    @contextmanager
    def set(
        self, active: tuple[str, ...], ctx: Context, draws: Mapping[str, int] | None = None
    ) -> Iterator[None]:
        """A stretch of its own, in which nothing of a forward outside is seen, and of which nothing stays."""
        before = self.active, self.ctx, self.draws, self.passages, self.told
        self.active, self.ctx, self.passages, self.told = active, ctx, [], []
        self.draws = self.draws if draws is None else draws
        try:
            yield
        finally:
            self.active, self.ctx, self.draws, self.passages, self.told = before

    @contextmanager
    def telling(self, owner: object, known: Context) -> Iterator[None]:
        """Inside, what is `known` is known too, beside all that blocks around were told."""
        before = self.told[-1][1] if self.told else Context()
        self.told.append((owner, before.completed(known)))
        try:
            yield
        finally:
            mine = next((i for i, (who, _) in enumerate(self.told) if who is owner), len(self.told))
            del self.told[mine:]

    def draw(self, adapter: str, number: int | None) -> None:
        """Name the choice of an adapter for the passes to come, or that it chooses nothing."""
        others = {name: value for name, value in self.draws.items() if name != adapter}
        self.draws = others if number is None else {**others, adapter: number}

    def begin(self, owner: object) -> Context:
        """What is known where the owner is about to be entered.

        What it entered last in the same room was never left, by an error or because only some blocks were
        run, and is forgotten.
        """
        for i in reversed(range(len(self.passages))):
            if self.passages[i].room:
                break
            if self.passages[i].owner is owner:
                del self.passages[i:]
                break
        return self.here

    def close(self, owner: object) -> Passage | None:
        """The owner's last passage, no longer under way, nor what was left open inside it."""
        for i in reversed(range(len(self.passages))):
            if self.passages[i].owner is owner:
                found = self.passages[i]
                del self.passages[i:]
                return found
        return None


_CURRENT = "_speech_peft_current"


def tell(base: nn.Module, current: Current) -> None:
    """Let `base` know its adapters' state, for whoever runs its submodules one by one."""
    setattr(base, _CURRENT, current)


def forget(base: nn.Module) -> None:
    """Undo `tell`."""
    base.__dict__.pop(_CURRENT, None)


@contextmanager
def going_on_with(base: nn.Module, rows: Tensor | None) -> Iterator[None]:
    """Let the adapters of `base`, if it has any, know which rows of their context a batch has left.

    None: all, in their order.
    """
    current: Current | None = getattr(base, _CURRENT, None)
    if current is None or rows is None or current.ctx.clips is None:
        yield
    else:
        with current.set(current.active, current.here.picked(rows)):
            yield


@contextmanager
def hearing(base: nn.Module, known: Context) -> Iterator[None]:
    """Let the adapters of `base`, if it has any, know what is `known` and their context does not say.

    What runs inside is one forward: spans that it enters and does not leave are forgotten at its end.
    """
    current: Current | None = getattr(base, _CURRENT, None)
    if current is None:
        yield
    else:
        with current.set(current.active, current.here.completed(known)):
            yield
