"""Intervals: seeded, wider for grouped errors, right on cases with a known answer."""

import time

import numpy as np
import pytest

from speech_peft.metrics import bootstrap
from speech_peft.metrics.bootstrap import difference, interval

generator = np.random.default_rng(7)
words = generator.integers(5, 20, 400)
errors = generator.binomial(words, 0.2)


def test_same_seed_gives_the_same_interval_and_another_seed_another():
    first, again, other = (interval(errors, words, range(400), seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_interval_covers_the_rate_and_matches_the_normal_approximation():
    found = interval(errors, words, range(400))
    rate = errors.sum() / words.sum()
    spread = np.sqrt(((errors - rate * words) ** 2).sum()) / words.sum()
    assert found.low < rate < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.08)


def test_constant_error_rate_has_an_interval_without_width():
    found = interval([1, 2, 3], [10, 20, 30], "abc")
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))


def test_errors_that_go_together_widen_the_interval():
    groups = np.arange(400) // 40
    hard = generator.binomial(words, np.where(groups % 2, 0.5, 0.05))
    by_file, by_speaker = (interval(hard, words, unit) for unit in (range(400), groups))
    assert by_speaker.high - by_speaker.low > 2 * (by_file.high - by_file.low)


def test_grouping_equals_resampling_the_summed_groups():
    groups = np.arange(400) // 40
    summed = [np.bincount(groups, column) for column in (errors, words)]
    assert interval(errors, words, groups) == interval(*summed, range(10))


@pytest.mark.parametrize("groups", ["a" * 400, []])
def test_fewer_than_two_groups_have_no_interval(groups):
    count = len(groups)
    assert interval(errors[:count], words[:count], groups) is None
    assert difference(errors[:count], errors[:count], words[:count], groups) is None


def test_no_reference_words_have_no_interval():
    assert interval([1, 2], [0, 0], "ab") is None


def test_a_system_against_itself_differs_by_nothing():
    found = difference(errors, errors, words, range(400))
    assert (found.delta, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_difference_is_signed_paired_and_antisymmetric():
    better = np.maximum(errors - 1, 0)
    found, back = difference(errors, better, words, range(400)), difference(better, errors, words, range(400))
    assert found.delta == pytest.approx((better - errors).sum() / words.sum())
    assert found.low < found.delta < found.high < 0
    assert found.p < 0.001
    assert back.delta == -found.delta
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_p_is_uniform_when_two_systems_are_equally_good():
    small = []
    for seed in range(100):
        local = np.random.default_rng(seed)
        drawn = [local.binomial(words, 0.2) for _ in "ab"]
        small.append(difference(*drawn, words, range(400), resamples=500, seed=seed).p < 0.1)
    assert 2 <= sum(small) <= 22


def test_librispeech_sized_corpus_takes_a_moment():
    count = 2620
    long = generator.integers(1, 40, count)
    start = time.perf_counter()
    interval(generator.binomial(long, 0.1), long, np.arange(count) % 40)
    assert time.perf_counter() - start < 1.0


def test_groups_of_equal_sums_drawn_by_kind_have_the_interval_of_groups_drawn_one_by_one(monkeypatch):
    one_by_one = interval(errors, words, range(400), seed=3)
    monkeypatch.setattr(bootstrap, "_MANY", 10)
    by_kind = interval(errors, words, range(400), seed=3)
    assert by_kind != one_by_one  # another way of drawing
    width = one_by_one.high - one_by_one.low
    assert (by_kind.low, by_kind.high) == pytest.approx((one_by_one.low, one_by_one.high), abs=0.04 * width)


def test_two_hundred_thousand_utterances_take_a_moment():
    long = generator.integers(1, 20, 200_000)
    start = time.perf_counter()
    interval(generator.binomial(long, 0.1), long, np.arange(len(long)), resamples=2000)
    assert time.perf_counter() - start < 3.0
