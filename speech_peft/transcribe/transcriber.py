"""Recordings in, text out: windows of many files share batches, and each file is given when it is complete.

A thread decodes and finds speech ahead of the model; windows are pooled up to `batch_seconds` and heard
(`hearing/`) by an engine (`engines.py`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from ..audio import given
from ..audio.views import Channels
from ..audio.windows import chunks
from ..audio.windows.chunks import Cutting, Window
from ..audio.windows.packing import packed
from ..backbones.whisper import Whisper
from ..decoders.words.previous import previous
from ..errors import ConfigError
from ..folders.inputs import Job
from ..folders.outcomes.outcome import Outcome, failed
from ..folders.reader import Source
from ..folders.told import check_task
from ..metrics.writing import joined
from ..opening.asked import asked
from ..opening.enrolment import enrolled_file, hears
from ..opening.exchange import exchanged
from ..opening.loading import DEFAULT_WEIGHTS, load
from ..opening.microphones import hears_views
from . import decoding
from .catalogues import catalogue_of, with_catalogue
from .choosing import By, with_packs
from .engines import Ready, ready
from .hearing.file import File
from .hearing.hearing import Hearing
from .result import Result, TranscribeOptions
from .routing.weights import mixers_of, routing_of
from .segments import segments_of
from .subtitles import PLAIN, Shape
from .writers import DRAWN, render

_FIT_GAP = 0.8
"""Seconds of a pause that ends a window where the encoder hears no more than it is given: what is packed
towards 30 s costs as much as 30 s then, and loses words. At full context a window costs the same, however
little it holds, so windows are packed."""
_PACKED_GAP, _PACKED_PAD = 0.4, 0.2
"""Seconds of a pause that is left out where windows are packed, and what stays of it on either side: with
0.8 s between its sentences the decoder ends early, and more is heard a second time."""


class Transcriber(Hearing):
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
        packs: str | Path | None = None,
        packs_by: By = "file",
        request: str = "",
        speaker_reference: str | Path | None = None,
        options: TranscribeOptions | None = None,
        **more: Any,
    ):
        """`adapter` may be "auto:FOLDER": each recording is heard with what suits it best of the adapters in
        a folder, by how it sounds and by the words of `request`. `packs` is a folder of adapters by language:
        each recording, or each of its windows, is heard with that of the language it is in.
        `speaker_reference` is a recording of the one speaker who is wanted, for an adapter that listens to
        it: its first 30 s are heard once. `more` are fields of TranscribeOptions: beam_size, vad, ..."""
        if batch_seconds <= 0:
            raise ConfigError(f"batch_seconds: {batch_seconds} is not a length; expected more than 0")
        self.options = self._asked_for = asked(options or TranscribeOptions(), more, "Transcriber")
        if adapter is not None and weights == DEFAULT_WEIGHTS:
            weights = None  # the adapter knows its backbone's address; a default does not overrule it
        chosen = {} if context is None else {"context": context}
        self.offline = offline
        if packs is not None and adapter is not None:
            raise ConfigError("packs: give a folder of packs or one adapter, not both")
        if (folder := catalogue_of(adapter)) is not None:
            self.opened, self.chooser = with_catalogue(folder, request, weights, device, offline, **chosen)
        elif request:
            raise ConfigError("request: is for an adapter of a catalogue, adapter='auto:FOLDER'")
        elif packs is None:
            self.opened = load(adapter, weights, device, offline, **chosen)
            self._write_as_it_does()
        else:
            self.opened, self.chooser = with_packs(packs, packs_by, weights, device, offline, **chosen)
        self.batch_seconds, self.device = batch_seconds, torch.device(device)
        self.backbone = self.opened.backbone
        if not (self.opened.ctc or self.opened.diffusion or isinstance(self.backbone, Whisper)):
            raise ConfigError(
                f"{adapter or weights}: {self.backbone.name} only encodes; to transcribe it needs an adapter "
                "that was trained with task.decoder=ctc"
            )
        self.before = self._checked()
        check_task(self.opened.model, self.options.adapter_task)
        if self.chooser is not None and self.options.engine == "ct2":
            raise ConfigError("engine: ct2 has one adapter in its weights and cannot change it; take torch")
        if decoding.chosen(self.opened, self.options) == "autoregressive":
            engine = self.options.engine if self.chooser is None else "torch"
            found = ready(decoding.stock(self.opened, self.options), engine, self.options.dtype, device)
        else:
            found = decoding.brought(self.opened, self.options, device)
            self.reader = decoding.reader(self.opened, self.options, device)
        self._in_weights = found.opened is not self.opened
        self.opened, self.engine, self._dtype = found.opened, found.engine, found.dtype
        self.backbone = self.opened.backbone
        self.context = getattr(self.backbone, "context", None)
        self._listen_to(speaker_reference)
        self._channels: Channels = self._heard()
        self.about = _about(found, adapter, self.options)
        if self.chooser is not None:
            self.about |= self.chooser.about()
        self.notes = []
        self._under_way = 0

    def _write_as_it_does(self) -> None:
        """An adapter that translates writes one language, and what is spoken does not tell which."""
        language = self._asked_for.language or self.opened.writes
        self.options = replace(self._asked_for, language=language)

    def _listen_to(self, path: str | Path | None) -> None:
        """Raise ConfigError where an adapter listens to nothing, or nobody to what is given."""
        if self.chooser is None:
            self.reference = enrolled_file(self.opened.model, self.backbone, path)
        elif path is not None:
            raise ConfigError("speaker_reference: is for one adapter; here they are chosen by what is heard")

    def _heard(self) -> Channels:
        """What is heard of several channels: each, where an adapter listens to them."""
        own = self.options.channels
        if own != "mix" or self.chooser is not None or not hears_views(self.opened.model):
            return own
        if self.engine is None:
            raise ConfigError(
                "the adapter listens to other microphones, and Whisper's own decoder says whose text is "
                "given: take --decoder autoregressive, or one microphone, --channels first"
            )
        return "views"

    def _checked(self) -> tuple[int, ...]:
        """The tokens of the prompt; ConfigError, once and here, for a language or task there is none of."""
        options = self.options
        if isinstance(self.backbone, Whisper) and not decoding.spells(self.opened, options):
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

    def swap(self, adapter: str | Path) -> "Transcriber":
        """Hear with another adapter of the same base from the next call of `transcribe` on.

        The base is not opened again; numbers of the same kind take the place of those that are there. Raises
        ConfigError, and leaves all as it was, while a call is under way, where the adapter is of another base
        or was trained at another context, and where the engine has the adapter in its weights.
        """
        if self._under_way:
            raise ConfigError(
                "swap: a call of transcribe is under way; take its last result first, or close it"
            )
        if self.chooser is not None:
            raise ConfigError("swap: adapters are chosen by what is heard here")
        if self._in_weights:
            raise ConfigError("swap: engine ct2 has the adapter in its weights; open it with engine='torch'")
        if self.opened.diffusion is not None:
            raise ConfigError("swap: the adapter brought a decoder of its own; open the other one anew")
        if self.reference is not None or hears(adapter, self.offline):
            raise ConfigError("swap: what listens to a speaker is opened anew, with its speaker_reference")
        self.opened = exchanged(self.opened, adapter, self.device, self.offline)
        self._write_as_it_does()
        self._channels = self._heard()
        self.about = _about(Ready(self.opened, self.engine, self._dtype), adapter, self.options)
        return self

    def work(self, jobs: Iterable[Job], formats: Sequence[str], shape: Shape = PLAIN) -> Iterator[Outcome]:
        """The same for `runner.run`: outcomes with the files' content, subtitles in that shape."""
        if DRAWN in formats and (self.chooser or not mixers_of(self.opened.model)):
            raise ConfigError(
                "format: html draws whom a fusion listens to, and there is none here that chooses"
            )
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
            told = [*result.notes, *dict.fromkeys(str(choice) for _, choice in result.chosen)]
            self.notes += [f"{job.audio}: {note}" for note in told]
            yield Outcome(job, files, result.duration, result.seconds, result.truncated)

    def _results(self, sources: Iterable[Source]) -> Iterator[tuple[Source, Result]]:
        chunks.detector(self.options.vad)  # a wrong name is told here, not in the thread
        self._under_way += 1
        try:
            for file in self._listen(sources, self._channels, self.options.track):
                yield file.source, self._finished(file, self._result)
        finally:
            self._under_way -= 1

    def _recording(self, index: int, source: Source) -> File:
        file = File(index, source, language=self.options.language)
        if self.chooser is not None and self.options.language is not None:
            known = self.chooser.known(self.options.language)
            file.settled = known is not None
            file.choices = {0.0: known} if known is not None else {}
        return file

    def _cut(self, blocks: Iterable[chunks.Block]) -> Iterator[Window]:
        packs = self._packs
        # A pause is where a language may change too.
        fits = self.context == "fit" or (self.chooser is not None and not self.chooser.whole)
        longest = min(30.0, self.backbone.max_seconds or 30.0)
        cutting = Cutting(longest)
        if packs:
            cutting = Cutting(longest, join_gap=_PACKED_GAP, pad=_PACKED_PAD)
        elif fits:
            cutting = Cutting(longest, join_gap=_FIT_GAP)
        found = chunks.windows(blocks, chunks.detector(self.options.vad), cutting)
        return packed(found, cutting.max_seconds) if packs else found

    @property
    def _packs(self) -> bool:
        """Whether windows are filled up over pauses: the times of words tell where these were. A translation
        has none in the sound, and what is chosen by window wants each alone."""
        known = self.engine is not None and self.options.task == "transcribe"
        return known and self.context == "full" and self.chooser is None

    def _result(self, file: File) -> Result:
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
            views=tuple(sorted(file.views.items())),
            routing=routing_of(mixers_of(self.opened.model), file.routes) if file.routes else None,
            chosen=tuple(sorted(file.choices.items(), key=lambda pair: pair[0])),
            about=self.about,
        )


def _about(found: Ready, adapter: str | Path | None, options: TranscribeOptions) -> dict[str, Any]:
    from ..folders.ledger import settings_hash

    opened = found.opened
    card = opened.backbone.card()
    about = {
        "model": card.id,
        "context": getattr(opened.backbone, "context", None),
        "adapter": None if adapter is None else str(adapter),
        **opened.digests,
        "options": options.asked(),
    }
    return about | {
        "engine": f"{found.engine.name if found.engine else 'torch'} {found.dtype}",
        "settings_hash": settings_hash(about),
    }
