"""Every kind of page in a real browser: headless Chromium, at the widths of a telephone and of a desk.

Needs the extra `browser` and a Chromium: Debian's `chromium`, or what `playwright install chromium` fetches.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import pages

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright, of the extra `browser`: pip install -e .[browser]"
)

KINDS = ("asr", "classify", "restore", "preview")
WIDTHS = (390, 1280)
OWN = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, OWN)), None)
    with playwright.sync_playwright() as engine:
        try:
            opened = engine.chromium.launch(executable_path=found)
        except playwright.Error as error:
            pytest.skip(f"needs a Chromium that starts: {str(error).strip().splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    return pages.written(tmp_path_factory.mktemp("pages"))


@pytest.fixture
def opened(browser, files):
    """Opens a page of a kind; what it says to the console and asks the network for is kept."""
    tabs = []

    def at(kind: str, width: int = 1280) -> Any:
        tab = browser.new_page(viewport={"width": width, "height": 900})
        seen = SimpleNamespace(tab=tab, said=[], asked=[])
        tab.on("console", lambda message: seen.said.append(message.text))
        tab.on("pageerror", lambda error: seen.said.append(str(error)))
        tab.on("request", lambda request: seen.asked.append(request.url))
        tab.goto(files[kind].as_uri())
        tabs.append(tab)
        return seen

    yield at
    for tab in tabs:
        tab.close()


def shown(tab: Any) -> list[str]:
    """Ids of the rows in sight, from top to bottom."""
    return tab.eval_on_selector_all(
        "#rows tbody tr", "rows => rows.filter(row => row.offsetHeight).map(row => row.cells[0].dataset.key)"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_fits_asks_for_nothing_and_complains_of_nothing(opened, kind, width):
    page = opened(kind, width)
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
    beyond = page.tab.eval_on_selector_all(
        "body *",
        """(all, width) => all.filter(one => !one.closest(".scroll, .sr"))
        .filter(one => one.getBoundingClientRect().right > width).map(one => one.outerHTML.slice(0, 80))""",
        width,
    )
    assert beyond == []
    assert page.said == []
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
    players = page.tab.locator("#rows audio")
    assert players.count() == {"asr": 3, "classify": 3, "restore": 8, "preview": 6}[kind]
    assert all(player.is_visible() for player in players.all())
    assert page.tab.get_by_role("heading", level=1).inner_text() in page.tab.title()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_a_telephone_needs_no_scrolling_to_the_side(opened, kind):
    box = opened(kind, 390).tab.locator("#rows")
    assert box.evaluate("table => table.scrollWidth") <= 390


def test_heads_sort_both_ways_numbers_as_numbers_and_say_so(opened):
    tab = opened("asr").tab
    sort = tab.get_by_role("button", name="seconds", exact=True)
    head = tab.locator("#rows thead th", has=sort)
    sort.click()
    assert shown(tab) == [pages.LONG, "u2", "u10"]
    assert head.get_attribute("aria-sort") == "descending"
    sort.press("Enter")
    assert shown(tab) == ["u10", "u2", pages.LONG]
    assert head.get_attribute("aria-sort") == "ascending"
    tab.get_by_role("button", name="utterance", exact=True).click()
    assert shown(tab) == [pages.LONG, "u2", "u10"]
    assert head.get_attribute("aria-sort") is None


def test_the_filter_finds_words_across_marks_and_counts_what_is_left(opened):
    tab = opened("asr").tab
    tab.get_by_role("searchbox").fill("ONE for  sales snails")  # the last two are marked as said and heard
    assert shown(tab) == ["u2"]
    assert tab.locator("#count").inner_text() == "1 of 3 shown"
    tab.get_by_role("searchbox").fill("")
    assert len(shown(tab)) == 3


@pytest.mark.parametrize(
    ("kind", "broken"), [("asr", {"u2"}), ("classify", {"b"}), ("restore", {"r2", "r3"})]
)
def test_regressions_only_leaves_what_got_worse(opened, kind, broken):
    tab = opened(kind).tab
    only = tab.get_by_label("regressions only")
    only.check()
    assert set(shown(tab)) == broken
    only.uncheck()
    assert len(shown(tab)) == 3


def test_a_cell_of_a_confusion_matrix_opens_its_clips_by_the_keyboard(opened):
    tab = opened("classify").tab
    tab.get_by_role("button", name="dog → cat: 1, show them").first.press("Enter")
    assert shown(tab) == ["c"]
    assert tab.get_by_role("searchbox").input_value() == "probe: dog → cat"
    both = tab.get_by_role("button", name=re.compile("cat → cat"))  # of the first run 2, of the second 1
    both.first.press("Enter")
    assert set(shown(tab)) == {"a", "b"}
    both.last.press("Enter")
    assert set(shown(tab)) == {"a"}


def test_what_scrolls_is_reached_by_the_keyboard_and_named(opened):
    tab = opened("asr", 390).tab
    wide = tab.locator(".scroll").filter(has=tab.get_by_text("Error rates of each run", exact=True))
    assert wide.evaluate("box => box.scrollWidth > box.clientWidth")
    assert wide.get_attribute("tabindex") == "0"
    assert wide.get_attribute("aria-label") == "Error rates of each run"
    tab.set_viewport_size({"width": 1280, "height": 900})
    playwright.expect(wide).not_to_have_attribute("tabindex", "0")


def test_paper_shows_insertions_by_more_than_colour_and_nothing_that_only_works_on_a_screen(opened):
    tab = opened("asr").tab
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    marks = "all => all.map(one => getComputedStyle(one).textDecorationLine)"
    assert set(tab.eval_on_selector_all("#rows ins", marks)) == {"underline"}
    assert set(tab.eval_on_selector_all("#rows del", marks)) == {"line-through"}
    assert not tab.get_by_role("searchbox").is_visible()
    assert not tab.locator("audio").first.is_visible()
    assert tab.locator("#rows img").first.is_visible()
    assert tab.get_by_text('"adapter": "runs/phone"').is_visible()
