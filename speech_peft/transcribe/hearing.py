"""Windows to readings: batches of one length through an engine, and again where something was unheard.

Whisper's attention has no mask, so windows that are encoded together share one padded length: a clip's text
would otherwise depend on its neighbours. An engine that hears several batches at a time gets a thread for
each.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..audio.windows.chunks import SAMPLE_RATE, Window
from ..core.listening.reference import Reference
from ..decoders.diffusion.reader import MaskedReader
from ..decoders.words import whisper_text, word_ends
from ..decoders.words.decoded import Decoded
from ..decoders.words.engine import Engine
from ..decoders.words.surest import surest
from ..decoders.words.word_times import TimedWord
from ..folders.listener import Listener
from ..folders.reader import Piece
from ..folders.told import telling
from ..opening.loading import Opened
from . import parts
from .choosing import Chooser
from .languages import Spoken, first_seconds, telling_first
from .parts import Reading
from .result import TranscribeOptions, Word
from .routing.weights import by_steps, mixers_of, noted
from .unheard import may_lack, speech

_FULL = 30 * SAMPLE_RATE
A = TypeVar("A")
B = TypeVar("B")


@dataclass(eq=False)
class File(Spoken):
    """An input on its way."""

    heard: dict[float, tuple[Decoded, float, tuple[Word, ...]]] = field(default_factory=dict)
    """By where the window starts: its text, the seconds until its end, and its words."""

    views: dict[float, int] = field(default_factory=dict)
    """By where a window starts: of several microphones the one whose text is given, counted from 1."""

    routes: dict[float, Tensor] = field(default_factory=dict)
    """By where a window starts: what a fusion chose in it, `(site, step, adapter)`."""

    def hear(self, window: Window, text: Decoded, words: Sequence[TimedWord]) -> None:
        placed = tuple(Word(w.word, *window.placed(w.start, w.end), w.probability) for w in words)
        self.heard[window.start] = (text, window.end - window.start, placed)


_Piece = Piece[File]
_Group = list[list[_Piece]]
"""Batches of the encoder, each of one padded length, that are decoded together."""


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
    _bare: Mapping[_Piece, Tensor] = MappingProxyType({})
    """States of the pool's windows that the frozen model alone has made, where no adapter changes them."""

    def _hear(self, pool: list[_Piece]) -> None:
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

    def _hear_by_layer(self, pool: list[_Piece]) -> None:
        for batch in self._batches(pool):
            with self._running(batch), self._noting(batch):
                encoded = self.backbone.encode(self._features(batch))
            states, mask = encoded.states.float(), encoded.mask
            if self.reader is not None:
                found = self.reader.read(states, mask, self.backbone.frame_rate)
            else:
                assert self.opened.ctc is not None
                found = [(Decoded(text, (), 0.0, 0.0), ()) for text in self.opened.ctc.decode(states, mask)]
            for piece, (text, words) in zip(batch, found, strict=True):
                piece.file.hear(piece.window, text, word_ends.trimmed(words, piece.window.samples))

    def _read_parts(self, pool: list[_Piece], windows: Sequence[tuple[int, Window]]) -> list[Reading]:
        """The same for parts of the windows of a pool, in the order in which they come."""
        pieces = [Piece(pool[place].file, window) for place, window in windows]
        order = sorted(range(len(pieces)), key=lambda i: self._alike(pieces[i]))
        read = self._read([pieces[i] for i in order], parts=True)
        return [reading for _, reading in sorted(zip(order, read, strict=True), key=lambda pair: pair[0])]

    def _read(self, pool: list[_Piece], parts: bool = False) -> list[Reading]:
        """What the decoder writes of each piece, and its words; the pool is sorted by padded length.

        Parts of windows have been told their language and adapters with the whole.
        """
        self._bare = {}
        if self.chooser is not None:
            return self._read_chosen(self.chooser, pool, parts)
        groups = list(self._groups(pool))
        if not self._asks:
            found = self._each(lambda group: self._decoded(group, self._encoded(group)), groups)
        else:
            states = list(self._each(self._encoded, groups))
            for group, encoded in zip(groups, states, strict=True):
                self._detect(group, encoded)
            found = self._each(lambda pair: self._decoded(*pair), list(zip(groups, states, strict=True)))
        return [reading for readings in found for reading in readings]

    def _groups(self, pool: list[_Piece]) -> Iterator[_Group]:
        """What to decode together: the decoder reads the padding of every piece at each token."""
        assert self.engine is not None
        group: _Group = []
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

    def _encoded(self, group: _Group) -> list[Tensor]:
        return [self._encode(batch) for batch in group]

    def _encode(self, batch: list[_Piece]) -> Tensor:
        """States of a batch, of every microphone; those that the frozen model alone has made already are not
        made again."""
        assert self.engine is not None
        new = [piece for piece in batch if piece not in self._bare]
        pad_to = 0 if self.chooser is None else self._padded(batch[0])
        views = len(batch[0].window.heard)
        rows = [piece for piece in new for _ in range(views)]
        with self._running(rows, views), self._noting(rows):
            made = self.engine.encode(self._features(new, pad_to)) if new else torch.empty(0)
        if len(new) == len(batch):
            return made
        rows = iter(made)
        return torch.stack([self._bare[piece] if piece in self._bare else next(rows) for piece in batch])

    @contextmanager
    def _noting(self, pieces: Sequence[_Piece]) -> Iterator[None]:
        """What a fusion chooses for each piece is kept with its recording."""
        mixers = {} if self.chooser else mixers_of(self.opened.model)
        with noted(mixers) as notes:
            yield
        if notes and len(notes) == len(mixers):
            rate = self.backbone.frame_rate
            for row, piece in enumerate(pieces):
                each = [by_steps(notes[site], row, piece.window.seconds, rate) for site in mixers]
                piece.file.routes.setdefault(piece.window.start, torch.stack(each))

    def _read_chosen(self, chooser: Chooser, pool: list[_Piece], parts: bool) -> list[Reading]:
        """The same where adapters are chosen first, and with them how long a window is padded."""
        if not parts:
            self._bare = self._choose(chooser, pool)
        readings: dict[_Piece, Reading] = {}
        for group in self._groups(sorted(pool, key=self._padded)):
            pieces = [piece for batch in group for piece in batch]
            readings |= dict(zip(pieces, self._decoded(group, self._encoded(group)), strict=True))
        return [readings[piece] for piece in pool]

    def _padded(self, piece: _Piece) -> int:
        own, choice = super()._padded(piece), piece.file.choice_at(piece.window.start)
        if self.chooser is None or choice is None or choice.runs:
            return own
        return max(own, self.chooser.pad_to)

    def _choose(self, chooser: Chooser, pool: list[_Piece]) -> dict[_Piece, Tensor]:
        """Choose adapters by what the frozen model alone makes of windows; its states that will do."""
        bare: dict[_Piece, Tensor] = {}
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

    def _running(self, pieces: Sequence[_Piece], views: int = 1) -> AbstractContextManager[object]:
        """Each piece with the adapters that were chosen for it, or told its task and language."""
        if not pieces:
            return nullcontext()
        if self.chooser is None:
            sources, spoken = [p.file.source for p in pieces], [self._language(p) for p in pieces]
            told = (self.options.adapter_task, spoken, self.device, self.reference, views)
            return telling(self.opened.model, sources, *told)
        chosen = [piece.file.choice_at(piece.window.start) for piece in pieces]
        return self.opened.model.using_rows(*(one.runs if one else () for one in chosen))

    def _language(self, piece: _Piece) -> str | None:
        choice = None if self.chooser is None else piece.file.choice_at(piece.window.start)
        return self.options.language or (choice.language if choice else None) or piece.file.language

    def _surest(self, batch: list[_Piece], states: Tensor) -> Tensor:
        """Of the microphones of each piece, the states of that whose text the decoder is surest of."""
        views = len(states) // len(batch)
        if views == 1:
            return states
        rows = [piece for piece in batch for _ in range(views)]
        with self._running(rows):
            read = self._texts(
                rows, states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
            )
        chosen = []
        for place, piece in enumerate(batch):
            first = place * views
            view = surest(read[first : first + views], [bool(view.any()) for view in piece.window.heard])
            piece.file.views.setdefault(piece.window.start, view + 1)
            chosen.append(first + view)
        return states[torch.tensor(chosen, device=states.device)]

    def _decoded(self, group: _Group, encoded: list[Tensor]) -> list[Reading]:
        encoded[:] = map(self._surest, group, encoded)
        longest = max(states.shape[1] for states in encoded)
        states = torch.cat([nn.functional.pad(s, (0, 0, 0, longest - s.shape[1])) for s in encoded])
        lengths = torch.cat([torch.full((len(s),), s.shape[1]) for s in encoded]).to(states.device)
        encoded.clear()
        mask = torch.arange(longest, device=states.device)[None] < lengths[:, None]
        pieces = [piece for batch in group for piece in batch]
        with self._running(pieces):
            return self._decode(pieces, states, mask)

    def _decode(self, pool: list[_Piece], states: Tensor, mask: Tensor) -> list[Reading]:
        assert self.engine is not None
        languages = [self._language(piece) for piece in pool]
        seconds = [piece.window.seconds for piece in pool]
        heard = self._texts(pool, states, mask, self.options.beam_size)
        wanted = [
            i
            for i, (piece, text) in enumerate(zip(pool, heard, strict=True))
            if text.tokens and self._needs_times(piece.window, text.text)
        ]
        words: dict[int, tuple[TimedWord, ...]] = {}
        if wanted:
            chosen = torch.tensor(wanted, device=states.device)
            with self._running([pool[i] for i in wanted]):
                found = self.engine.words(
                    states[chosen],
                    mask[chosen],
                    [heard[i].tokens for i in wanted],
                    seconds=[seconds[i] for i in wanted],
                    language=[languages[i] for i in wanted],
                    task=self.options.task,
                )
            words = {
                i: word_ends.trimmed(own, pool[i].window.samples)
                for i, own in zip(wanted, found, strict=True)
            }
        return [(text, words.get(i, ())) for i, text in enumerate(heard)]

    def _texts(self, pool: list[_Piece], states: Tensor, mask: Tensor, beam_size: int = 1) -> list[Decoded]:
        assert self.engine is not None
        return whisper_text.decode(
            self.engine.backbone,
            states,
            mask,
            beam_size=beam_size,
            language=[self._language(piece) for piece in pool],
            seconds=[piece.window.seconds for piece in pool],
            task=self.options.task,
            before=self.before,
            find=self.engine.find,
        )

    def _needs_times(self, window: Window, text: str) -> bool:
        """Whether the times of words are wanted, make segments, or tell whether all was heard."""
        return self.options.word_times or self._splits(window) or may_lack(text, speech(window))

    def _splits(self, window: Window) -> bool:
        """Whether it may become several segments, which needs the words' times."""
        long = window.seconds > self.options.split_seconds
        return (
            long or bool(window.joints) or word_ends.longest_pause(window.samples) > word_ends.PAUSE_SECONDS
        )

    @property
    def _asks(self) -> bool:
        """Whether the language of a recording is asked of its sound."""
        known = self.engine is not None and self.engine.backbone.generation.is_multilingual
        return known and self.options.language is None

    def _ordered(self, events: Iterable[_Piece | File]) -> Iterator[_Piece | File]:
        chooses = self.chooser is not None and self.chooser.whole
        return telling_first(events) if self._asks or chooses else super()._ordered(events)

    def _detect(self, group: _Group, encoded: list[Tensor]) -> None:
        """The language of each file whose telling window is in the group."""
        assert self.engine is not None
        for batch, states in zip(group, encoded, strict=True):
            telling = [i for i, piece in enumerate(batch) if piece.file.telling is piece.window]
            if not telling:
                continue
            views = len(states) // len(batch)
            rows = [i * views + batch[i].window.first_heard for i in telling]
            chosen = torch.tensor(rows, device=states.device)
            found = whisper_text.detect_language(self.engine.backbone, states[chosen])
            for i, shares in zip(telling, found, strict=True):
                batch[i].file.language = max(shares, key=shares.__getitem__)

    def _each(self, work: Callable[[A], B], of: Sequence[A]) -> Iterator[B]:
        """What `work` makes of each, in order; several at a time where the engine can."""
        if self.engine is None or self.engine.workers == 1 or len(of) == 1:
            return map(work, of)
        return self._threads.map(torch.inference_mode()(work), of)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        assert self.engine is not None
        count, own = self.engine.workers, torch.get_num_threads()
        started = threading.Barrier(count + 1)

        def alone() -> None:
            torch.set_num_threads(max(1, own // count))
            started.wait()

        threads = ThreadPoolExecutor(count, "hearing", alone)
        for _ in range(count):
            threads.submit(int)
        started.wait()
        torch.set_num_threads(own)  # of threads that are still to come
        return threads
