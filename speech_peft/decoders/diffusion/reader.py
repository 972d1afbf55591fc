"""A masked decoder with tokens of its own, read from any encoder's states: texts, and times of words."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..words.decoded import Decoded
from ..words.word_times import TimedWord
from .lengths import by_duration
from .masked import MaskedDecoder
from .sample import Sampling, fill
from .select import Selection, chosen
from .times import placed, words_of


class MaskedReader:
    """Fills the texts of clips."""

    def __init__(
        self, decoder: MaskedDecoder, sampling: Sampling | None = None, selection: Selection = "sum"
    ):
        self.decoder, self.sampling = decoder, sampling or Sampling()
        self.selection: Selection = selection

    @torch.inference_mode()
    def read(
        self, states: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"], frame_rate: float
    ) -> list[tuple[Decoded, tuple[TimedWord, ...]]]:
        """The text of each clip with its words; `frame_rate` is that of the states."""
        decoder = self.decoder
        memory = decoder.memory(states, mask)
        counts = mask.sum(1).tolist()
        per_second = decoder.per_second
        lengths = by_duration([count / frame_rate for count in counts], decoder.room, per_second)
        filled = fill(decoder, memory, lengths, self.sampling)
        rows = chosen(decoder, filled, self.selection)
        texts = [decoder.until_end(tokens) for tokens, _ in rows]
        starts = placed(decoder, memory, texts, counts)
        found = []
        for (tokens, sure), text, first, count, silence in zip(
            rows, texts, starts, counts, filled.silence.tolist(), strict=True
        ):
            logs = torch.tensor(sure[: len(text) + 1]).clamp(min=1e-6).log().tolist()
            pieces = [decoder.piece(token) for token in text]
            words = words_of(pieces, (first / frame_rate).tolist(), count / frame_rate, sure)
            mean = sum(logs) / max(1, len(logs))
            stopped = decoder.end not in tokens
            # Tokens are its own: nobody else could read them.
            found.append((Decoded(decoder.decode(text), (), mean, silence, stopped=stopped), words))
        return found
