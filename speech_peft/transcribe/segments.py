"""Windows of text as segments a person can read: cut at sentences and pauses, doubts marked."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..decoders.words.word_ends import PAUSE_SECONDS
from ..metrics.writing import SENTENCE_END
from .result import Segment, Word

if TYPE_CHECKING:
    from ..decoders.words.decoded import Decoded

LOOP_RATIO = 2.4
UNSURE_LOGPROB = -1.0
SILENCE_PROB = 0.6

Heard = tuple["Decoded", float, tuple[Word, ...]]


def segments_of(windows: Sequence[tuple[Heard, float]], split_seconds: float) -> tuple[Segment, ...]:
    """The segments of a recording, numbered; windows without text give none."""
    found: list[Segment] = []
    for (decoded, seconds, words), start in windows:
        if not decoded.text:
            continue
        parts = list(sentences(words, split_seconds) if seconds > split_seconds else stretches(words))
        spans = [(part[0].start, part[-1].end, "".join(w.word for w in part).strip(), part) for part in parts]
        for begin, end, text, own in spans or [(start, start + seconds, decoded.text, words)]:
            segment = Segment(
                id=len(found),
                start=begin,
                end=end,
                text=text,
                words=tuple(own),
                avg_logprob=decoded.avg_logprob,
                no_speech_prob=decoded.no_speech_prob,
                compression_ratio=decoded.compression_ratio,
                flags=flags(decoded),
            )
            found.append(segment)
    return tuple(found)


def flags(decoded: "Decoded") -> tuple[str, ...]:
    """Why a text is doubtful, by openai-whisper's thresholds; what was first read as a loop stays one."""
    doubts = {
        "loop": decoded.looped or decoded.compression_ratio > LOOP_RATIO,
        "unsure": decoded.avg_logprob < UNSURE_LOGPROB,
        "silence": decoded.no_speech_prob > SILENCE_PROB,
        "cut off": decoded.stopped,
        "unheard": decoded.unheard,
    }
    return tuple(name for name, true in doubts.items() if true)


def stretches(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Words grouped: a group ends before a pause."""
    return sentences(words, math.inf, ())


def sentences(
    words: Sequence[Word], longest: float, ends: tuple[str, ...] = SENTENCE_END
) -> Iterator[list[Word]]:
    """Words grouped: a group ends with a sentence, before a pause, or when it would last too long."""
    group: list[Word] = []
    for word in words:
        if group and (word.start - group[-1].end > PAUSE_SECONDS or word.end - group[0].start > longest):
            yield group
            group = []
        group.append(word)
        if word.word.rstrip().endswith(ends):
            yield group
            group = []
    if group:
        yield group
