"""What a model makes of a recording, on a tape beside the recording, both at the rate of the output."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soxr
import torch
from jaxtyping import Float32
from numpy import ndarray

from ..audio import io
from ..audio.containers.files import PathLike
from ..audio.given import Packed, Wave
from ..audio.mixing import Mixer
from ..audio.windows import chunks
from ..decoders.waveform import WaveformDecoder
from ..errors import AudioError
from ..folders.inputs import Job
from ..folders.reader import Source
from ..opening.loading import Opened
from .blend import FRAME_SECONDS, energies
from .result import RestoreOptions
from .resynthesis import Resynthesis
from .seams import RATE, Joiner, Layout, stretches
from .tape import Frames, Tape

_BLOCK_SECONDS = 10.0


@dataclass(eq=False)
class Taped:
    """A recording and what was made of it, aligned to the sample."""

    dry: Tape
    wet: Tape
    rate: int
    source_rate: int
    mono: bool
    """Whether samples of shape (s,) were given, or one channel."""
    length: int = 0
    """Samples of the output; the tapes are read to here, with silence behind their ends."""
    scores: Float32[ndarray, " v"] = field(default_factory=lambda: np.zeros(0, np.float32))
    """Speech probabilities, one for each 32 ms."""
    duration: float = 0.0
    truncated: bool = False
    notes: tuple[str, ...] = ()
    """What a listener should know of the recording."""
    seconds: float = 0.0
    """Seconds of work."""

    missing: int = 0
    """Samples that the model made too few (below 0) or too many, beyond what rounding rates explains."""


class Resampler:
    """Blocks of several channels from one rate to another, in step whatever the blocks are."""

    def __init__(self, source: int, target: int, channels: int):
        self._stream = None
        if source != target:
            self._stream = soxr.ResampleStream(source, target, channels, dtype="float32")

    def __call__(self, block: Frames, last: bool = False) -> Frames:
        if self._stream is None:
            return block
        return self._stream.resample_chunk(block, last=last).reshape(-1, block.shape[1])


class Rewriter:
    """Tapes of recordings, and beside them of what the model makes of their windows."""

    def __init__(
        self,
        opened: Opened,
        decoder: WaveformDecoder,
        layout: Layout,
        options: RestoreOptions,
        batch_seconds: float,
        notes: list[str],
    ):
        self.decoder, self.layout, self.options = decoder, layout, options
        self.resynthesis = Resynthesis(
            opened.backbone, decoder, options.seed, options.steps, batch_seconds, notes
        )

    @contextmanager
    def rewrite(self, source: Source, folder: Path | None) -> Iterator[Taped]:
        """The tapes of one recording, gone when the block ends; they lie in `folder`.

        Raises AudioError for what cannot be decoded.
        """
        started = time.perf_counter()
        reading = _Reading(source, self.options.track)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        made: list[Tape] = []

        def tape(channels: int) -> Tape:
            made.append(Tape(channels, folder))
            return made[-1]

        try:
            taped = self._tape(reading, tape)
            taped.seconds = time.perf_counter() - started
            yield taped
        finally:
            reading.close()
            for one in made:
                one.close()

    def _tape(self, reading: "_Reading", tape: Callable[[int], Tape]) -> Taped:
        mix = self.options.channels == "mix"
        channels = 1 if mix else reading.channels
        rows = 1 if self.options.channels in ("mix", "mid") else channels
        rate = self.options.sample_rate or reading.rate
        taped = Taped(tape(channels), tape(channels), rate, reading.rate, reading.mono or mix)
        heard = tape(rows) if self._above(reading.rate, rate) or rows < channels else None
        to_rate, to_heard = Resampler(reading.rate, rate, channels), Resampler(reading.rate, RATE, channels)
        scores: list[Float32[ndarray, " v"]] = []
        count, mixer = 0, Mixer()

        def listen() -> Iterator[Frames]:
            """The recording at 16 kHz, block by block; on its way it is taped and searched for speech."""
            nonlocal count
            for block, last in _last_known(reading.blocks()):
                block = mixer(block)[:, None] if mix else block
                count += len(block)
                taped.dry.add(to_rate(block, last))
                low = to_heard(block, last)
                yield low.mean(1, keepdims=True) if rows < channels else low

        joined = self._joined(_watched(listen(), scores))
        to_wet = Resampler(self.decoder.sample_rate, rate, rows)
        to_low = Resampler(RATE, rate, rows)
        wet = taped.wet if heard is None else tape(rows)
        with torch.inference_mode():
            for low, block, last in joined:
                wet.add(to_wet(block, last))
                if heard is not None:
                    heard.add(to_low(low, last))
        if not count:
            raise AudioError(reading.name, "holds no samples")
        taped.length = max(1, round(count * rate / reading.rate))
        taped.duration, taped.truncated = count / reading.rate, reading.truncated
        taped.notes = (*reading.notes, *mixer.notes)
        taped.scores = np.concatenate(scores) if scores else np.zeros(0, np.float32)
        error = wet.length - taped.length
        slack = 4 * rate // min(rate, reading.rate, RATE)  # each rate on the way rounds to its own samples
        taped.missing = 0 if abs(error) <= slack else error
        if heard is not None:
            self._above_and_beside(taped, wet, heard)
        return taped

    def _above(self, source_rate: int, rate: int) -> bool:
        """Whether the output has a band that the model did not hear and did not make."""
        return self.decoder.needs_waveform and min(source_rate, rate) > RATE

    def _above_and_beside(self, taped: Taped, made: Tape, heard: Tape) -> None:
        """Put back what the model was not given: the band above 16 kHz, and what differs between channels.

        The band gets the gain that the model gave to the rest at that moment, never more than 1.
        """
        frame = max(1, round(FRAME_SECONDS * taped.rate))
        came, left, _ = energies(heard, made, taped.length, frame)
        gain = np.sqrt(np.minimum(1.0, left.sum(1) / np.maximum(came.sum(1), 1e-30))).astype(np.float32)
        centres = (np.arange(len(gain)) + 0.5) * frame
        band = self._above(taped.source_rate, taped.rate)
        side = heard.channels < taped.dry.channels
        for start, dry in taped.dry.blocks(frame * 1000, taped.length):
            size = len(dry)
            wet, low = made.read(start, size), heard.read(start, size)
            share = np.interp(start + np.arange(size), centres, gain).astype(np.float32)[:, None]
            middle = dry.mean(1, keepdims=True) if side else dry
            # The middle without the band that was not heard is `low`; band and side come from the recording.
            new = wet + (share * (middle - low) if band else 0.0)
            taped.wet.add(new + (dry - middle if side else 0.0))

    def _joined(self, blocks: Iterator[Frames]) -> Iterator[tuple[Frames, Frames, bool]]:
        """What is finished: samples at 16 kHz, what was made of them, at the decoder's rate; is it all?"""
        joiner = Joiner(self.decoder.sample_rate)
        given = 0  # samples at 16 kHz that were handed on
        for stretch, made in self.resynthesis(stretches(blocks, self.layout)):
            fresh = stretch.samples[given - stretch.start : stretch.last - stretch.start]
            given = stretch.last
            yield fresh, joiner.add(stretch, made), False
        rest = joiner.rest()
        if rest is not None:
            yield np.zeros((0, rest.shape[1]), np.float32), rest, True


def _watched(blocks: Iterator[Frames], scores: list[Float32[ndarray, " v"]]) -> Iterator[Frames]:
    """The same blocks; what a detector of speech makes of them is added to `scores`."""
    detect, mono_of = chunks.detector("silero"), Mixer()
    rest = np.zeros(0, np.float32)
    for block in blocks:
        stream = np.concatenate([rest, mono_of(block)])
        whole = len(stream) // chunks.FRAME * chunks.FRAME
        if whole:
            scores.append(detect(stream[:whole]))
        rest = stream[whole:]
        yield block
    if len(rest):
        scores.append(detect(rest))


def _last_known(blocks: Iterator[Frames]) -> Iterator[tuple[Frames, bool]]:
    """Each block, and whether it is the last."""
    held: Frames | None = None
    for block in blocks:
        if held is not None:
            yield held, False
        held = block
    if held is not None:
        yield held, True


class _Reading:
    """An input at its own rate, with all its channels."""

    def __init__(self, source: Source, track: int | None):
        self._stream: io.Stream | None = None
        self._samples: ndarray | None = None
        source = source.wave() if isinstance(source, Packed) else source
        if isinstance(source, Wave):
            source.check()
            self.name: PathLike = source.name or "samples"
            self.mono, self.rate, self._samples = source.mono, source.rate, source.samples
            self.channels = self._samples.shape[1]
            return
        job = source if isinstance(source, Job) else Job(Path(source), "")
        self.name = job.audio
        self._stream = io.Stream(job.audio, None, None, job.start, job.duration, "mix", track)
        self.rate, self.channels = self._stream.source_rate, self._stream.source_channels
        self.mono = self.channels == 1

    def blocks(self) -> Iterator[Frames]:
        """Blocks of no more than a few seconds."""
        size = max(1, round(_BLOCK_SECONDS * self.rate))
        whole: Iterable[Frames]
        if self._stream is None:
            whole = [] if self._samples is None else [self._samples]
        else:
            whole = self._stream.frames()
        for found in whole:
            for i in range(0, len(found), size):
                yield np.ascontiguousarray(found[i : i + size], np.float32)

    @property
    def truncated(self) -> bool:
        return self._stream is not None and self._stream.truncated

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self._stream is None else self._stream.notes

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
