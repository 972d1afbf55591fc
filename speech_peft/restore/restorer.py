"""Recordings in, restored recordings out: any rate, any number of channels, in memory that does not grow.

    channels -> 16 kHz -> windows -> encoder with adapter -> decoder -> joined -> output's rate -> tape
    tape and input -> mixed at a strength that the guard accepts -> file

Files are worked on one after the other; the windows and channels of one share batches. The model hears 16
kHz. What lies above is not heard, so a decoder that filters its input leaves it alone but for the gain that
the rest got; a decoder that makes its waveform anew makes that band as well, or not at all.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..audio import given
from ..core.context import Context
from ..core.saved.hub import locate
from ..core.saved.save import Saved, read
from ..decoders.waveform import WaveformDecoder, build_decoder
from ..errors import AudioError, ConfigError, SpeechPeftError
from ..files import json_text
from ..files.atomic import finish, temporary_beside
from ..folders.inputs import Job
from ..folders.ledger import FOLDER, settings_hash
from ..folders.outcomes.outcome import Outcome
from ..folders.reader import Source
from ..opening.asked import asked
from ..opening.enrolment import enrolled_file
from ..opening.loading import Opened, load
from .blend import Mixture
from .finished import Finished, written
from .guard import Guard, GuardOptions, guard_of
from .playback import clips_of, spread
from .result import Restored, RestoreOptions, Trial
from .seams import Layout
from .wet import Rewriter, Taped
from .witnesses import Samples


class Restorer:
    """A backbone with an adapter that cleans its states, and the decoder that makes sound of them.

    >>> for result in Restorer("runs/restore").restore(["a.wav", "b.mp3"], out="restored"):   # doctest: +SKIP
    ...     print(result.file, result.strength, result.guard)
    """

    def __init__(
        self,
        adapter: str | Path,
        weights: str | Path | None = None,
        *,
        decoder: str | Path | None = None,
        guard: Guard | GuardOptions | str | None = "full",
        speaker_reference: str | Path | None = None,
        context: str | None = None,
        device: str = "cpu",
        batch_seconds: float = 60.0,
        offline: bool = False,
        options: RestoreOptions | None = None,
        **more: Any,
    ):
        """`more` are fields of RestoreOptions: strength, sample_rate, steps, seed, channels, ...

        `decoder` is another adapter folder whose decoder is used. `guard` is full, sound (without words), off
        or one of your own; None is off as well. `speaker_reference` is a recording of the one speaker who is
        wanted, for an adapter that listens to it; the guard, which compares with all who talk, must be off.
        """
        if batch_seconds <= 0:
            raise ConfigError(f"batch_seconds: {batch_seconds} is not a length; expected more than 0")
        self.options = asked(options or RestoreOptions(), more, "Restorer")
        chosen = {} if context is None else {"context": context}
        self.opened = load(adapter, weights, device, offline, **chosen)
        self.decoder, brought_by = _decoder(self.opened, adapter, decoder, device, offline)
        if self.options.steps is not None and not self.decoder.iterative:
            raise ConfigError(
                f"steps: the decoder {self.decoder.name} makes its waveform at once; leave it out"
            )
        backbone = self.opened.backbone
        limit = backbone.max_seconds
        seconds = min(self.options.window_seconds, limit or self.options.window_seconds)
        layout = Layout.of(seconds, self.options.context_seconds)
        self.notes: list[str] = []
        self.rewriter = Rewriter(self.opened, self.decoder, layout, self.options, batch_seconds, self.notes)
        if isinstance(guard, str):
            guard = guard_of(guard, device=device, offline=offline)
        elif isinstance(guard, GuardOptions):
            guard = Guard(guard, device=device, offline=offline)
        self.guard = guard
        if speaker_reference is not None and guard is not None:
            raise ConfigError(
                "speaker_reference: the guard compares with all who talk, and would keep them: guard off"
            )
        if reference := enrolled_file(self.opened.model, backbone, speaker_reference):
            self.rewriter.resynthesis.known = Context(reference=reference)
        if self.guard is not None:
            self.guard.bind(self.opened)
        self.about = self._about(adapter, decoder, brought_by)

    def restore(
        self, inputs: Any, out: str | Path | None = None, rate: int = given.RATE
    ) -> Iterator[Restored]:
        """A result for each input when it is done: with samples, or with a file below the folder `out`.

        One recording or several, as `audio.given` has it: a path, samples at `rate`, `(array, rate)`,
        `{"array": array, "sampling_rate": rate}`. Names of files come from the inputs; two of one name are
        better left to the command, which keeps their folders. Raises ConfigError for anything else, and
        NoSuchAudio for a file that is not there; one that cannot be decoded is a result with an error.
        """
        return self._each(given.listed(inputs, Job, rate=rate), out)

    def _each(self, sources: Iterable[Source], out: str | Path | None) -> Iterator[Restored]:
        for index, source in enumerate(sources):
            final = None if out is None else Path(out) / f"{_name(source, index)}.{self.options.format}"
            yield self._restore(source, final, None if final is None else temporary_beside(final))

    def work(self, jobs: Iterable[Job], out: Path) -> Iterator[Outcome]:
        """The same for `runner.run`: outcomes with the audio, under a temporary name, and its report."""

        for job in jobs:
            try:
                temporary = temporary_beside(out / FOLDER / f"restored.{self.options.format}")
            except OSError as error:
                yield Outcome(job, error=f"cannot be written: {error.strerror or error}", stage="write")
                continue
            result = self._restore(job, None, temporary)
            if result.error is not None:
                temporary.unlink(missing_ok=True)
                yield Outcome(job, error=result.error, stage=result.stage, audio_seconds=result.duration)
                continue
            if result.guard is not None and result.guard.fell_back:
                last = result.guard.trials[0]
                kept = "the input is kept" if not result.strength else f"strength {result.strength:g} is used"
                self.notes.append(f"guard: {job.audio}: {_why(last)}, {kept}")
            self.notes += [f"{job.audio}: {note}" for note in result.notes]
            report = json_text.write({**result.report(), "about": self.about}, indent=2) + "\n"
            try:
                files: dict[str, str | bytes | Path] = {self.options.format: temporary, "json": report}
                yield Outcome(job, files, result.duration, result.seconds, result.truncated)
            finally:
                temporary.unlink(missing_ok=True)  # where the run did not take it

    def _restore(self, source: Source, final: Path | None, temporary: Path | None) -> Restored:
        """One input, whatever happens to it."""
        job = source if isinstance(source, Job) else None
        in_memory = isinstance(source, given.Wave | given.Packed)
        path = source.name if in_memory else str(job.audio if job else source)
        names: dict[str, Any] = {"path": path, "id": job.relpath if job else ""}
        stage = "decode"
        duration = 0.0
        with ExitStack() as stack:
            try:
                taped = stack.enter_context(
                    self.rewriter.rewrite(source, None if temporary is None else temporary.parent)
                )
                duration, stage = taped.duration, "restore"
                done = self._judged(taped)
                stage = "write"
                samples, clipped, level = written(done, temporary, self.options)
                if temporary is not None and final is not None:
                    finish(temporary, final)
            except OSError as error:
                reason = AudioError(path, f"cannot be written: {error.strerror or error}")
                return self._failed(names, reason, "write", duration, temporary)
            except Exception as error:  # whatever is raised is this recording's, not the run's
                return self._failed(names, error, _stage(error, stage), duration, temporary)
            except BaseException:
                if temporary is not None:
                    temporary.unlink(missing_ok=True)
                raise
        return Restored(
            **names,
            samples=samples,
            file=final,
            sample_rate=taped.rate,
            source_rate=taped.source_rate,
            channels=taped.dry.channels,
            length=taped.length,
            duration=duration,
            seconds=done.seconds,
            strength=done.blend.strength,
            level_db=None if level is None else round(level, 4),
            clipped=clipped,
            guard=done.report,
            truncated=taped.truncated,
            notes=taped.notes,
        )

    @staticmethod
    def _failed(
        names: dict[str, Any], error: BaseException, stage: str, duration: float, temporary: Path | None
    ) -> Restored:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        ours = isinstance(error, SpeechPeftError)
        text = error.reason if isinstance(error, AudioError) else str(error)
        return Restored(
            **names,
            duration=duration,
            error=text if ours else f"{type(error).__name__}: {text}",
            stage=stage,
        )

    def _judged(self, taped: Taped) -> Finished:
        """The mix at the strength asked for, or at the one that the guard lets pass."""
        started = time.perf_counter()
        mixture = Mixture(taped.dry, taped.wet, taped.length, taped.rate, taped.scores)
        strength = self.options.share if mixture.came.any() else 0.0  # silence stays silence
        report = None
        if self.guard is not None:
            spans = spread(mixture, self.guard.options.seconds)

            def make(strength: float) -> tuple[list[Samples], float | None, int]:
                blend = mixture.at(strength)
                return clips_of(mixture, blend, spans), blend.level_db, taped.missing

            before = clips_of(mixture, mixture.at(0.0), spans)
            strength, report = self.guard.judge(strength, make, before)
        spent = time.perf_counter() - started - (report.seconds if report else 0.0)
        return Finished(mixture, mixture.at(strength), taped, report, taped.seconds + spent)

    def _about(
        self, adapter: str | Path, decoder: str | Path | None, brought_by: Saved | None
    ) -> dict[str, Any]:
        about = {
            "model": self.opened.backbone.card().id,
            "adapter": str(adapter),
            **self.opened.digests,
            "decoder": self.decoder.name if decoder is None else str(decoder),
            "decoder_rate": self.decoder.sample_rate,
            "options": asdict(self.options),
            "guard": None if self.guard is None else asdict(self.guard.options),
        }
        if decoder is not None and brought_by is not None:
            about["decoder_sha256"] = brought_by.digest
        return about | {"settings_hash": settings_hash(about)}


def _stage(error: BaseException, stage: str) -> str:
    """Where it failed: what is taped is decoded and rewritten at once."""
    return "restore" if stage == "decode" and not isinstance(error, AudioError) else stage


def _why(trial: Trial) -> str:
    """What speaks against it."""
    if "vouched" in trial.failed:
        return "nothing could be compared"
    return f"{', '.join(trial.failed)} changed too much"


def _decoder(
    opened: Opened, adapter: str | Path, other: str | Path | None, device: str, offline: bool
) -> tuple[WaveformDecoder, Saved | None]:
    """The decoder that the adapter brought, or that of another folder for the same encoder; and who did."""
    if other is None:
        if opened.decoder is None:
            has = ", ".join(opened.heads) or "no head"
            raise ConfigError(
                f"adapter {adapter}: it has {has}, and to restore it needs a decoder: train one with "
                "task.name=restore, or name the folder that has it with --decoder"
            )
        return opened.decoder, opened.saved
    saved = read(locate(other, offline=offline))
    saved.check_backbone(opened.backbone.card())
    fields = saved.head_config.get("decoder")
    if fields is None:
        raise ConfigError(f"decoder {other}: it holds an adapter without a decoder")
    backbone = opened.backbone
    build = partial(build_decoder, backbone.dim, backbone.frame_rate, **fields)
    decoder = saved.build_head("decoder", build)
    return decoder.to(device).eval(), saved


def _name(source: Source, index: int) -> str:
    if isinstance(source, given.Wave | given.Packed):
        return Path(source.name).stem or f"{index:04}"
    return source.relpath if isinstance(source, Job) else Path(source).stem
