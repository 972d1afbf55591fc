"""Figures of a classifier, worked by hand."""

import math

import numpy as np
import pytest

from speech_peft.bench.scores.class_arrays import STATISTICS, Arrays
from speech_peft.metrics import bootstrap
from speech_peft.metrics import classification as c

# Six clips of three classes; the fourth is taken for class 0, the last has no answer.
TARGET = np.array([0, 0, 1, 1, 2, 2])
GIVEN = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.5, 0.3, 0.2],
        [0.1, 0.6, 0.3],
        [0.7, 0.2, 0.1],
        [0.2, 0.2, 0.6],
        [math.nan, math.nan, math.nan],
    ]
)
MULTI = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], bool)
MULTI_GIVEN = np.array([[0.9, 0.2], [0.6, 0.4], [0.7, 0.8], [0.1, 0.3]])
generator = np.random.default_rng(3)


def noisy(n: int = 300, classes: int = 5, skill: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Classes and the probabilities that a mediocre classifier gives them."""
    target = generator.integers(classes, size=n)
    logits = generator.normal(size=(n, classes)) + skill * np.eye(classes)[target]
    return target, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_accuracy_counts_a_clip_without_answer_as_wrong():
    assert c.accuracy(TARGET, GIVEN) == 4 / 6


def test_macro_f1_by_hand():
    # class 0: 2 of 3 answers and 2 of 2 clips; classes 1 and 2: 1 of 1 answer and 1 of 2 clips
    assert c.f1(TARGET, GIVEN) == pytest.approx([0.8, 2 / 3, 2 / 3])
    assert c.macro_f1(TARGET, GIVEN) == pytest.approx((0.8 + 4 / 3) / 3)


def test_a_class_that_nobody_has_or_hears_does_not_enter_macro_f1():
    wider = np.column_stack([GIVEN, np.where(np.isnan(GIVEN[:, 0]), math.nan, 0.0)])
    assert c.macro_f1(TARGET, wider) == c.macro_f1(TARGET, GIVEN)


def test_top_k_by_hand():
    assert [c.top_k_accuracy(TARGET, GIVEN, k) for k in (1, 2, 3)] == pytest.approx([4 / 6, 5 / 6, 5 / 6])
    even = np.full((2, 4), 0.25)
    assert c.top_k_accuracy(np.array([0, 3]), even, 3) == 0  # a tie is no knowledge
    assert c.top_k_accuracy(np.array([0, 3]), even, 4) == 1


def test_confusion_matrix_has_a_column_for_no_answer():
    assert c.confusion(TARGET, GIVEN).tolist() == [[2, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]


def test_average_precision_by_hand():
    # ranked + - + -: precision 1 at the first, 2/3 at the second
    positive, scores = np.array([1, 0, 1, 0], bool), np.array([0.9, 0.8, 0.7, 0.1])
    assert c.average_precision(positive, scores, np.ones((1, 4))) == pytest.approx([(1 + 2 / 3) / 2])
    assert c.average_precisions(positive[:, None], scores[:, None]) == pytest.approx([(1 + 2 / 3) / 2])


def test_average_precision_does_not_depend_on_the_order_of_ties():
    positive, scores = np.array([1, 0, 0, 1], bool), np.full(4, 0.5)
    for order in ([0, 1, 2, 3], [1, 2, 0, 3]):
        assert c.average_precision(positive[order], scores, np.ones((1, 4))) == pytest.approx([0.5])
        assert c.average_precisions(positive[order, None], scores[:, None]) == pytest.approx([0.5])


def test_drawing_a_clip_twice_is_listing_it_twice():
    target, given = noisy(40, 2)
    drawn = generator.integers(40, size=40)
    weights = np.bincount(drawn, minlength=40)[None].astype(float)
    listed = c.average_precisions(target[drawn], given[drawn])[1]
    assert c.average_precision(target == 1, given[:, 1], weights) == pytest.approx([listed])


def test_the_bootstraps_figures_of_all_clips_once_are_the_figures():
    target, given = noisy()
    given[::7] = math.nan  # no answer
    one = Arrays(tuple("abcde"), target, given.round(1))  # many ties
    for name, figure in (("macro_f1", c.macro_f1), ("map", c.mean_average_precision)):
        drawn = STATISTICS[name](one, [range(len(target))])
        found = bootstrap.value_of_all(drawn.statistic, len(target), drawn.columns)
        assert found == pytest.approx(figure(target, one.probabilities), abs=1e-12)


def test_no_clip_and_a_single_class_have_figures():
    assert np.isnan(c.f1(np.zeros(0, int), np.zeros((0, 3)))).all()
    assert np.isnan(c.average_precisions(np.zeros((0, 3), bool), np.zeros((0, 3)))).all()
    assert c.confusion(np.zeros(0, int), np.zeros((0, 3))).shape == (3, 4)
    assert c.confusion_by_class(np.zeros(0, int), np.zeros((0, 3))).tolist() == [[0] * 4] * 3
    alone, given = np.array([[1], [0], [1]], bool), np.array([[0.9], [0.6], [0.1]])
    assert c.f1(alone, given) == pytest.approx([0.5])
    assert c.confusion_by_class(alone, given).tolist() == [[1, 1, 1, 0]]
    assert c.average_precisions(alone, given) == pytest.approx([(1 + 2 / 3) / 2])
    assert c.confusion(np.zeros(2, int), np.ones((2, 1))).tolist() == [[2, 0]]


def test_a_class_that_no_clip_has_does_not_enter_map():
    wider = np.column_stack([GIVEN, np.zeros(6)])
    assert c.mean_average_precision(TARGET, wider) == c.mean_average_precision(TARGET, GIVEN)
    assert math.isnan(c.mean_average_precision(np.zeros((2, 3), bool), np.full((2, 3), 0.5)))


def test_calibration_error_by_hand():
    # ten predictions of 0.8 of which 6 are right, ten of 0.6 of which 6 are right: half of them 0.2 off
    given = np.array([[0.8, 0.2]] * 10 + [[0.6, 0.4]] * 10)
    target = np.array(([0] * 6 + [1] * 4) * 2)
    assert c.ece(target, given) == pytest.approx(0.1)
    full = [one for one in c.calibration(target, given) if one.n]
    assert [(one.n, one.accuracy) for one in full] == [(10, 0.6), (10, 0.6)]
    assert [one.confidence for one in full] == pytest.approx([0.6, 0.8])


def test_a_classifier_that_knows_how_sure_it_is_has_no_calibration_error():
    given = np.array([[0.75, 0.25]] * 4)
    assert c.ece(np.array([0, 0, 0, 1]), given) == 0


def test_bins_hold_every_prediction_once_and_a_clip_without_answer_has_no_confidence():
    bins = c.calibration(TARGET, GIVEN)
    assert sum(one.n for one in bins) == 5
    edges = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]])
    assert sum(one.n for one in c.calibration(np.zeros(3, int), edges, 10)) == 3


def test_several_classes_at_once_by_hand():
    assert c.accuracy(MULTI, MULTI_GIVEN) == 0.5  # the first and the last: all classes and no other
    assert c.f1(MULTI, MULTI_GIVEN) == pytest.approx([2 * 2 / (2 + 3), 2 * 1 / (2 + 1)])
    assert c.confusion_by_class(MULTI, MULTI_GIVEN).tolist() == [[2, 1, 0, 1], [1, 0, 1, 2]]
    # class 0 is ranked + - + -; class 1 + + - -
    assert c.average_precisions(MULTI, MULTI_GIVEN) == pytest.approx([(1 + 2 / 3) / 2, 1])
    assert c.in_top(MULTI, MULTI_GIVEN, 1).tolist() == [True, True, True, False]


def test_mcnemar_is_the_exact_binomial_test():
    # Twice the ways to get so few heads or fewer, of 2^n: 2 x (1 + 6) / 2^6, 2 x (1 + 15 + 105 + 455) / 2^15.
    for only_a, only_b, p in ((0, 0, 1), (1, 0, 1), (5, 1, 14 / 64), (3, 12, 1152 / 32768), (4, 4, 1)):
        both = np.repeat([[1, 0], [0, 1], [1, 1], [0, 0]], [only_a, only_b, 7, 2], axis=0).astype(bool)
        found = c.mcnemar(both[:, 0], both[:, 1])
        assert (found.only_a, found.only_b) == (only_a, only_b)
        assert found.p == pytest.approx(p)


def test_mcnemar_of_ten_thousand_clips_is_still_exact_and_quick():
    a = np.arange(20_000) % 2 == 0
    assert c.mcnemar(a, ~a) == c.McNemar(10_000, 10_000, 1.0)


def test_interval_of_any_figure_equals_that_of_a_ratio():
    target, given = noisy(100)
    right = c.correct(target, given).astype(float)
    groups = np.arange(100) // 4
    same = bootstrap.interval_of(lambda drawn: drawn @ right / drawn.sum(axis=1), groups)
    ratio = bootstrap.interval(right, np.ones(100), groups)
    assert (same.low, same.high) == pytest.approx((ratio.low, ratio.high))


def test_a_figure_that_is_undefined_has_no_interval():
    nothing = bootstrap.interval_of(lambda drawn: np.full(len(drawn), np.nan), range(10), resamples=50)
    assert nothing is None
    assert bootstrap.interval_of(lambda drawn: drawn[:, 0], "aaa") is None


def test_difference_of_a_figure_has_the_sign_of_the_change_and_a_small_p():
    a, b = np.zeros(60), np.repeat([0.0, 1.0], 30)
    found = bootstrap.difference_of(lambda drawn: drawn @ (b - a) / drawn.sum(axis=1), range(60))
    assert found.delta == 0.5
    assert 0.3 < found.low < found.high < 0.7
    assert found.p < 0.001
