"""Error counts, against alignments done by hand."""

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import (
    Counts,
    Pair,
    align_words,
    corpus,
    count,
    count_characters,
    count_words,
    error_pairs,
)


def words(reference: str, hypothesis: str) -> Counts:
    return count(align_words([reference], [hypothesis])[0])


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("the cat sat", "the cat sat", Counts(3)),
        ("the cat sat", "the bat sat", Counts(2, substitutions=1)),
        ("the cat sat", "the sat", Counts(2, deletions=1)),
        ("the cat sat", "the cat sat down", Counts(3, insertions=1)),
        ("press one for all sales calls", "press for all cells calls now", Counts(4, 1, 1, 1)),
        ("", "uh what", Counts(insertions=2)),
        ("hello world", "", Counts(deletions=2)),
        ("", "", Counts()),
        ("a\tb\u00a0c", " a  b\nc ", Counts(3)),
    ],
)
def test_word_counts_equal_the_ones_done_by_hand(reference, hypothesis, expected):
    assert words(reference, hypothesis) == expected


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("cat", "cut", Counts(2, substitutions=1)),
        ("a b", "ab", Counts(2, deletions=1)),
        ("", "ab", Counts(insertions=2)),
        ("ab", "", Counts(deletions=2)),
        ("", "", Counts()),
    ],
)
def test_character_counts_equal_the_ones_done_by_hand(reference, hypothesis, expected):
    assert count_characters(reference, hypothesis) == expected


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("今天天气很好，我们去公园散步。", "今天天气很好我们去公园散步"),
        ("他说：「你好」，然后离开了。", "他说你好然后离开了"),
        ("はい、わかりました。では、また明日。", "はいわかりましたではまた明日"),
        ("สวัสดีครับ ผมชื่อสมชาย", "สวัสดีครับผมชื่อสมชาย"),
        ("我用 Python 写", "我用Python写"),
    ],
)
@pytest.mark.parametrize("language", ["", "zh"])
def test_punctuation_and_unwritten_spaces_are_no_character_errors(reference, hypothesis, language):
    plain = normaliser("auto")
    for said, heard in ((reference, hypothesis), (hypothesis, reference)):
        assert count_characters(plain(said, language), plain(heard, language)).errors == 0


def test_corpus_rate_is_total_errors_over_total_words_not_the_mean_of_rates():
    long, short = Counts(hits=9, substitutions=1), Counts(deletions=1)
    assert corpus([long, short]).rate == 2 / 11
    assert (long.rate + short.rate) / 2 == pytest.approx(0.55)


def test_errors_in_silence_count_in_the_corpus_and_have_no_rate_of_their_own():
    silence = words("", "thank you")
    assert silence.rate is None
    assert corpus([silence, Counts(hits=10)]).rate == 0.2


def test_no_utterances_have_no_rate():
    assert corpus([]).rate is None
    assert align_words([], []) == []


def test_rate_may_exceed_one():
    assert words("yes", "no no no").rate == 3.0


text = st.lists(st.sampled_from(["ab", "cd", "e"]), max_size=8).map(" ".join)


@given(text, text)
def test_alignment_spells_both_texts(reference, hypothesis):
    (pairs,) = align_words([reference], [hypothesis])
    assert " ".join(pair.reference for pair in pairs if pair.reference) == reference
    assert " ".join(pair.hypothesis for pair in pairs if pair.hypothesis) == hypothesis
    assert count(pairs).reference == len(reference.split())


@given(text, text)
def test_swapping_the_texts_swaps_insertions_and_deletions(reference, hypothesis):
    there, back = words(reference, hypothesis), words(hypothesis, reference)
    assert there.errors == back.errors
    assert there.deletions - there.insertions == back.insertions - back.deletions


def test_error_pairs_are_ordered_by_how_often_they_occur():
    alignments = align_words(["a b", "a b", "c"], ["a x", "a x", "c d"])
    assert error_pairs(alignments) == [(Pair("substitute", "b", "x"), 2), (Pair("insert", "", "d"), 1)]


@given(st.lists(st.tuples(text, text), min_size=1, max_size=5))
def test_alignments_and_counts_are_those_of_jiwer(pairs):
    references, hypotheses = ([one[side] for one in pairs] for side in (0, 1))
    theirs = jiwer.process_words(references, hypotheses)
    found = align_words(references, hypotheses)
    for ours, chunks in zip(found, theirs.alignments, strict=True):
        lengths = ((max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx), c) for c in chunks)
        assert [pair.operation for pair in ours] == [c.type for n, c in lengths for _ in range(n)]
    for reference, hypothesis, ours in zip(references, hypotheses, found, strict=True):
        assert count_words(reference, hypothesis) == count(ours)
        letters = jiwer.process_characters(reference, hypothesis)
        assert count_characters(reference, hypothesis) == Counts(
            letters.hits, letters.substitutions, letters.deletions, letters.insertions
        )


def test_equal_pairs_of_words_are_held_once():
    first, second = align_words(["a b", "b a"], ["a b", "b a"])
    assert first[0] is second[1]
