"""States of windows to readings: what a decoder writes of each, and when its words are said."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...audio.windows.chunks import Window
from ...decoders.words import whisper_text, word_ends
from ...decoders.words.decoded import Decoded
from ...decoders.words.engine import Engine
from ...decoders.words.surest import surest
from ...decoders.words.word_times import TimedWord
from ..result import TranscribeOptions
from .file import FilePiece, Group
from .parts import Reading
from .running import Running
from .unheard import may_lack, speech


@dataclass(frozen=True)
class Texts:
    """Reads what the encoder of an engine made."""

    engine: Engine
    options: TranscribeOptions
    before: tuple[int, ...]
    """Tokens of a text that came before."""
    running: Running

    def read(self, group: Group, encoded: list[Tensor]) -> list[Reading]:
        """What is written of each piece of a group, whose batches the encoder heard; `encoded` is emptied."""
        encoded[:] = map(self._surest, group, encoded)
        longest = max(states.shape[1] for states in encoded)
        states = torch.cat([nn.functional.pad(s, (0, 0, 0, longest - s.shape[1])) for s in encoded])
        lengths = torch.cat([torch.full((len(s),), s.shape[1]) for s in encoded]).to(states.device)
        encoded.clear()
        mask = torch.arange(longest, device=states.device)[None] < lengths[:, None]
        pieces = [piece for batch in group for piece in batch]
        with self.running.of(pieces):
            return self.decode(pieces, states, mask)

    def _surest(self, batch: list[FilePiece], states: Tensor) -> Tensor:
        """Of the microphones of each piece, the states of that whose text the decoder is surest of."""
        views = len(states) // len(batch)
        if views == 1:
            return states
        rows = [piece for piece in batch for _ in range(views)]
        everything = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        with self.running.of(rows):
            read = self._written(rows, states, everything)
        chosen = []
        for place, piece in enumerate(batch):
            first = place * views
            view = surest(read[first : first + views], [bool(view.any()) for view in piece.window.heard])
            piece.file.views.setdefault(piece.window.start, view + 1)
            chosen.append(first + view)
        return states[torch.tensor(chosen, device=states.device)]

    def decode(self, pool: list[FilePiece], states: Tensor, mask: Tensor) -> list[Reading]:
        """What is written of each row of states, `(b, t, d)` with the mask of their frames."""
        languages = [self.running.language(piece) for piece in pool]
        seconds = [piece.window.seconds for piece in pool]
        heard = self._written(pool, states, mask, self.options.beam_size)
        wanted = [
            i
            for i, (piece, text) in enumerate(zip(pool, heard, strict=True))
            if text.tokens and self._needs_times(piece.window, text.text)
        ]
        words: dict[int, tuple[TimedWord, ...]] = {}
        if wanted:
            chosen = torch.tensor(wanted, device=states.device)
            with self.running.of([pool[i] for i in wanted]):
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

    def _written(
        self, pool: list[FilePiece], states: Tensor, mask: Tensor, beam_size: int = 1
    ) -> list[Decoded]:
        return whisper_text.decode(
            self.engine.backbone,
            states,
            mask,
            beam_size=beam_size,
            language=[self.running.language(piece) for piece in pool],
            seconds=[piece.window.seconds for piece in pool],
            task=self.options.task,
            before=self.before,
            find=self.engine.find,
        )

    def _needs_times(self, window: Window, text: str) -> bool:
        """Whether the times of words are wanted, make segments, or tell whether all was heard."""
        options = self.options
        return options.word_times or splits(window, options.split_seconds) or may_lack(text, speech(window))


def splits(window: Window, split_seconds: float) -> bool:
    """Whether it may become several segments, which needs the words' times."""
    long = window.seconds > split_seconds
    return long or bool(window.joints) or word_ends.longest_pause(window.samples) > word_ends.PAUSE_SECONDS
