"""When each token of a finished text was heard: a monotone path through a masked decoder's cross attention.

One pass over the whole text, nothing masked, gives what each place attends to, as `words.word_times` has it
of the autoregressive decoder; heads that look everywhere weigh nothing, each set against its own mean.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from numpy import ndarray

from ..words.word_times import TimedWord, first_frames, smoothed
from .masked import MaskedDecoder, Memory


@torch.no_grad()
def placed(
    decoder: MaskedDecoder, memory: Memory, texts: Sequence[Sequence[int]], counts: Sequence[int]
) -> list[Float64[ndarray, " n"]]:
    """The first frame of each token and of the end; `counts` are the frames that a clip has."""
    width = max(map(len, texts)) + 1
    device = memory.keys[0].device
    tokens = torch.tensor([[*text, *[decoder.end] * (width - len(text))] for text in texts], device=device)
    maps = decoder.attention(tokens, memory)
    return [
        first_frames(-smoothed(own[:, : len(text) + 1, : max(1, count)].float()))
        for own, text, count in zip(maps, texts, counts, strict=True)
    ]


def words_of(
    pieces: Sequence[str], starts: Sequence[float], end: float, shares: Sequence[float]
) -> tuple[TimedWord, ...]:
    """Words from pieces of text that start at these seconds, the end of the text last.

    A word begins with a space, or behind one.

    >>> [w.word for w in words_of(["a", " ", "b", "c"], [0, 1, 2, 3, 4], 5.0, [1.0] * 4)]
    ['a', ' bc']
    """
    found: list[TimedWord] = []
    groups: list[list[int]] = []
    for i, piece in enumerate(pieces):
        after_space = i > 0 and pieces[i - 1] == " "
        if not groups or (piece.startswith(" ") and not after_space):
            groups.append([])
        groups[-1].append(i)
    for group in groups:
        text = "".join(pieces[i] for i in group)
        if not text.strip():
            continue
        begin = min(float(starts[group[0]]), end)
        until = min(float(starts[group[-1] + 1]) if group[-1] + 1 < len(starts) else end, end)
        found.append(TimedWord(text, begin, max(begin, until), sum(shares[i] for i in group) / len(group)))
    return tuple(found)
