"""Recordings in, text out: windows of many files share batches, and each file is given when it is complete.

A thread decodes and finds speech ahead of the model. Windows are pooled up to `batch_seconds`, encoded in
groups of one length (Whisper's attention has no mask, so a clip's text would otherwise depend on its
neighbours) and decoded together.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..audio import given
from ..audio.windows import chunks
from ..audio.windows.chunks import Cutting, Window
from ..backbones.whisper import Whisper
from ..decoders.words import whisper_text, word_ends
from ..decoders.words.decoded import Decoded
from ..decoders.words.previous import previous
from ..decoders.words.word_times import TimedWord, align
from ..errors import ConfigError
from ..folders.inputs import Job
from ..folders.listener import Listener
from ..folders.reader import Piece, Samples, Source
from ..folders.runner import Outcome, failed
from ..metrics.writing import joined
from ..opening.asked import asked
from ..opening.loading import DEFAULT_WEIGHTS, Opened, load
from . import parts
from .languages import Spoken, telling_first
from .parts import Reading
from .result import Result, TranscribeOptions, Word
from .segments import segments_of
from .subtitles import PLAIN, Shape
from .unheard import may_lack, speech
from .writers import render


@dataclass(eq=False)
class _File(Spoken):
    """An input on its way."""

    heard: dict[float, tuple[Decoded, float, tuple[Word, ...]]] = field(default_factory=dict)
    """By where the window starts: its text, its length and its words."""

    def hear(self, window: Window, text: Decoded, words: Sequence[TimedWord]) -> None:
        start = window.start
        placed = tuple(Word(w.word, start + w.start, start + w.end, w.probability) for w in words)
        self.heard[start] = (text, window.seconds, placed)


_Piece = Piece[_File]
_Encoded = tuple[list[_Piece], Tensor]
"""Pieces of one length, and their states."""
_STRETCH = 2.0  # the longest piece of a decoder's batch over its shortest


class Transcriber(Listener[_File]):
    """Whisper or an encoder with a CTC layer, with or without an adapter.

    >>> for result in Transcriber(adapter="runs/telephone").transcribe(["a.wav", "b.mp3"]):  # doctest: +SKIP
    ...     print(result.path, result.text)
    """

    stage = "transcribe"

    def __init__(
        self,
        weights: str | Path | None = None,
        adapter: str | Path | None = None,
        *,
        context: str | None = None,
        device: str = "cpu",
        batch_seconds: float = 600.0,
        offline: bool = False,
        options: TranscribeOptions | None = None,
        **more: Any,
    ):
        """`more` are fields of TranscribeOptions: beam_size, vad, word_times, language, ..."""
        if batch_seconds <= 0:
            raise ConfigError(f"batch_seconds: {batch_seconds} is not a length; expected more than 0")
        self.options = asked(options or TranscribeOptions(), more, "Transcriber")
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
        self.before = self._checked()
        if self.options.dtype != "float32":
            self.opened.model.to(getattr(torch, self.options.dtype))
        self.context = getattr(self.backbone, "context", None)
        self.about = _about(self.opened, adapter, self.options)
        self.notes = []

    def _checked(self) -> tuple[int, ...]:
        """The tokens of the prompt; ConfigError, once and here, for a language or task there is none of."""
        options = self.options
        if isinstance(self.backbone, Whisper) and self.opened.ctc is None:
            self.backbone.generation.prompt(options.language, options.task)
            return previous(self.backbone, options.prompt, options.hotwords)
        if options.task != "transcribe" or options.prompt or options.hotwords:
            raise ConfigError(
                "--task translate, --prompt and --hotwords: a CTC layer has none; Whisper's has"
            )
        return ()

    def transcribe(self, inputs: Any) -> Iterator[Result]:
        """A result for each input as soon as it is complete.

        One recording or several, as `audio.given` has it: a path, samples at 16 kHz, `(array, rate)`,
        `{"array": array, "sampling_rate": rate}`. Raises ConfigError for anything else, and NoSuchAudio for a
        file that is not there; one that cannot be decoded is a result with an error.
        """
        sources = given.listed(inputs, Job)
        return (result for _, result in self._results(sources))

    def work(self, jobs: Iterable[Job], formats: Sequence[str], shape: Shape = PLAIN) -> Iterator[Outcome]:
        """The same for `runner.run`: outcomes with the files' content, subtitles in that shape."""
        for source, result in self._results(jobs):
            job = cast(Job, source)
            if result.error is not None:
                yield Outcome(job, error=result.error, stage=result.stage, audio_seconds=result.duration)
                continue
            try:
                files = {name: render(result, name, shape) for name in formats}
            except Exception as error:
                yield failed(job, error, "write")
                continue
            self.notes += [f"{job.audio}: {note}" for note in result.notes]
            yield Outcome(job, files, result.duration, result.seconds, result.truncated)

    def _results(self, sources: Iterable[Source]) -> Iterator[tuple[Source, Result]]:
        chunks.detector(self.options.vad)  # a wrong name is told here, not in the thread
        for file in self._listen(sources, self.options.channels, self.options.track):
            yield file.source, self._finished(file, self._result)

    def _recording(self, index: int, source: Source) -> _File:
        return _File(index, source, language=self.options.language)

    def _cut(self, blocks: Iterable[Samples]) -> Iterator[Window]:
        cutting = Cutting(max_seconds=min(30.0, self.backbone.max_seconds or 30.0))
        return chunks.windows(blocks, chunks.detector(self.options.vad), cutting)

    def _result(self, file: _File) -> Result:
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
            text=joined(segment.text for segment in segments),
            language=file.language or self.options.language or "en",
            segments=segments,
            duration=file.duration,
            seconds=file.seconds,
            truncated=file.truncated,
            notes=file.notes,
            about=self.about,
        )

    def _hear(self, pool: list[_Piece]) -> None:
        if self.opened.ctc is not None:
            encoded = [self._encode(batch) for batch in self._batches(pool)]
            texts = [
                text for states, mask in encoded for text in self.opened.ctc.decode(states.float(), mask)
            ]
            for piece, text in zip(pool, texts, strict=True):
                piece.file.hear(piece.window, Decoded(text, (), 0.0, 0.0), ())
            return
        windows, first = [piece.window for piece in pool], self._read(pool)
        if self.options.task == "translate":  # its words have no times of their own in the sound
            found = [[pair] for pair in zip(windows, first, strict=True)]
        else:
            found = parts.heard(windows, first, partial(self._read_parts, pool))
        for piece, heard in zip(pool, found, strict=True):
            for window, (text, words) in heard:
                piece.file.hear(window, text, words)

    def _read_parts(self, pool: list[_Piece], windows: Sequence[tuple[int, Window]]) -> list[Reading]:
        """The same for parts of the windows of a pool, in the order in which they come."""
        pieces = [Piece(pool[place].file, window) for place, window in windows]
        order = sorted(range(len(pieces)), key=lambda i: self._padded(pieces[i]))
        read = self._read([pieces[i] for i in order])
        return [reading for _, reading in sorted(zip(order, read, strict=True), key=lambda pair: pair[0])]

    def _read(self, pool: list[_Piece]) -> list[Reading]:
        """What the decoder writes of each piece, and its words; the pool is sorted by padded length."""
        encoded = [(batch, self._encode(batch)[0]) for batch in self._batches(pool)]
        for batch, states in encoded:
            self._detect(batch, states)
        found: list[Reading] = []
        for alike in self._alike(encoded):
            longest = alike[-1][1].shape[1]
            states = torch.cat([nn.functional.pad(s, (0, 0, 0, longest - s.shape[1])) for _, s in alike])
            lengths = torch.cat([torch.full((len(s),), s.shape[1]) for _, s in alike]).to(states.device)
            mask = torch.arange(longest, device=states.device)[None] < lengths[:, None]
            found += self._decode([piece for batch, _ in alike for piece in batch], states, mask)
        return found

    def _alike(self, encoded: list[_Encoded]) -> Iterator[list[_Encoded]]:
        """What to decode together: the decoder reads the padding of every piece at each token.

        The batches are let go as they are taken.
        """
        group: list[_Encoded] = []
        while encoded:
            batch = encoded.pop(0)
            if group and batch[1].shape[1] > _STRETCH * group[0][1].shape[1]:
                yield group
                group = []
            group.append(batch)
        yield group

    def _decode(self, pool: list[_Piece], states: Tensor, mask: Tensor) -> list[Reading]:
        backbone = cast(Whisper, self.backbone)
        languages = [piece.file.language for piece in pool]
        heard = whisper_text.decode(
            backbone,
            states,
            mask,
            beam_size=self.options.beam_size,
            language=languages,
            seconds=[piece.window.seconds for piece in pool],
            task=self.options.task,
            before=self.before,
        )
        wanted = [
            i
            for i, (piece, text) in enumerate(zip(pool, heard, strict=True))
            if text.tokens and self._needs_times(piece.window, text.text)
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
                task=self.options.task,
            )
            words = {
                i: word_ends.trimmed(own, pool[i].window.samples)
                for i, own in zip(wanted, found, strict=True)
            }
        return [(text, words.get(i, ())) for i, text in enumerate(heard)]

    def _needs_times(self, window: Window, text: str) -> bool:
        """Whether the times of words are wanted, make segments, or tell whether all was heard."""
        return self.options.word_times or self._splits(window) or may_lack(text, speech(window))

    def _splits(self, window: Window) -> bool:
        """Whether it may become several segments, which needs the words' times."""
        long = window.seconds > self.options.split_seconds
        return long or word_ends.longest_pause(window.samples) > word_ends.PAUSE_SECONDS

    @property
    def _asks(self) -> bool:
        """Whether the language of a recording is asked of its sound."""
        backbone = self.backbone
        known = isinstance(backbone, Whisper) and backbone.generation.is_multilingual
        return known and self.opened.ctc is None and self.options.language is None

    def _ordered(self, events: Iterable[_Piece | _File]) -> Iterator[_Piece | _File]:
        return telling_first(events) if self._asks else super()._ordered(events)

    def _detect(self, batch: list[_Piece], states: Tensor) -> None:
        """The language of each file whose telling window is in the batch."""
        telling = [i for i, piece in enumerate(batch) if piece.file.telling is piece.window]
        if not telling:
            return
        chosen = torch.tensor(telling, device=states.device)
        found = whisper_text.detect_language(cast(Whisper, self.backbone), states[chosen])
        for i, shares in zip(telling, found, strict=True):
            batch[i].file.language = max(shares, key=shares.__getitem__)

    def _encode(self, batch: list[_Piece]) -> tuple[Tensor, Tensor]:
        encoded = self.backbone.encode(self._features(batch))
        return encoded.states, encoded.mask


def _about(opened: Opened, adapter: str | Path | None, options: TranscribeOptions) -> dict[str, Any]:
    from ..folders.ledger import settings_hash

    card = opened.backbone.card()
    about = {
        "model": card.id,
        "context": getattr(opened.backbone, "context", None),
        "adapter": None if adapter is None else str(adapter),
        "adapter_sha256": None if opened.saved is None else opened.saved.digest,
        "options": options.asked(),
    }
    return about | {"settings_hash": settings_hash(about)}
