"""What one forward pass knows besides its input."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from ..errors import ConfigError
from .listening.reference import Reference
from .rows import Rows


@dataclass(frozen=True)
class Context:
    """Side information of one forward pass; a method declares the fields it `reads`."""

    task: Int[Tensor, " b"] | None = None
    """The number of each clip's task, among those that the methods name; -1 where it is not known."""
    language: Int[Tensor, " b"] | None = None
    """The same of its language."""
    memory: Float[Tensor, "b m d"] | None = None
    """A condition to attend to."""
    reference: Reference | None = None
    """Other recordings to listen to: of the speaker that is wanted, say."""
    moments: Float[Tensor, "b n"] | None = None
    """+1 in frames where something is to sound and -1 in others, from the first frame on; behind them nothing
    is to."""
    views: int = 1
    """How many rows that follow each other are one recording, each heard by another microphone."""
    mask: Bool[Tensor, "b t"] | None = None
    """True where a frame holds signal, one entry for each frame that passes the sites in question."""
    sound: Bool[Tensor, "b t"] | None = None
    """True where a frame is the clip's own, also in encoders that attend to what it was padded with."""
    summary: tuple[int, int] | None = None
    """The first of the frames that sum up a clip and have no place in time (CLS), and how many they are."""
    streams: int = 1
    """How many times over the batch is run here, one whole batch behind the other."""
    gathered: bool = False
    """Whether frames that pass one after the other need not be neighbours in time, as others are left out."""
    timestep: Float[Tensor, " b"] | None = None
    rows: Rows | None = None
    """Which adapters run for each row, where that differs."""
    kept: dict[object, Any] | None = None
    """In a block that will run for the second time: what was computed when it ran first, by whoever did."""
    again: bool = False
    """True while gradient checkpointing runs a block for the second time: what counts batches has counted."""

    def completed(self, known: "Context") -> "Context":
        """With what `known` says and this does not; itself where there is no such thing."""
        missing = {
            field.name: value
            for field in fields(self)
            if getattr(self, field.name) is None and (value := getattr(known, field.name)) is not None
        }
        if self.views == 1 and known.views > 1:
            missing["views"] = known.views
        return replace(self, **missing) if missing else self

    # ---- other rows ----------------------------------------------------------------------------------------

    @property
    def clips(self) -> int | None:
        """Of how many rows this says something, row by row; None where it says nothing of the kind."""
        if self.rows is not None:
            return len(self.rows.names)
        heard = None if self.reference is None else self.reference.rows
        told = (self.task, self.language, self.timestep, self.memory, heard, self.moments)
        return next((len(tensor) for tensor in told if tensor is not None), None)

    def picked(self, rows: Int[Tensor, " k"]) -> "Context":
        """Of these rows, in this order, where a batch goes on with them only."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        mine = {
            name: v.index_select(0, rows.to(v.device)) for name, v in every.items() if isinstance(v, Tensor)
        }
        reference = self.reference and self.reference.picked(rows)
        names = None if self.rows is None else self.rows.picked(rows.tolist())
        return replace(self, rows=names, reference=reference, **mine)

    def for_rows(self, rows: int) -> "Context":
        """For a batch in which each clip takes as many rows, one beside the other, as beams do.

        Raises ConfigError where so many rows cannot be those of these clips.
        """
        clips = self.clips
        if clips is None or clips == rows:
            return self
        if not clips or rows % clips:
            raise ConfigError(
                f"a batch of {rows} rows passes, and the context speaks of {clips} clips. Give one that "
                "speaks of these rows, Context.picked(rows)"
            )
        return self.picked(torch.arange(clips).repeat_interleave(rows // clips))

    # ---- as seen inside a site whose adapters add, repeat or leave out frames ------------------------------

    def widened(self, frames: int) -> "Context":
        """With so many more frames: they come first, count as signal and are the clip's own."""
        if not frames:
            return self
        mask, sound = (m if m is None else pad(m, (frames, 0), value=True) for m in (self.mask, self.sound))
        moments = None if self.moments is None else pad(self.moments, (frames, 0), value=-1.0)
        summary = None if self.summary is None else (self.summary[0] + frames, self.summary[1])
        return replace(self, mask=mask, sound=sound, moments=moments, summary=summary)

    def repeated(self, times: int) -> "Context":
        """For a batch that is run so many times over, one whole batch behind the other."""
        if times == 1:
            return self
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        longer = {name: torch.cat([v] * times) for name, v in every.items() if isinstance(v, Tensor)}
        rows = None if self.rows is None else self.rows.repeated(times)
        reference = self.reference and self.reference.repeated(times)
        return replace(self, streams=self.streams * times, rows=rows, reference=reference, **longer)

    def narrowed(self, frames: Int[Tensor, "b k"], taken: Bool[Tensor, "b k"] | None) -> "Context":
        """For these frames alone; where one is not `taken` it only fills up the batch."""
        mask, sound = (m if m is None else m.gather(1, frames) for m in (self.mask, self.sound))
        if taken is not None:
            # What only fills up counts for nobody, also where no mask says what does.
            mask, sound = taken if mask is None else mask & taken, sound if sound is None else sound & taken
        moments = self.moments
        if moments is not None:
            told = moments.gather(1, frames.clamp(max=moments.shape[1] - 1))
            moments = told.masked_fill(frames >= moments.shape[1], -1.0)
        # Frames before them may be left out, and where they then lie differs from clip to clip.
        summary = self.summary if self.summary and self.summary[0] == 0 else None
        return replace(self, mask=mask, sound=sound, moments=moments, summary=summary, gathered=True)
