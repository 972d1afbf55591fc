"""What one forward pass knows besides its input, and which adapters it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad


@dataclass(frozen=True)
class Context:
    """Side information of one forward pass; a method declares the fields it `reads`."""

    task: Int[Tensor, " b"] | None = None
    memory: Float[Tensor, "b m d"] | None = None
    """A condition to attend to."""
    mask: Bool[Tensor, "b t"] | None = None
    """True where a frame holds signal, one entry for each frame that passes the sites in question."""
    sound: Bool[Tensor, "b t"] | None = None
    """True where a frame is the clip's own, also in encoders that attend to what it was padded with."""
    summary: tuple[int, int] | None = None
    """The first of the frames that sum up a clip and have no place in time (CLS), and how many they are."""
    streams: int = 1
    """How many times over the batch is run here, one whole batch behind the other."""
    timestep: Float[Tensor, " b"] | None = None
    draw: int | None = None
    """The number of the choice that this training pass makes at random: the same choice in every process, and
    when a block is recomputed. None where nothing is chosen, as in evaluation."""
    again: bool = False
    """True while gradient checkpointing runs a block for the second time: what counts batches has counted."""

    def completed(self, known: "Context") -> "Context":
        """With what `known` says and this does not; itself where there is no such thing."""
        missing = {
            field.name: value
            for field in fields(self)
            if getattr(self, field.name) is None and (value := getattr(known, field.name)) is not None
        }
        return replace(self, **missing) if missing else self

    # ---- as seen inside a site whose adapters add, repeat or leave out frames ------------------------------

    def widened(self, frames: int) -> "Context":
        """With so many more frames: they come first, count as signal and are the clip's own."""
        if not frames:
            return self
        mask, sound = (m if m is None else pad(m, (frames, 0), value=True) for m in (self.mask, self.sound))
        summary = None if self.summary is None else (self.summary[0] + frames, self.summary[1])
        return replace(self, mask=mask, sound=sound, summary=summary)

    def repeated(self, times: int) -> "Context":
        """For a batch that is run so many times over, one whole batch behind the other."""
        if times == 1:
            return self
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        longer = {name: torch.cat([v] * times) for name, v in every.items() if isinstance(v, Tensor)}
        return replace(self, streams=self.streams * times, **longer)

    def narrowed(self, frames: Int[Tensor, "b k"], taken: Bool[Tensor, "b k"] | None) -> "Context":
        """For these frames alone; where one is not `taken` it only fills up the batch."""
        mask, sound = (m if m is None else m.gather(1, frames) for m in (self.mask, self.sound))
        if taken is not None:
            mask, sound = (m if m is None else m & taken for m in (mask, sound))
        # Frames before them may be left out, and where they then lie differs from clip to clip.
        summary = self.summary if self.summary and self.summary[0] == 0 else None
        return replace(self, mask=mask, sound=sound, summary=summary)


@dataclass
class Current:
    """The state every port of one model shares: one forward at a time, threads get their own copy."""

    active: tuple[str, ...] = ()
    ctx: Context = field(default_factory=Context)

    @contextmanager
    def set(self, active: tuple[str, ...], ctx: Context) -> Iterator[None]:
        before = self.active, self.ctx
        self.active, self.ctx = active, ctx
        try:
            yield
        finally:
            self.active, self.ctx = before


_CURRENT = "_speech_peft_current"


def attach(base: nn.Module, current: Current) -> None:
    """Let `base` know its adapters' state, for whoever runs its submodules one by one."""
    setattr(base, _CURRENT, current)


def detach(base: nn.Module) -> None:
    """Undo `attach`, for a copy that is to be the stock module again."""
    base.__dict__.pop(_CURRENT, None)


@contextmanager
def hearing(base: nn.Module, known: Context) -> Iterator[None]:
    """Let the adapters of `base`, if it has any, know what is `known` and their context does not say."""
    current: Current | None = getattr(base, _CURRENT, None)
    ctx = Context() if current is None else current.ctx.completed(known)
    # Where nothing is new nothing is set, and so nothing is put back: a span of blocks that are run one by
    # one leaves the context of its inside to the next of them.
    if current is None or ctx is current.ctx:
        yield
    else:
        with current.set(current.active, ctx):
            yield
