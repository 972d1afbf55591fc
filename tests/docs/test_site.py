"""The site has every page, with links that stay inside it, and every public name."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import speech_peft as sp

from .read import PAGES, ROOT, text


@pytest.fixture
def site(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return import_module("site_pages")


def test_every_page_is_in_the_navigation(site):
    parts = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = [page for part in parts for pages in part.values() for page in pages]
    assert sorted(listed) == sorted(
        [*(page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")), *site.MOVED.values()]
    )


def test_every_link_of_a_gathered_page_leads_to_another_and_none_to_source(site, tmp_path):
    site.gather(tmp_path)
    for page in tmp_path.rglob("*.md"):
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)#\s]+)", prose):
            assert target.startswith("http") or (page.parent / target).is_file(), f"{page.name}: {target}"


def test_a_link_out_of_the_pages_becomes_its_words(site):
    home = ROOT / "docs" / "tutorials" / "x.md"
    given = "[a](../../speech_peft/errors.py) [b](../../README.md#install) ![c](../images/report.png)"
    found = site.linked(given, home, Path("tutorials/x.md"))
    assert found == "a [b](../index.md#install) ![c](../images/report.png)"


def test_every_public_name_is_on_the_page_of_the_api_by_where_it_lies():
    page = text("docs/api.md")
    described = dict(
        reversed(one.removeprefix("speech_peft.").rsplit(".", 1))
        for one in re.findall(r"^::: (.*)$", page, re.M)
    )
    assert described == sp._PUBLIC
    assert all(f"`sp.{name}`" in page for name in sp._PUBLIC)
