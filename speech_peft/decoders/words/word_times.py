"""When each word was said: the heads of Whisper's cross attention that follow time, and a monotone path.

One teacher-forced pass over the finished transcript gives, for every token, how much each moment was attended
to (openai-whisper's method; Giorgino 2009 for the path). Queries and keys are caught by hooks that stay only
as long as the pass, so the attention itself may use any kernel.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int
from numpy import ndarray
from torch import Tensor

from ...metrics.writing import stands_alone
from .whisper_reader import Reader

if TYPE_CHECKING:
    from ...backbones.whisper import Whisper

_MEDIAN_FRAMES = 7
_CATCHING = threading.Lock()  # hooks hang on the model, which threads share


@dataclass(frozen=True)
class TimedWord:
    """A word with the space before it, and seconds from the start of its window."""

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class Trace:
    """Where in its clip each token of a transcript was heard, the end of text included."""

    starts: Float64[ndarray, " n"]
    """First frame of each token, never earlier than that of the token before."""
    shares: Float32[ndarray, "n t"]
    """How much of a token's attention is on each frame; sums to 1."""
    probabilities: Float32[ndarray, " n"]


def align(
    backbone: "Whisper",
    states: Float[Tensor, "b t d"],
    mask: Bool[Tensor, "b t"],
    tokens: Sequence[Sequence[int]],
    *,
    seconds: Sequence[float],
    language: Sequence[str | None] | None = None,
    task: str = "transcribe",
) -> list[tuple[TimedWord, ...]]:
    """The words of each clip, from the tokens that were decoded of it."""
    found = []
    traced = traces(backbone, states, mask, tokens, seconds=seconds, language=language, task=task)
    for row, length, trace in zip(tokens, seconds, traced, strict=True):
        starts = trace.starts / backbone.frame_rate
        end = min(length, trace.shares.shape[1] / backbone.frame_rate)
        found.append(words_at(backbone, row, starts, end, trace.probabilities))
    return found


@torch.inference_mode()
def traces(
    backbone: "Whisper",
    states: Float[Tensor, "b t d"],
    mask: Bool[Tensor, "b t"],
    tokens: Sequence[Sequence[int]],
    *,
    seconds: Sequence[float],
    language: Sequence[str | None] | None = None,
    task: str = "transcribe",
) -> list[Trace]:
    """Where the tokens that were decoded of each clip were heard in it."""
    g = backbone.generation
    prompts = [g.prompt(code, task) for code in language or [None] * len(tokens)]
    rows = [[*prompt, *row, g.eot] for prompt, row in zip(prompts, tokens, strict=True)]
    longest = max(map(len, rows))
    forced = torch.tensor([row + [g.eot] * (longest - len(row)) for row in rows], device=states.device)
    reader = Reader(backbone, states, mask)
    with _CATCHING, _queries_and_keys(backbone) as caught:
        hidden = reader.read(forced)
    skip = len(prompts[0])
    chosen = _probabilities(reader, hidden[:, skip - 1 : -1], forced[:, skip:]).cpu().numpy()
    found, counts = [], frames_of(mask, seconds, backbone.frame_rate)
    for i, (row, frames) in enumerate(zip(tokens, counts, strict=True)):
        weights = _attention(backbone, caught, i, len(row) + skip + 1, frames)
        # Row n is where token n was heard: the one before it is being read while the next is written.
        starts = first_frames(-smoothed(weights)[skip - 1 : -1])
        shares = weights.mean(0)[skip - 1 : -1].cpu().numpy()
        found.append(Trace(starts, shares, chosen[i]))
    return found


def frames_of(mask: Bool[Tensor, "b t"], seconds: Sequence[float], frame_rate: float) -> list[int]:
    """In how many frames words of each clip are looked for: those of its seconds that `mask` has, or one."""
    counts = mask.sum(1).tolist()
    return [max(1, min(n, round(length * frame_rate))) for n, length in zip(counts, seconds, strict=True)]


def _probabilities(
    reader: Reader, hidden: Float[Tensor, "b n d"], tokens: Int[Tensor, "b n"]
) -> Float[Tensor, "b n"]:
    """Of each token that was written; row by row, as the scores of all tokens of a pool are a gigabyte."""
    found = torch.empty(tokens.shape, device=tokens.device)
    for row, (states, written) in enumerate(zip(hidden, tokens, strict=True)):
        scores = reader.scores(states, None)
        found[row] = (scores.gather(-1, written[:, None])[:, 0].float() - scores.float().logsumexp(-1)).exp()
    return found


@contextmanager
def _queries_and_keys(backbone: "Whisper") -> Iterator[dict[tuple[int, str], Tensor]]:
    caught: dict[tuple[int, str], Tensor] = {}

    def catch(key: tuple[int, str]) -> Callable[[Any, Any, Tensor], None]:
        def hook(module: Any, inputs: Any, output: Tensor) -> None:
            caught[key] = output

        return hook

    handles = []
    for block in {block for block, _ in time_heads(backbone)}:
        attention = backbone.decoder.layers[block].encoder_attn
        handles += [
            attention.q_proj.register_forward_hook(catch((block, "q"))),
            attention.k_proj.register_forward_hook(catch((block, "k"))),
        ]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def time_heads(backbone: "Whisper") -> Sequence[tuple[int, int]]:
    """The heads known to follow time; all of the upper half where nobody has looked."""
    if backbone.generation.alignment_heads:
        return backbone.generation.alignment_heads
    config = backbone.module.config
    upper = range(config.decoder_layers // 2, config.decoder_layers)
    return [(block, head) for block in upper for head in range(config.decoder_attention_heads)]


def _attention(
    backbone: "Whisper", caught: dict[tuple[int, str], Tensor], row: int, length: int, frames: int
) -> Float[Tensor, "h n t"]:
    """What each of the time heads attends to, of the clip's own frames."""
    size = backbone.dim // backbone.module.config.decoder_attention_heads
    maps = []
    for block, head in time_heads(backbone):
        part = slice(head * size, (head + 1) * size)
        queries, keys = caught[block, "q"][row, :length, part], caught[block, "k"][row, :frames, part]
        maps.append((queries.float() @ keys.float().T * size**-0.5).softmax(-1))
    return torch.stack(maps)


def smoothed(weights: Float[Tensor, "h n t"]) -> Float32[ndarray, "n t"]:
    """Mean attention of the time heads, each normalised over tokens and smoothed over time."""
    deviation, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    weights = (weights - mean) / deviation.clamp_min(1e-8)
    if weights.shape[-1] > _MEDIAN_FRAMES // 2:
        padded = torch.nn.functional.pad(weights, (_MEDIAN_FRAMES // 2,) * 2, mode="reflect")
        weights = padded.unfold(-1, _MEDIAN_FRAMES, 1).median(-1).values
    return weights.mean(0).cpu().numpy()


def first_frames(cost: Float32[ndarray, "n t"]) -> Float64[ndarray, " n"]:
    """For each row the first column of the cheapest monotone path; whole anti-diagonals at a time."""
    rows, columns = cost.shape
    skewed = np.full((rows + columns - 1, rows), np.inf, np.float32)  # [diagonal, row]
    for row in range(rows):
        skewed[row : row + columns, row] = cost[row]
    total = np.full((rows + columns + 1, rows + 1), np.inf, np.float32)  # one row and two diagonals of border
    total[0, 0] = 0.0
    came = np.zeros((rows + columns - 1, rows), np.int8)  # 0 from both, 1 from the row above, 2 from the left
    for d in range(rows + columns - 1):
        steps = np.stack([total[d, :-1], total[d + 1, :-1], total[d + 1, 1:]])
        came[d] = steps.argmin(0)
        total[d + 2, 1:] = skewed[d] + steps.min(0)
    firsts = np.zeros(rows)
    row, column = rows - 1, columns - 1
    while row >= 0 and column >= 0:
        firsts[row] = column
        step = came[row + column, row]
        row, column = row - (step != 2), column - (step != 1)
    return firsts


def words_at(
    backbone: "Whisper",
    tokens: Sequence[int],
    starts: Float64[ndarray, " n"],
    end: float,
    probabilities: Float32[ndarray, " m"],
) -> tuple[TimedWord, ...]:
    """The words of tokens that start at these seconds, with the end of text last; none lasts beyond `end`."""
    groups = words_of(backbone.tokenizer, tokens)
    found: list[TimedWord] = []
    at = 0
    for text, count in groups:
        begin = min(float(starts[at]), end)
        until = float(starts[at + count]) if at + count < len(starts) else end
        share = float(np.mean(probabilities[at : at + count]))
        found.append(TimedWord(text, begin, max(begin, min(until, end)), share))
        at += count
    return tuple(found)


def words_of(tokenizer: Any, tokens: Sequence[int]) -> list[tuple[str, int]]:
    """Each word with the number of its tokens; characters split over tokens stay whole.

    A word begins with a space; where a script has none, each whole character is one. Punctuation belongs to
    the word before it.
    """
    pieces: list[tuple[str, int]] = []
    held: list[int] = []
    for token in tokens:
        held.append(token)
        text = tokenizer.decode(held, skip_special_tokens=True)
        if "\ufffd" not in text:
            pieces.append((text, len(held)))
            held = []
    if held:
        pieces.append((tokenizer.decode(held, skip_special_tokens=True), len(held)))
    begins = [text.startswith(" ") or (stands_alone(text) and text.isalnum()) for text, _ in pieces]
    words = _joined(pieces, begins)
    return _joined(words, [any(c.isalnum() for c in text) for text, _ in words])


def _joined(parts: Sequence[tuple[str, int]], begins: Sequence[bool]) -> list[tuple[str, int]]:
    """Parts that begin nothing go to the one before."""
    found: list[tuple[str, int]] = []
    for (text, count), new in zip(parts, begins, strict=True):
        if new or not found:
            found.append((text, count))
        else:
            found[-1] = found[-1][0] + text, found[-1][1] + count
    return found
