"""Recordings in, text out: windows of many files share batches, and each file is given when it is complete.

A thread decodes and finds speech ahead of the model. Windows are pooled up to `batch_seconds`, encoded in
groups of one length (Whisper's attention has no mask, so a clip's text would otherwise depend on its
neighbours) and decoded together.
"""

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..audio import chunks, io
from ..audio.chunks import Cutting, Window
from ..backbones.whisper import Whisper
from ..decoders import whisper_text
from ..decoders.whisper_text import Decoded
from ..decoders.word_times import TimedWord, align
from ..errors import AudioError, ConfigError
from .inputs import Job
from .loading import DEFAULT_WEIGHTS, Opened, load
from .result import Result, TranscribeOptions, Word
from .runner import Outcome, failed
from .segments import segments_of
from .writers import render

SAMPLE_RATE = chunks.SAMPLE_RATE
Source = str | Path | np.ndarray | Job
_AHEAD = 64  # windows decoded before the model asks for them
_ENCODE_SECONDS = 60.0  # of audio through the encoder at once; more no longer fits the processor's caches


class Transcriber:
    """Whisper or an encoder with a CTC layer, with or without an adapter.

    >>> for result in Transcriber(adapter="runs/telephone").transcribe(["a.wav", "b.mp3"]):  # doctest: +SKIP
    ...     print(result.path, result.text)
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        adapter: str | Path | None = None,
        *,
        context: str | None = None,
        device: str = "cpu",
        batch_seconds: float = 300.0,
        offline: bool = False,
        options: TranscribeOptions | None = None,
        **more: Any,
    ):
        """`more` are fields of TranscribeOptions: beam_size, vad, word_times, language, ..."""
        if batch_seconds <= 0:
            raise ConfigError(f"batch_seconds: {batch_seconds} is not a length; expected more than 0")
        self.options = replace(options or TranscribeOptions(), **more)
        if adapter is not None and weights == DEFAULT_WEIGHTS:
            weights = None  # the adapter knows its backbone's address; a default does not overrule it
        chosen = {} if context is None else {"context": context}
        self.opened = load(adapter, weights, device, offline, **chosen)
        self.batch_seconds, self.device = batch_seconds, torch.device(device)
        self.backbone = self.opened.backbone
        if self.opened.ctc is None and not isinstance(self.backbone, Whisper):
            raise ConfigError(
                f"{adapter or weights}: {self.backbone.name} only encodes; to transcribe it needs an adapter "
                "that was trained with task.decoder=ctc"
            )
        if self.options.dtype != "float32":
            self.opened.model.to(getattr(torch, self.options.dtype))
        self.context = getattr(self.backbone, "context", None)
        self.about = _about(self.opened, adapter, self.options)
        self.notes: list[str] = []
        """What a user should know of the last call, such as batches made smaller for lack of memory."""

    def transcribe(self, inputs: Source | Iterable[Source]) -> Iterator[Result]:
        """A result for each input as soon as it is complete; samples are float32 mono at 16 kHz."""
        if isinstance(inputs, (str, Path, np.ndarray, Job)):
            inputs = [inputs]
        for _, result in self._results(inputs):
            yield result

    def work(self, jobs: Iterable[Job], formats: Sequence[str]) -> Iterator[Outcome]:
        """The same for `runner.run`: outcomes with the files' content."""
        for source, result in self._results(jobs):
            job = cast(Job, source)
            if result.error is not None:
                yield Outcome(job, error=result.error, stage=result.stage, audio_seconds=result.duration)
                continue
            try:
                files = {name: render(result, name) for name in formats}
            except Exception as error:
                yield failed(job, error, "write")
                continue
            yield Outcome(job, files, result.duration, result.seconds, result.truncated)

    def _results(self, sources: Iterable[Source]) -> Iterator[tuple[Source, Result]]:
        cutting = Cutting(max_seconds=min(30.0, self.backbone.max_seconds or 30.0))
        with closing(_Ahead(sources, self.options, cutting)) as ahead:
            pool: list[_Piece] = []
            waiting: dict[int, _File] = {}
            filled = 0.0
            for event in ahead:
                if isinstance(event, _File):
                    waiting[event.index] = event
                    if event.error is not None:
                        pool = [piece for piece in pool if piece.file is not event]
                else:
                    pool.append(event)
                    filled += self._padded(event) / SAMPLE_RATE
                if filled >= self.batch_seconds:
                    self._process(pool)
                    pool, filled = [], 0.0
                    yield from self._complete(waiting)
            self._process(pool)
            yield from self._complete(waiting)

    def _complete(self, waiting: dict[int, "_File"]) -> Iterator[tuple[Source, Result]]:
        for index in sorted(waiting):
            file = waiting[index]
            if file.error is not None or len(file.heard) == file.windows:
                del waiting[index]
                yield file.source, self._result(file)

    def _result(self, file: "_File") -> Result:
        if file.error is not None:
            return Result(
                file.name, duration=file.duration, seconds=file.seconds, error=file.error, stage=file.stage
            )
        segments = segments_of(
            [(file.heard[start], start) for start in sorted(file.heard)], self.options.split_seconds
        )
        if not self.options.word_times:
            segments = tuple(replace(segment, words=()) for segment in segments)
        return Result(
            path=file.name,
            text=" ".join(segment.text for segment in segments),
            language=file.language or self.options.language or "en",
            segments=segments,
            duration=file.duration,
            seconds=file.seconds,
            truncated=file.truncated,
            about=self.about,
        )

    def _padded(self, piece: "_Piece") -> int:
        samples = len(piece.window.samples)
        # Encoders with a mask may share a batch at any length; whole seconds keep the padding small.
        return (
            self.backbone.padded_samples(samples)
            if self.context
            else -(-samples // SAMPLE_RATE) * SAMPLE_RATE
        )

    def _process(self, pool: list["_Piece"]) -> None:
        """Hear every piece. A batch that fails is halved until the one piece is found that fails alone."""
        if not pool:
            return
        started = time.perf_counter()
        try:
            with torch.inference_mode():
                self._hear(sorted(pool, key=self._padded))
        except (RuntimeError, MemoryError, ValueError, IndexError) as error:
            if len(pool) == 1:
                pool[0].file.fail(f"{type(error).__name__}: {error}", "transcribe")
                return
            if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "memory" in str(error):
                self.batch_seconds /= 2
                self.notes.append(f"out of memory: batches are now {self.batch_seconds:g} s of audio")
            half = len(pool) // 2
            self._process(pool[:half])
            self._process(pool[half:])
            return
        spent = time.perf_counter() - started
        total = sum(self._padded(piece) for piece in pool)
        for piece in pool:
            piece.file.seconds += spent * self._padded(piece) / total

    def _hear(self, pool: list["_Piece"]) -> None:
        encoded = [self._encode(batch) for batch in self._batches(pool)]
        if self.opened.ctc is not None:
            texts = [
                text for states, mask in encoded for text in self.opened.ctc.decode(states.float(), mask)
            ]
            for piece, text in zip(pool, texts, strict=True):
                piece.hear(Decoded(text, (), 0.0, 0.0), ())
            return
        longest = max(states.shape[1] for states, _ in encoded)
        states = torch.cat([nn.functional.pad(s, (0, 0, 0, longest - s.shape[1])) for s, _ in encoded])
        lengths = torch.cat([torch.full((len(s),), s.shape[1]) for s, _ in encoded]).to(states.device)
        mask = torch.arange(longest, device=states.device)[None] < lengths[:, None]
        self._decode(pool, states, mask)

    def _decode(self, pool: list["_Piece"], states: Tensor, mask: Tensor) -> None:
        backbone = cast(Whisper, self.backbone)
        self._detect(pool, states, mask)
        languages = [piece.file.language for piece in pool]
        heard = whisper_text.decode(
            backbone,
            states,
            mask,
            beam_size=self.options.beam_size,
            language=languages,
            seconds=[piece.window.seconds for piece in pool],
        )
        wanted = [
            i
            for i, (piece, text) in enumerate(zip(pool, heard, strict=True))
            if text.tokens and (self.options.word_times or piece.window.seconds > self.options.split_seconds)
        ]
        words: dict[int, tuple[TimedWord, ...]] = {}
        if wanted:
            chosen = torch.tensor(wanted, device=states.device)
            found = align(
                backbone,
                states[chosen],
                mask[chosen],
                [heard[i].tokens for i in wanted],
                seconds=[pool[i].window.seconds for i in wanted],
                language=[languages[i] for i in wanted],
            )
            words = dict(zip(wanted, found, strict=True))
        for i, (piece, text) in enumerate(zip(pool, heard, strict=True)):
            piece.hear(text, words.get(i, ()))

    def _detect(self, pool: list["_Piece"], states: Tensor, mask: Tensor) -> None:
        """The language of each file, by what its windows in this pool say together."""
        backbone = cast(Whisper, self.backbone)
        if self.options.language or not backbone.generation.is_multilingual:
            for piece in pool:
                piece.file.language = self.options.language
            return
        unknown = [i for i, piece in enumerate(pool) if piece.file.language is None]
        if not unknown:
            return
        chosen = torch.tensor(unknown, device=states.device)
        votes: dict[int, dict[str, float]] = {}
        for i, shares in zip(
            unknown, whisper_text.detect_language(backbone, states[chosen], mask[chosen]), strict=True
        ):
            total = votes.setdefault(pool[i].file.index, {})
            for code, share in shares.items():
                total[code] = total.get(code, 0.0) + share
        for i in unknown:
            total = votes[pool[i].file.index]
            pool[i].file.language = max(total, key=total.__getitem__)

    def _batches(self, pool: list["_Piece"]) -> Iterator[list["_Piece"]]:
        for padded, group in groupby(pool, key=self._padded):
            pieces = list(group)
            size = max(1, int(_ENCODE_SECONDS * SAMPLE_RATE / padded))
            for i in range(0, len(pieces), size):
                yield pieces[i : i + size]

    def _encode(self, batch: list["_Piece"]) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(piece.window.samples) for piece in batch])
        audio = torch.zeros(len(batch), int(lengths.max()))
        for row, piece in zip(audio, batch, strict=True):
            row[: len(piece.window.samples)] = torch.from_numpy(piece.window.samples)
        features = self.backbone.prepare(audio.to(self.device), lengths.to(self.device))
        encoded = self.backbone.encode(features)
        return encoded.states, encoded.mask


@dataclass(eq=False)
class _File:
    """An input on its way."""

    index: int
    source: Source
    windows: int = 0
    duration: float = 0.0
    truncated: bool = False
    error: str | None = None
    stage: str = ""
    language: str | None = None
    seconds: float = 0.0
    heard: dict[float, tuple[Decoded, float, tuple[Word, ...]]] = field(default_factory=dict)
    """By where the window starts: its text, its length and its words."""

    @property
    def name(self) -> str:
        if isinstance(self.source, np.ndarray):
            return ""
        return str(self.source.audio if isinstance(self.source, Job) else self.source)

    def fail(self, error: str, stage: str) -> None:
        self.error, self.stage = error, stage


@dataclass(frozen=True, eq=False)
class _Piece:
    """A window and the file it belongs to."""

    file: _File
    window: Window

    def hear(self, text: Decoded, words: Sequence[TimedWord]) -> None:
        start = self.window.start
        placed = tuple(Word(w.word, start + w.start, start + w.end, w.probability) for w in words)
        self.file.heard[start] = (text, self.window.seconds, placed)


class _Ahead:
    """A thread that decodes files and cuts windows; iterating gives each `_Piece`, then its `_File`."""

    def __init__(self, sources: Iterable[Source], options: TranscribeOptions, cutting: Cutting):
        self._queue: queue.Queue[Any] = queue.Queue(_AHEAD)
        self._sources, self._options, self._cutting = sources, options, cutting
        self._stop = threading.Event()
        chunks.detector(options.vad)  # a wrong name is told here, not in the thread
        self._thread = threading.Thread(target=self._read_all, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator["_Piece | _File"]:
        while (event := self._queue.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event

    def close(self) -> None:
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.02)
            except queue.Empty:
                continue

    def _put(self, event: Any) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(event, timeout=0.1)
            except queue.Full:
                continue

    def _read_all(self) -> None:
        try:
            for index, source in enumerate(self._sources):
                if self._stop.is_set():
                    return
                file = _File(index, source)
                try:
                    self._read(file)
                except AudioError as error:
                    file.fail(error.reason, "decode")
                except Exception as error:  # whatever a decoder raises is this file's, not the run's
                    file.fail(f"{type(error).__name__}: {error}", "decode")
                self._put(file)
        except BaseException as error:
            self._put(error)
        self._put(None)

    def _read(self, file: _File) -> None:
        counted = _Counted(_blocks(file.source, self._options))
        for window in chunks.windows(counted, chunks.detector(self._options.vad), self._cutting):
            if self._stop.is_set():
                return
            file.windows += 1
            self._put(_Piece(file, window))
        file.duration = counted.samples / SAMPLE_RATE
        file.truncated = bool(getattr(counted.blocks, "truncated", False))


class _Counted:
    """Blocks, and how many samples went by."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self.blocks, self.samples = blocks, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self.blocks:
            self.samples += len(block)
            yield block


def _blocks(source: Source, options: TranscribeOptions) -> Iterable[np.ndarray]:
    if isinstance(source, np.ndarray):
        if source.ndim != 1:
            raise AudioError("samples", f"expected mono samples of shape (s,), got {source.shape}")
        if not np.isfinite(source).all():
            raise AudioError("samples", "contains NaN or infinite samples")
        return [source.astype(np.float32, copy=False)]
    job = source if isinstance(source, Job) else Job(Path(source), "")
    return io.stream(
        job.audio, SAMPLE_RATE, chunks.BLOCK_SECONDS, job.start, job.duration, channels=options.channels
    )


def _about(opened: Opened, adapter: str | Path | None, options: TranscribeOptions) -> dict[str, Any]:
    from dataclasses import asdict

    from .ledger import settings_hash

    card = opened.backbone.card()
    about = {
        "model": card.id,
        "context": getattr(opened.backbone, "context", None),
        "adapter": None if adapter is None else str(adapter),
        "adapter_sha256": None if opened.saved is None else opened.saved.digest,
        "options": asdict(options),
    }
    return about | {"settings_hash": settings_hash(about)}
