"""Every page says what was measured, tells itself from others, and can be read without eyes or a mouse."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from speech_peft.bench.report import facts
from speech_peft.bench.report.regressions import baselines, worse_than
from speech_peft.bench.runs.asr import identity
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved import save
from speech_peft.methods.bottleneck import Bottleneck
from tests import pages, toy

KINDS = ("asr", "classify", "restore", "preview")


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> dict[str, str]:
    return {kind: path.read_text() for kind, path in pages.written(tmp_path_factory.mktemp("pages")).items()}


class Parts(HTMLParser):
    """Tags with their attributes, and the text inside the first title, h1 and dl."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {"title": "", "h1": "", "dl": "", "header": ""}
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in self.inside:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            self.open.remove(tag)

    def handle_data(self, data):
        for tag in self.open:
            self.inside[tag] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def told(text: str) -> str:
    """What the head says, with a space between cells."""
    return re.sub(r"\s+", " ", Parts(re.sub("(</[a-z]+>)", r"\1 ", text)).inside["header"])


def test_the_head_says_what_was_measured_of_what_when_and_where(texts):
    head = told(texts["asr"])
    for said in (
        "corpora/prompts/test.jsonl",
        "3 utterances, 6 seconds",
        "degraded: telephone, seed 7",
        "2026-05-01 10:20 UTC",
        "9.8.7",
        "Some CPU, 2 cores, 1 thread, torch 2.x",
        "org/whisper runs/phone 0123456789ab",
    ):
        assert said in head
    assert "org/whisper runs/phone 0123456789ab" in told(texts["restore"])
    assert "probe – runs/probe –" in told(texts["classify"])
    assert "3 shown of 3" in told(texts["preview"])


def test_what_nobody_wrote_down_is_said_to_be_unknown(tmp_path):
    head = told(pages.asr_page(tmp_path, measured={}))
    assert head.count(facts.UNKNOWN) == 4  # manifest, sound, date, version
    assert "3 utterances" in head


def test_runs_that_differ_say_so_each(tmp_path):
    runs = pages.asr_runs()
    runs[1] = replace(runs[1], measured={**pages.MEASURED, "degradation": None, "track": 2})
    found = dict(facts.of_runs("Speech recognition", runs, "utterances").facts)
    assert found["Sound"] == "base: degraded: telephone, seed 7; phone: as recorded, track 2"
    assert found["Manifest"] == "corpora/prompts/test.jsonl"


def test_titles_of_different_measurements_differ_and_head_the_page(texts, tmp_path):
    title = Parts(texts["asr"]).inside["title"]
    assert title == "base and phone on prompts/test, degraded: telephone · Speech recognition · 2026-05-01"
    assert title.startswith(Parts(texts["asr"]).inside["h1"])
    others = [
        pages.asr_page(tmp_path, names=("base", "lora")),
        pages.asr_page(tmp_path, measured={**pages.MEASURED, "degradation": None}),
        pages.asr_page(tmp_path, measured={**pages.MEASURED, "manifest": "corpora/prompts/valid.jsonl"}),
        pages.asr_page(tmp_path, measured={**pages.MEASURED, "date": "2026-05-02T10:20:30+00:00"}),
        *(texts[kind] for kind in KINDS[1:]),
    ]
    assert len({title, *(Parts(one).inside["title"] for one in others)}) == 1 + len(others)


def test_a_title_names_the_first_few_of_many_systems():
    names = [f"s{at}" for at in range(6)]
    runs = [replace(pages.asr_runs()[0], name=name) for name in names]
    assert facts.of_runs("x", runs, "utterances").title.startswith("s0, s1, s2 and 3 more on prompts/test")
    assert "s0" not in facts.of_runs("x", runs, "utterances", aside=["s0"]).title


@pytest.mark.parametrize("date", ["", "yesterday", 7, None, "9999-12-31T23:59:59-23:00"])
def test_a_date_that_is_none_stays_what_it_is(date):
    assert facts.when(date) == ("" if date is None else str(date))


def test_an_adapter_is_named_by_its_digest_and_its_weights_as_far_as_it_can_be_read(tmp_path):
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Bottleneck(width=4)})
    folder = save.write(tmp_path / "a", model, "a", toy.CARD, recipe="", readme="")
    assert identity(folder) == {"model": toy.CARD.id, "adapter_sha256": save.read(folder).digest}
    (folder / "adapter.safetensors").unlink()
    assert identity(folder) == identity(tmp_path / "nothing") == {}


@pytest.mark.parametrize("kind", KINDS)
def test_tables_have_captions_cells_have_heads_and_players_have_names(texts, kind):
    parts = Parts(texts[kind])
    assert len(parts.all("caption")) == len(parts.all("table")) > 0
    assert [one for one in parts.all("th") if one.get("scope") not in ("col", "row")] == []
    players = parts.all("audio")
    assert len(players) == {"asr": 3, "classify": 3, "restore": 8, "preview": 6}[kind]
    assert len({one["aria-label"] for one in players}) == len(players)
    assert all(one["alt"] for one in parts.all("img"))
    assert [one for one in parts.all("input") if "aria-label" in one] == []  # a label's text is seen too
    assert "html" in dict(parts.tags)
    assert parts.all("html")[0]["lang"] == "en"


def test_a_regression_is_worse_than_the_run_it_is_compared_with(texts):
    def marks(kind: str) -> dict[str, str]:
        rows = re.findall(r'<tr data-worse="([^"]*)"><th scope="row" data-key="([^"]*)"', texts[kind])
        return {id: worse for worse, id in rows}

    assert marks("asr") == {"u10": "", "u2": "0", pages.LONG: ""}
    assert marks("classify") == {"a": "", "b": "0", "c": ""}
    assert marks("restore") == {"r1": "1", "r2": "0 1", "r3": "0 1"}  # the clean recording, 1, is not offered
    assert re.findall(r'<option value="(\d)">', texts["restore"]) == ["0"]
    assert 'id="regressions"' not in texts["preview"]


def test_a_run_is_compared_only_where_it_has_the_row():
    names = ("a", "b", "c")
    assert worse_than({"a": 1, "c": 3}, names, "c", lambda was, now: now > was) == "0"
    assert worse_than({"a": 1, "b": 0}, names, "c", lambda was, now: True) == ""
    assert baselines(names, "c", aside=["a"]) == [(1, "b")]


def test_the_guard_has_a_column_only_where_something_was_guarded(texts):
    assert "fell back" not in texts["restore"]  # tests/commands/test_bench_restore.py has one with it


def test_a_page_shows_nothing_by_pointing_alone(texts):
    """Intervals were once in titles, which telephones, keyboards and paper do not show."""
    for kind in KINDS:
        cells = ("td", "th", "p")
        hovered = [one for tag, one in Parts(texts[kind]).tags if tag in cells and "title" in one]
        assert hovered == []
