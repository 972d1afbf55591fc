"""Figures of tables: what is drawn of a cell, and that those of the docs are what their tables say."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from speech_peft.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONDITIONING = {
    "lengths": (
        "Other lengths than 30 s",
        *("--log", "--columns", "stock at 30 s", "cut, untrained", "with the adapter", "bottleneck"),
    ),
    "bridge": ("Another language in, English out",),
    "knitting": ("Along time, then along frequency", "--without", "less"),
    "knitting_speech": ("Speech damaged in some frequencies", "--without", "less"),
    "views": ("Several microphones",),
}


@pytest.fixture
def draw(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import table_figure  # type: ignore[import-not-found]

    def drawn(page: Path, *options: str) -> str:
        out = tmp_path / "out.svg"
        monkeypatch.setattr(sys, "argv", ["table_figure.py", str(page), *options, "-o", str(out)])
        table_figure.main()
        return out.read_text(encoding="utf-8")

    return drawn


def test_numbers_and_intervals_become_dots_and_anything_else_does_not(draw, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "## One\n\n| a | b |\n| - | - |\n| x | 9 |\n\n## Two\n\n"
        "| | \\|err\\| | words | share |\n| - | - | - | - |\n"
        "| `new` way | .5 (0.25, 1) | many | – |\n| less | -3 | few | 73 % |\n"
    )
    svg = draw(page, "Two")
    tree = ElementTree.fromstring(svg)
    assert {one.text for one in tree.iterfind(".//{*}g/{*}title")} == {"new way: 0.5 (0.25, 1)", "less: -3"}
    assert {"|err|", "new way", "less"} <= {one.text for one in tree.iterfind(".//{*}text")}
    assert "words" not in svg
    assert "less" not in draw(page, "Two", "--without", "less")
    with pytest.raises(ConfigError, match="share is no column of numbers below 'Two'"):
        draw(page, "Two", "--columns", "share")
    with pytest.raises(ConfigError, match="no table below 'Three'"):
        draw(page, "Three")


def test_dots_lie_where_their_numbers_are(draw, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("## A\n\n| | wer |\n| - | - |\n| a | 0.1 |\n| b | 1 |\n| c | 10 |\n")
    places = [
        float(one.get("cx", 0))
        for one in ElementTree.fromstring(draw(page, "A", "--log")).iterfind(".//{*}circle")
    ]
    assert places == [0, 115, 230]


@pytest.mark.parametrize("name", CONDITIONING)
def test_figures_of_conditioning_are_what_its_tables_say(draw, name):
    kept = (ROOT / "docs" / "measured" / f"conditioning_{name}.svg").read_text(encoding="utf-8")
    assert draw(ROOT / "docs" / "conditioning.md", *CONDITIONING[name]) == kept
