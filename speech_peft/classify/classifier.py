"""Recordings in, classes out: one adapter or several on one backbone, over windows of long recordings.

Windows are heard at their own length, by every adapter in one pass (`branches`). What is kept of a recording
is a row of probabilities for each window, so an hour takes hardly more memory than a minute.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ..audio import given
from ..audio.manifest import Row
from ..audio.windows.chunks import Window
from ..audio.windows.sliding import sliding
from ..decoders.classifier import ClassifierHead
from ..errors import AudioError, ConfigError
from ..folders.inputs import Job, task_of
from ..folders.ledger import settings_hash
from ..folders.listener import Listener
from ..folders.outcomes.outcome import Outcome, failed
from ..folders.progress import watched
from ..folders.reader import SAMPLE_RATE, Piece, Recording, Samples, Source
from ..folders.told import check_task, telling
from ..opening.asked import asked
from ..opening.together import load_together
from ..predictions.classes import ClassPrediction
from .branches import branches
from .result import Classified, ClassifyOptions, Heard, Probabilities, Scored
from .writers import render


@dataclass(eq=False)
class _File(Recording):
    """An input on its way.

    What is heard goes into a few arrays that grow: small ones of their own for each window would lie between
    the large blocks of the encoder and keep the heap from being used again. An hour then took 400 MB more.
    """

    spans: "array[float]" = field(default_factory=lambda: array("d"))
    """Start and end of each window that was heard, in seconds."""
    rows: "dict[str, array[float]]" = field(default_factory=dict)
    """By adapter: the probabilities of one window after the other."""

    def hear(self, window: Window, rows: Mapping[str, Probabilities]) -> None:
        self.spans.extend((window.start, window.end))
        for name, row in rows.items():
            self.rows.setdefault(name, array("f")).frombytes(row.tobytes())


class Classifier(Listener[_File]):
    """A backbone with the classification adapters that were trained on it.

    >>> for result in Classifier(["runs/pets", "runs/alarms"]).classify(["a.wav"]):  # doctest: +SKIP
    ...     print(result.path, result.heard["pets"].top(1))
    """

    stage = "classify"

    def __init__(
        self,
        adapters: str | Path | Sequence[str | Path],
        weights: str | Path | None = None,
        *,
        context: str | None = None,
        device: str = "cpu",
        batch_seconds: float = 300.0,
        offline: bool = False,
        options: ClassifyOptions | None = None,
        **more: Any,
    ):
        """`more` are fields of ClassifyOptions: window_seconds, hop_seconds, top_k, channels."""
        adapters = [adapters] if isinstance(adapters, (str, Path)) else list(adapters)
        if not adapters:
            raise ConfigError("adapter: none is given, and without one there are no classes to tell apart")
        if batch_seconds <= 0:
            raise ConfigError(f"batch_seconds: {batch_seconds} is not a length; expected more than 0")
        self.options = asked(options or ClassifyOptions(), more, "Classifier")
        chosen = {} if context is None else {"context": context}
        self.opened = load_together(adapters, weights, device, offline, **chosen)
        self.batch_seconds, self.device, self.notes = batch_seconds, torch.device(device), []
        self.backbone = self.opened.backbone
        self.heads = {name: self._head(name) for name in self.opened.parts}
        limit = self.backbone.max_seconds
        if limit and self.options.window_seconds > limit:
            raise ConfigError(
                f"window: {self.backbone.name} hears at most {limit:g} s at once, and a window is "
                f"{self.options.window_seconds:g} s. Expected no more than that"
            )
        check_task(self.opened.model, self.options.adapter_task)
        self.about = self._about(adapters)

    def _head(self, name: str) -> ClassifierHead:
        _, opened = self.opened.parts[name]
        head = opened.heads.get("classify")
        if not isinstance(head, ClassifierHead):
            has = ", ".join(opened.heads) or "no head"
            raise ConfigError(
                f"adapter {name}: it has {has}, and to classify it needs one that was trained with "
                "task.name=classify"
            )
        return head

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The classes of each adapter, in the order of its probabilities."""
        return {name: tuple(head.labels) for name, head in self.heads.items()}

    def classify(self, inputs: Any) -> Iterator[Classified]:
        """A result for each input as soon as it is complete.

        One recording or several, as `audio.given` has it: a path, samples at 16 kHz, `(array, rate)`,
        `{"array": array, "sampling_rate": rate}`. Raises ConfigError for anything else, and NoSuchAudio for a
        file that is not there; one that cannot be decoded is a result with an error.
        """
        sources = given.listed(inputs, Job)
        return (result for _, result in self._results(sources))

    def work(self, jobs: Iterable[Job], formats: Sequence[str]) -> Iterator[Outcome]:
        """The same for `runner.run`: outcomes with the files' content."""
        for file, result in self._results(jobs):
            job = cast(Job, file.source)
            if result.error is not None:
                yield Outcome(job, error=result.error, stage=result.stage, audio_seconds=result.duration)
                continue
            try:
                files = {name: render(result, name, self.options.top_k) for name in formats}
            except Exception as error:
                yield failed(job, error, "write")
                continue
            self.notes += [f"{job.audio}: {note}" for note in result.notes]
            yield Outcome(job, files, result.duration, result.seconds, result.truncated)

    def _results(self, sources: Iterable[Source]) -> Iterator[tuple[_File, Classified]]:
        for file in self._listen(sources, self.options.channels, self.options.track):
            yield file, self._finished(file, self._result)

    def _result(self, file: _File) -> Classified:
        name = file.source.relpath if isinstance(file.source, Job) else file.name
        common: dict[str, Any] = {"id": name, "duration": file.duration, "seconds": file.seconds}
        if file.error is not None:
            return Classified(file.name, **common, error=file.error, stage=file.stage)
        heard = {name: self._heard(name, file) for name in self.heads}
        told: dict[str, Any] = {"truncated": file.truncated, "notes": file.notes}
        return Classified(file.name, **common, **told, heard=heard, about=self.about)

    def _heard(self, name: str, file: _File) -> Heard:
        spans = np.array(file.spans).reshape(-1, 2)
        order = np.argsort(spans[:, 0])
        rows = np.array(file.rows[name]).reshape(len(spans), -1)[order]
        windows = tuple(
            Scored(float(start), float(end), row)
            for (start, end), row in zip(spans[order], rows, strict=True)
        )
        return Heard(name, self.labels[name], rows.mean(0, dtype=np.float64).astype(np.float32), windows)

    def _recording(self, index: int, source: Source) -> _File:
        return _File(index, source)

    def _cut(self, blocks: Iterable[Samples]) -> Iterator[Window]:
        window, hop = (
            max(1, round(seconds * SAMPLE_RATE))
            for seconds in (self.options.window_seconds, self.options.hop)
        )
        empty = True
        for piece in sliding(blocks, window, hop):
            empty = False
            yield piece
        if empty:
            raise AudioError("samples", "holds no samples")

    def _hear(self, pool: list[Piece[_File]]) -> None:
        batches = list(self._batches(pool))
        found = []
        for batch in batches:
            sources, spoken = [piece.file.source for piece in batch], [None] * len(batch)
            with telling(self.opened.model, sources, self.options.adapter_task, spoken, self.device):
                found.append(self._probabilities(batch))
        for batch, by_adapter in zip(batches, found, strict=True):  # when nothing can fail any more
            for i, piece in enumerate(batch):
                piece.file.hear(piece.window, {name: rows[i] for name, rows in by_adapter.items()})

    def _probabilities(self, batch: list[Piece[_File]]) -> dict[str, np.ndarray]:
        """What each adapter hears in each piece: `(b, c)`."""
        names = {inside: name for name, (inside, _) in self.opened.parts.items()}
        heads = {inside: self.heads[name] for inside, name in names.items()}
        together = {inside: opened.runs for inside, opened in self.opened.parts.values()}
        found = {}
        for inside, logits in branches(
            self.backbone, self.opened.model, heads, self._features(batch), together
        ):
            shares = heads[inside].probabilities(logits.float())
            if not shares.isfinite().all():
                raise RuntimeError(f"adapter {names[inside]} gives probabilities that are no numbers")
            found[names[inside]] = shares.float().cpu().numpy()
        return found

    def _about(self, adapters: Sequence[str | Path]) -> dict[str, Any]:
        found = {name: opened.digests for name, (_, opened) in self.opened.parts.items()}
        several = {name: of["adapters_sha256"] for name, of in found.items() if "adapters_sha256" in of}
        about = {
            "model": self.backbone.card().id,
            "context": getattr(self.backbone, "context", None),
            "adapter_folders": dict(zip(found, map(str, adapters), strict=True)),
            "adapter_sha256": {name: of["adapter_sha256"] for name, of in found.items()},
            **({"adapters_sha256": several} if several else {}),
            "options": self.options.asked(),
        }
        return about | {"settings_hash": settings_hash(about)}


def evaluate(
    classifier: Classifier, rows: Sequence[Row], adapter: str | None = None
) -> list[ClassPrediction]:
    """What one adapter hears in the rows of a manifest, in their order; a bad one is a row with an error.

    `adapter` is the name of one of several; a clip longer than a window counts by the mean of its windows.
    """
    if adapter is None and len(classifier.heads) > 1:
        raise ConfigError(f"adapter: name one of {', '.join(classifier.heads)} to evaluate")
    name = adapter or next(iter(classifier.heads))
    if name not in classifier.heads:
        raise ConfigError(f"adapter: none is called {name!r}; there are {', '.join(classifier.heads)}")
    jobs = [
        Job(row.audio, row.id, row.start, row.duration, task=task_of(row), lang=row.lang or "")
        for row in rows
    ]
    shown = watched(classifier._results(jobs), len(jobs), lambda pair: pair[1])
    found = {file.index: result for file, result in shown}
    return [_prediction(row, found[i], name, classifier) for i, row in enumerate(rows)]


def _prediction(row: Row, result: Classified, name: str, classifier: Classifier) -> ClassPrediction:
    heard = result.heard.get(name)
    seconds = result.duration or row.duration or 0.0
    return ClassPrediction(
        id=row.id,
        audio_filepath=str(row.audio),
        label=row.label or "",
        probabilities={}
        if heard is None
        else dict(zip(heard.labels, map(float, heard.probabilities), strict=True)),
        start=row.start,
        end=row.start + seconds,
        multi_label=bool(classifier.heads[name].multi_label),
        time=result.seconds,
        lang=row.lang or "",
        speaker=row.speaker or "",
        error=result.error,
        columns=dict(row.extra),
    )
