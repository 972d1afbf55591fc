"""Windows through encoder and decoder: what a model of waveforms makes of them."""

from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np
import soxr
import torch
from jaxtyping import Float32
from numpy import ndarray

from ..backbones.base import Backbone
from ..core.context import Context
from ..decoders.waveform import WaveformDecoder
from ..folders.memory import lacks_memory
from .seams import RATE, Stretch
from .tape import Frames

_ANCHOR_DB = 30.0  # the most that a window of a decoder that knows no level is moved
_GROWTH = 1.1  # of a batch with each full one that went through, after one was too large
Rows = Float32[ndarray, "r s"]


class Resynthesis:
    """A frozen encoder with its adapters, and the decoder on its states, over batches of windows.

    At most `batch_seconds` of audio go through at once; where memory lacks they are halved, with a line in
    `notes`, and grow again.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder: WaveformDecoder,
        seed: int,
        steps: int | None,
        batch_seconds: float,
        notes: list[str],
    ):
        self.backbone, self.decoder, self.seed, self.steps = backbone, decoder, seed, steps
        self.batch_seconds, self.notes = batch_seconds, notes
        self.known: Context | None = None
        """What its adapters are told besides: who is wanted of those who talk."""
        self._room = batch_seconds
        self.device = next(decoder.parameters(), torch.zeros(0)).device

    def __call__(self, found: Iterable[Stretch]) -> Iterator[tuple[Stretch, Frames]]:
        """Each window with what was made of it, `(samples at the decoder's rate, c)`, in order."""
        for batch in self._batches(found):
            yield from zip(batch, self._rewritten(batch), strict=True)

    def _batches(self, found: Iterable[Stretch]) -> Iterator[list[Stretch]]:
        """Windows of one length, not too many: encoders without a mask would hear the padding."""
        for _, alike in groupby(found, key=lambda stretch: len(stretch.samples)):
            batch: list[Stretch] = []
            for stretch in alike:
                batch.append(stretch)
                if (len(batch) + 1) * stretch.samples.size > self.batch_seconds * RATE:
                    yield batch
                    batch = []
            if batch:
                yield batch

    def _rewritten(self, batch: list[Stretch]) -> list[Frames]:
        """What the model makes of windows of one length."""
        rows = np.concatenate([np.ascontiguousarray(stretch.samples.T) for stretch in batch])
        size = max(1, int(self._room * RATE / rows.shape[1]))
        made = np.concatenate(
            [
                self._made(rows[i : i + size], (self.seed, batch[0].index, i))
                for i in range(0, len(rows), size)
            ]
        )
        return [part.T for part in np.split(made, len(batch))]

    def _made(self, rows: Rows, seed: tuple[int, ...]) -> Rows:
        """What the model makes of rows; silent ones stay silent. Halves what does not fit into memory."""
        made = np.zeros((len(rows), -(-rows.shape[1] * self.decoder.sample_rate // RATE)), np.float32)
        sounding = np.flatnonzero(rows.any(1))
        if not len(sounding):
            return made
        try:
            made[sounding] = self._decoded(rows[sounding], seed, made.shape[1])
            if rows.size / RATE >= self._room:  # what was too large once may fit now
                self._room = min(self.batch_seconds, self._room * _GROWTH)
            return made
        except Exception as error:
            if len(rows) == 1 or not lacks_memory(error):
                raise
        # Out here, as the exception would keep its tensors alive.
        half = len(rows) // 2
        self._room = half * rows.shape[1] / RATE
        self.notes.append(f"out of memory: batches are now {self._room:g} s of audio")
        return np.concatenate([self._made(rows[:half], seed), self._made(rows[half:], (*seed, 1))])

    def _decoded(self, rows: Rows, seed: tuple[int, ...], length: int) -> Rows:
        backbone, decoder = self.backbone, self.decoder
        audio = torch.from_numpy(rows).to(self.device)
        lengths = torch.full((len(rows),), rows.shape[1], device=self.device)
        features = backbone.prepare(audio, lengths)
        states = backbone.encode(features, self.known).states[:, : int(features.lengths.max())].float()
        degraded = None
        if decoder.needs_waveform:
            same = decoder.sample_rate == RATE
            at_rate = rows if same else np.stack([soxr.resample(r, RATE, decoder.sample_rate) for r in rows])
            degraded = torch.from_numpy(_fitted(at_rate, length)).to(self.device)
        generator = torch.Generator(self.device)
        generator.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))
        waveform = decoder(states, degraded, generator=generator, steps=self.steps)
        found = _fitted(waveform.float().cpu().numpy(), length)
        if not np.isfinite(found).all():
            raise RuntimeError(f"the decoder {decoder.name} makes samples that are no numbers")
        return found if decoder.needs_waveform else _anchored(rows, found)


def _anchored(heard: Rows, made: Rows) -> Rows:
    """Each row at the level of what was heard: states tell a decoder little of how loud it was."""
    level = [np.sqrt(np.square(x, dtype=np.float64).mean(1)) for x in (heard, made)]
    limit = 10 ** (_ANCHOR_DB / 20)
    gain = np.clip(level[0] / np.maximum(level[1], 1e-12), 1 / limit, limit)
    return made * gain[:, None].astype(np.float32)


def _fitted(rows: Rows, length: int) -> Rows:
    """Cut or filled with silence to a length."""
    if rows.shape[1] < length:
        rows = np.pad(rows, ((0, 0), (0, length - rows.shape[1])))
    return np.ascontiguousarray(rows[:, :length], np.float32)
