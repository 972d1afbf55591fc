"""The page of a classification benchmark: safe with any text, alone in the world, the surest errors first."""

import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from speech_peft.bench.report.classify import render, worst_first
from speech_peft.bench.report.page import Limits
from speech_peft.bench.scores.classify import Run, scores
from speech_peft.errors import AudioError
from speech_peft.metrics.slices import Options
from speech_peft.predictions.classes import ClassPrediction

SCRIPT = "<script>alert(1)</script>"
HOSTILE = SCRIPT + "\"onerror=alert(1) x='"


def clip(name: str, label: str, error: str | None = None, multi_label: bool = False, **given: float):
    return ClassPrediction(
        name, f"audio/{name}.wav", label, given, end=2.0, error=error, multi_label=multi_label
    )


def tone(_: ClassPrediction) -> tuple[np.ndarray, int]:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)).astype(np.float32), 16_000


def page(*runs: Run, load=tone, **options) -> str:
    found = scores(runs, Options(resamples=100, slice_by=("label",), min_n=1))
    return render(found, runs, "out", load, **options)


class Elements(HTMLParser):
    """Every tag with its attributes, as a browser would see them."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def animals():
    return Run(
        "a",
        (
            clip("sure", "cat", cat=0.02, dog=0.98),
            clip("unsure", "cat", cat=0.4, dog=0.6),
            clip("lost", "dog", error="is not audio"),
            clip("right", "dog", cat=0.01, dog=0.99),
            clip("barely", "dog", cat=0.49, dog=0.51),
        ),
    )


def test_most_confident_errors_come_first_then_the_unanswered_then_the_least_sure(animals):
    order = [row["a"].id for row in worst_first([animals])]
    assert order == ["sure", "unsure", "lost", "barely", "right"]


def test_the_last_run_is_the_one_in_question(animals):
    better = Run("b", (clip("sure", "cat", cat=0.9, dog=0.1), clip("right", "dog", cat=0.7, dog=0.3)))
    order = [next(iter(row.values())).id for row in worst_first([animals, better])]
    assert order.index("right") < order.index("sure")


def test_several_classes_are_as_bad_as_their_most_confident_error():
    run = Run(
        "a",
        (
            clip("missed", "cat", multi_label=True, cat=0.1, dog=0.2),
            clip("made up", "", multi_label=True, cat=0.3, dog=0.7),
            clip("right", "cat;dog", multi_label=True, cat=0.6, dog=0.9),
        ),
    )
    assert [row["a"].id for row in worst_first([run])] == ["missed", "made up", "right"]
    assert "cat; dog" in page(run).replace("&gt;", ">") or "dog; cat" in page(run)


def test_hostile_text_stays_text_wherever_it_comes_from():
    row = ClassPrediction(
        HOSTILE,
        f"audio/{HOSTILE}.wav",
        HOSTILE,
        {HOSTILE: 0.2, f"{HOSTILE}2": 0.8},
        end=2.0,
        speaker=HOSTILE,
        columns={"fold": HOSTILE},
    )
    broken = ClassPrediction("b", "b.wav", HOSTILE, end=2.0, error=HOSTILE, columns={"fold": "1"})

    def unreadable(_):
        raise AudioError(HOSTILE, HOSTILE)

    run = Run(
        HOSTILE, (row, broken), config={HOSTILE: HOSTILE, "fold_column": "fold"}, hardware={"cpu": HOSTILE}
    )
    text = page(run, load=unreadable, title=HOSTILE)
    elements = Elements(text)
    assert len(elements.all("script")) == 1
    assert not [attributes for _, attributes in elements.found if "onerror" in attributes]
    assert SCRIPT not in text
    assert html.escape(SCRIPT) in text


def test_page_loads_nothing_from_elsewhere(animals):
    text = page(animals)
    for _, attributes in Elements(text).found:
        for name in ("src", "href", "action", "srcset", "poster", "data"):
            assert not re.match(r"(?i)\s*(https?:|//|javascript:)", attributes.get(name) or "")
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "url(" not in text


def test_every_clip_has_a_player_and_a_spectrogram_until_the_budget_is_spent(animals):
    assert page(animals).count("data:audio/mpeg") == page(animals).count("data:image/png") == 5
    none = page(animals, limits=Limits(media_bytes=0))
    assert "data:audio" not in none
    assert none.count('src="../audio/') == 5


def test_a_cell_of_the_confusion_matrix_finds_its_clips(animals):
    text = page(animals)
    cells = {one["data-find"]: one["title"] for one in Elements(text).all("button") if "data-find" in one}
    assert cells == {
        "a: cat → dog": "cat → dog: 2",
        "a: dog → dog": "dog → dog: 2",
        "a: dog → no answer": "dog → no answer: 1",
    }
    body = re.sub(r"(<[^>]*>|\s)+", " ", text[text.index('id="rows"') :])  # what the page's filter looks in
    assert [body.count(find) for find in cells] == [2, 2, 1]


def test_rows_beyond_the_limit_are_counted(animals):
    assert "The 3 best clips are not shown" in page(animals, limits=Limits(rows=2))


def test_fifty_classes_fit_and_a_thousand_are_listed_instead_of_drawn():
    def many(classes: int) -> Run:
        names = [f"class {at}" for at in range(classes)]
        rows = [
            ClassPrediction(f"c{at}", "", names[at], {**dict.fromkeys(names, 0.0), names[0]: 1.0})
            for at in range(0, classes, 10)
        ]
        return Run("a", tuple(rows))

    assert page(many(50), load=None).count("data-find") > 4
    text = page(many(500), load=None)
    assert "data-find=" not in text
    assert "Commonest errors" in text


def test_a_run_without_any_answer_has_a_page():
    run = Run("a", (clip("x", "cat", error="gone"), clip("y", "dog", error="gone")))
    assert "2 failed" in page(run, load=None)
