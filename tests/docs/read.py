"""The pages of the project, and what they show: blocks of code, and commands in them."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")),
]


def text(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(page), re.M | re.S)


def commands(page: str) -> list[list[str]]:
    """The lines of a page's blocks of bash, as words."""
    return [words for block in blocks(page, "bash") for words in lines_of(block)]


def lines_of(block: str) -> list[list[str]]:
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def code(page: str) -> list[tuple[str, str]]:
    """The blocks of bash and Python in their order, each with its language."""
    return re.findall(r"^```(bash|python)\n(.*?)^```", text(page), re.M | re.S)


def ours(words: list[str]) -> list[str] | None:
    """The words after `speech-peft`, however the command is spelled; None for another program."""
    if words[0] == "speech-peft":
        return words[1:]
    if words[0] == "torchrun":
        words = ["python", *words[words.index("-m") :]]
    if words[:2] == ["python", "-m"] and words[2].startswith("speech_peft."):
        return [words[2].removeprefix("speech_peft."), *words[3:]]
    return None


def quoted(page: str) -> list[list[str]]:
    """Commands of ours between backticks: `speech-peft recipes list`."""
    return [shlex.split(one) for one in re.findall(r"`(speech-peft [^`]+)`", text(page).replace("\n", " "))]
