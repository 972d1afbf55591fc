"""Windows to readings: batches of one length through an engine, and again where something was unheard.

Whisper's attention has no mask, so windows that are encoded together share one padded length: a clip's text
would otherwise depend on its neighbours. An engine that hears several batches at a time gets a thread for
each.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from types import MappingProxyType

import torch
from torch import Tensor

from ...audio.windows.chunks import SAMPLE_RATE, Window
from ...core.listening.reference import Reference
from ...decoders.diffusion.reader import MaskedReader
from ...decoders.words import word_ends
from ...decoders.words.decoded import Decoded
from ...decoders.words.engine import Engine
from ...folders.listener import Listener
from ...folders.reader import Piece
from ...opening.loading import Opened
from ..choosing import Chooser
from ..result import TranscribeOptions
from ..routing.weights import by_steps, mixers_of, noted
from . import parts
from .file import File, FilePiece, Group
from .languages import first_seconds, hear_language, telling_first
from .parts import Reading
from .running import Running
from .texts import Texts
from .threads import Threads

_FULL = 30 * SAMPLE_RATE


class Hearing(Listener[File]):
    """Puts what an engine, or a CTC layer, reads in each window into its file."""

    opened: Opened
    options: TranscribeOptions
    engine: Engine | None
    """None where a CTC layer, or a decoder with tokens of its own, reads the encoder."""
    reader: MaskedReader | None = None
    """Such a decoder."""
    before: tuple[int, ...]
    """Tokens of a text that came before."""
    reference: Reference | None = None
    """Who is wanted of those who talk."""
    chooser: Chooser | None = None
    """What chooses adapters for each recording, or each window, where that is asked."""
    _bare: Mapping[FilePiece, Tensor] = MappingProxyType({})
    """States of the pool's windows that the frozen model alone has made, where no adapter changes them."""

    def _hear(self, pool: list[FilePiece]) -> None:
        if self.engine is None:
            return self._hear_by_layer(pool)
        windows, first = [piece.window for piece in pool], self._read(pool)
        if self.options.task == "translate":  # its words have no times of their own in the sound
            found = [[pair] for pair in zip(windows, first, strict=True)]
        else:
            found = parts.heard(windows, first, partial(self._read_parts, pool))
        for piece, heard in zip(pool, found, strict=True):
            for window, (text, words) in heard:
                piece.file.hear(window, text, words)

    def _hear_by_layer(self, pool: list[FilePiece]) -> None:
        for batch in self._batches(pool):
            with self._running.of(batch), self._noting(batch):
                encoded = self.backbone.encode(self._features(batch))
            states, mask = encoded.states.float(), encoded.mask
            if self.reader is not None:
                found = self.reader.read(states, mask, self.backbone.frame_rate)
            else:
                assert self.opened.ctc is not None
                found = [(Decoded(text, (), 0.0, 0.0), ()) for text in self.opened.ctc.decode(states, mask)]
            for piece, (text, words) in zip(batch, found, strict=True):
                piece.file.hear(piece.window, text, word_ends.trimmed(words, piece.window.samples))

    def _read_parts(self, pool: list[FilePiece], windows: Sequence[tuple[int, Window]]) -> list[Reading]:
        """The same for parts of the windows of a pool, in the order in which they come."""
        pieces = [Piece(pool[place].file, window) for place, window in windows]
        order = sorted(range(len(pieces)), key=lambda i: self._alike(pieces[i]))
        read = self._read([pieces[i] for i in order], parts=True)
        return [reading for _, reading in sorted(zip(order, read, strict=True), key=lambda pair: pair[0])]

    def _read(self, pool: list[FilePiece], parts: bool = False) -> list[Reading]:
        """What the decoder writes of each piece, and its words; the pool is sorted by padded length.

        Parts of windows have been told their language and adapters with the whole.
        """
        self._bare = {}
        if self.chooser is not None:
            return self._read_chosen(self.chooser, pool, parts)
        groups, texts, each = list(self._groups(pool)), self._texts, self._threads.map
        if not self._asks:
            found = each(lambda group: texts.read(group, self._encoded(group)), groups)
        else:
            states = list(each(self._encoded, groups))
            for group, encoded in zip(groups, states, strict=True):
                for batch, of_batch in zip(group, encoded, strict=True):
                    hear_language(texts.engine.backbone, batch, of_batch)
            found = each(lambda pair: texts.read(*pair), list(zip(groups, states, strict=True)))
        return [reading for readings in found for reading in readings]

    def _groups(self, pool: list[FilePiece]) -> Iterator[Group]:
        """What to decode together: the decoder reads the padding of every piece at each token."""
        assert self.engine is not None
        group: Group = []
        shortest, rows = 0, 0
        for batch in self._batches(pool):
            padded = self._padded(batch[0])
            most = self.engine.most_rows and self.engine.most_rows * _FULL / padded
            longer = padded > self.engine.stretch * shortest
            if group and (longer or (most and rows + len(batch) > most)):
                yield group
                group = []
            if not group:
                shortest, rows = padded, 0
            group.append(batch)
            rows += len(batch)
        if group:
            yield group

    def _encoded(self, group: Group) -> list[Tensor]:
        return [self._encode(batch) for batch in group]

    def _encode(self, batch: list[FilePiece]) -> Tensor:
        """States of a batch, of every microphone; those that the frozen model alone has made already are not
        made again."""
        assert self.engine is not None
        new = [piece for piece in batch if piece not in self._bare]
        pad_to = 0 if self.chooser is None else self._padded(batch[0])
        views = len(batch[0].window.heard)
        rows = [piece for piece in new for _ in range(views)]
        with self._running.of(rows, views), self._noting(rows):
            made = self.engine.encode(self._features(new, pad_to)) if new else torch.empty(0)
        if len(new) == len(batch):
            return made
        rows = iter(made)
        return torch.stack([self._bare[piece] if piece in self._bare else next(rows) for piece in batch])

    @contextmanager
    def _noting(self, pieces: Sequence[FilePiece]) -> Iterator[None]:
        """What a fusion chooses for each piece is kept with its recording."""
        mixers = {} if self.chooser else mixers_of(self.opened.model)
        with noted(mixers) as notes:
            yield
        if notes and len(notes) == len(mixers):
            rate = self.backbone.frame_rate
            for row, piece in enumerate(pieces):
                each = [by_steps(notes[site], row, piece.window.seconds, rate) for site in mixers]
                piece.file.routes.setdefault(piece.window.start, torch.stack(each))

    def _read_chosen(self, chooser: Chooser, pool: list[FilePiece], parts: bool) -> list[Reading]:
        """The same where adapters are chosen first, and with them how long a window is padded."""
        if not parts:
            self._bare = self._choose(chooser, pool)
        readings: dict[FilePiece, Reading] = {}
        for group in self._groups(sorted(pool, key=self._padded)):
            pieces = [piece for batch in group for piece in batch]
            readings |= dict(zip(pieces, self._texts.read(group, self._encoded(group)), strict=True))
        return [readings[piece] for piece in pool]

    def _padded(self, piece: FilePiece) -> int:
        own, choice = super()._padded(piece), piece.file.choice_at(piece.window.start)
        if self.chooser is None or choice is None or choice.runs:
            return own
        return max(own, self.chooser.pad_to)

    def _choose(self, chooser: Chooser, pool: list[FilePiece]) -> dict[FilePiece, Tensor]:
        """Choose adapters by what the frozen model alone makes of windows; its states that will do."""
        bare: dict[FilePiece, Tensor] = {}
        telling = (p for p in pool if not chooser.whole or p.file.telling is p.window)
        asking = {first_seconds(p, chooser.seconds): p for p in telling if not p.file.settled}
        for batch in self._batches(list(asking)):
            with self.opened.model.using():
                every, choices = chooser.listen(self._features(batch))
            for heard, choice, states in zip(batch, choices, every, strict=True):
                piece = asking[heard]
                piece.file.choices[0.0 if chooser.whole else piece.window.start] = choice
                if chooser.whole:
                    piece.file.language = piece.file.language or choice.language
                if heard is piece and not choice.encodes and (choice.runs or not chooser.pad_to):
                    bare[piece] = states
        return bare

    @property
    def _running(self) -> Running:
        return Running(self.opened.model, self.options, self.device, self.reference, self.chooser)

    @property
    def _texts(self) -> Texts:
        assert self.engine is not None
        return Texts(self.engine, self.options, self.before, self._running)

    @cached_property
    def _threads(self) -> Threads:
        return Threads(1 if self.engine is None else self.engine.workers)

    @property
    def _asks(self) -> bool:
        """Whether the language of a recording is asked of its sound."""
        known = self.engine is not None and self.engine.backbone.generation.is_multilingual
        return known and self.options.language is None

    def _ordered(self, events: Iterable[FilePiece | File]) -> Iterator[FilePiece | File]:
        chooses = self.chooser is not None and self.chooser.whole
        return telling_first(events) if self._asks or chooses else super()._ordered(events)
