"""What the pages promise: every command is read by the program that it names, every link leads somewhere."""

import argparse
import importlib
import inspect
import json
import os
import re
import shlex

import pytest
import torch
import typer
import yaml

from speech_peft.cli import main as cli
from speech_peft.recipe import config
from tests import tiny

from .read import PAGES, ROOT, blocks, commands, ours, quoted, text

ALL = [words for page in PAGES for words in commands(page)]
OURS = {shlex.join(found): found for words in ALL if (found := ours(words))}
QUOTED = {shlex.join(words[1:]): words[1:] for page in PAGES for words in quoted(page)}
FIGURES = list(
    dict.fromkeys(
        command
        for page in PAGES
        for command in (
            *re.findall(r"`python scripts/([^`]+)`", text(page)),
            *(
                shlex.join([words[1].removeprefix("scripts/"), *words[2:]])
                for words in commands(page)
                if words[0] == "python" and words[1].startswith("scripts/")
            ),
        )
    )
)


class Parsed(Exception):
    """A program has read its arguments; what it would do with them is not for this test."""


def parsed(*args: object, **kwargs: object) -> None:
    raise Parsed


@pytest.mark.parametrize("command", FIGURES)
def test_the_command_of_a_figure_gives_all_that_its_script_requires(command: str, monkeypatch):
    name, *words = shlex.split(command)
    read = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(
        argparse.ArgumentParser, "parse_args", lambda self, args=None: parsed(read(self, words))
    )
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = importlib.import_module(name.removesuffix(".py").replace("/", "."))
    if (app := getattr(script, "app", None)) is None and inspect.signature(script.main).parameters.keys() - {
        "argv"
    }:
        app = typer.Typer()
        app.command()(script.main)
    if app is None:
        with pytest.raises(Parsed):
            script.main()
    else:
        monkeypatch.setattr(typer.core.TyperCommand, "invoke", parsed)
        with pytest.raises(Parsed):
            typer.main.get_command(app).main(words, standalone_mode=False)


@pytest.mark.parametrize("words", [words for words in ALL if ours(words) is None], ids=" ".join)
def test_a_program_on_a_page_is_there(words: list[str]):
    if words[0] == "python":
        assert (ROOT / words[1]).is_file(), words[1]
    else:
        program = ROOT / words[0]
        assert words[0] == "pip" or (program.is_file() and os.access(program, os.X_OK)), words[0]


@pytest.mark.parametrize("command", OURS)
def test_a_command_on_a_page_is_read_whole_by_the_program_that_it_names(command: str, monkeypatch):
    word, *rest = OURS[command]
    module = importlib.import_module(f"speech_peft.{cli.COMMANDS[word][0]}")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # a page may say `--device cuda`
    monkeypatch.setattr(typer.core.TyperCommand, "invoke", parsed)
    with pytest.raises(Parsed):
        typer.main.get_command(module.app).main(rest, standalone_mode=False)


@pytest.mark.parametrize("command", QUOTED)
def test_a_command_that_is_mentioned_exists_and_has_the_options_named_with_it(command: str):
    word, *rest = QUOTED[command]
    module = importlib.import_module(f"speech_peft.{cli.COMMANDS[word][0]}")
    found = typer.main.get_command(module.app)
    if subcommands := getattr(found, "commands", None):
        found = subcommands[rest[0]] if rest and rest[0].islower() and rest[0][0] != "-" else found
    known = {"--help"}.union(*(one.opts for one in found.params))
    assert known.issuperset(one for one in rest if one.startswith("-"))


@pytest.mark.parametrize("command", [one for one, words in OURS.items() if words[0] in ("train", "sweep")])
def test_settings_that_a_page_gives_are_those_of_its_recipe(command: str, tmp_path, monkeypatch):
    _, recipe, *rest = OURS[command]
    name = recipe if recipe.partition(":")[0] in config.bundled() else "asr/whisper_parallel"
    manifest = tiny.corpus(tmp_path, clips=1)
    given = [one for one in rest if re.match(r"[\w.]+=", one)]
    here = [re.sub(r"^(data\.(?:train|valid))=.*", rf"\1={manifest}", one) for one in given]
    asked = [f"data.{part}={manifest}" for part in ("train", "valid")]
    assert config.read_stages(name, [*asked, *here])


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page: str):
    prose = re.sub(r"^```.*?^```", "", text(page), flags=re.M | re.S)
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", prose):
        if target.startswith("http"):
            continue
        file = (ROOT / page).parent.joinpath(target) if target else ROOT / page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in _anchors(file.read_text()), f"{target}#{anchor}"


def _anchors(page: str) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_data_on_a_page_is_written_as_it_says(page: str):
    for block in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(block), dict)
    for block in blocks(page, "json"):
        rest = block.strip()
        while rest:
            value, end = json.JSONDecoder().raw_decode(rest)
            assert isinstance(value, dict)
            rest = rest[end:].strip()


def test_readme_is_short():
    assert 60 <= len(text("README.md").splitlines()) <= 110
