"""The `speech-peft` command: one word per job, and nothing is imported before it is known which."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from .. import __version__
from ..errors import did_you_mean
from ..terminal.door import complain, say
from ..terminal.exits import guarded

VARIABLE = "_SPEECH_PEFT_COMPLETE"
"""Set by a shell that asks what may come next."""
# Word -> module with `main(argv) -> int`, and what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("train.__main__", "train adapters from a recipe"),
    "transcribe": ("transcribe.__main__", "audio files and folders to text, subtitles or JSON"),
    "classify": ("classify.__main__", "audio files and folders to labels, with times in long recordings"),
    "restore": ("restore.__main__", "audio files and folders to audio without noise, gaps and echoes"),
    "generate": ("generate.__main__", "noise to a sound of a kind, at moments that are given"),
    "shards": (
        "shards.__main__",
        "what was made in shards: how far it is, whether it is whole, all in one file",
    ),
    "estimate": ("estimate.__main__", "hours, machines and money for a manifest, measured on a minute of it"),
    "prepare": ("prepare.__main__", "a corpus on disk to manifests"),
    "adapt-words": ("cli.adapt_words", "an adapter that knows a list of words, from their spelling alone"),
    "data": ("cli.data", "look at what a recipe trains on"),
    "sweep": ("sweep.__main__", "methods x seeds x folds of one recipe, in one table"),
    "bench": ("bench.__main__", "measure a system and write a report"),
    "export": (
        "export.__main__",
        "what was trained, for transformers, CTranslate2, whisper.cpp, onnxruntime, PEFT",
    ),
    "adapter": ("cli.adapters", "show, compare, merge and convert adapter folders"),
    "packs": ("cli.packs", "folders of adapters by language, of which transcribe takes the right one"),
    "methods": ("cli.methods", "list the methods, and show one: equation, paper, settings, cost"),
    "sites": ("cli.sites", "where in a model adapters can sit"),
    "recipes": ("cli.recipes", "list, show and copy the recipes that come with the package"),
    "doctor": ("cli.doctor", "what works on this machine, and the fix for what does not"),
}


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {word:<{width}}  {what}" for word, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "Usage: speech-peft [OPTIONS] COMMAND [ARGS]...",
            "",
            "Adapts frozen speech encoders with small trained parts.",
            "",
            *lines,
            "",
            "speech-peft COMMAND --help explains a command; speech-peft --version prints the version.",
            'eval "$(speech-peft --show-completion bash)" completes words in bash; zsh and fish too.',
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 ok, 1 failed, 2 usage, 3 partly done, 130 interrupted."""
    if VARIABLE in os.environ:
        from .completion import answer

        return guarded(lambda _: answer(COMMANDS, VARIABLE), None)
    word, *rest = [*(sys.argv[1:] if argv is None else argv)] or ["--help"]
    if word in ("-h", "--help"):
        say(usage())
        return 0
    if word == "--version":
        say(f"speech_peft {__version__}")
        return 0
    if word == "--show-completion":
        from .completion import show

        return guarded(lambda words: show((words or ["bash"])[0], VARIABLE), rest)
    if word not in COMMANDS:
        complain(f"error: no command {word!r}. {did_you_mean(word, COMMANDS)}")
        return 2
    command: Callable[[list[str] | None], int] = import_module(f"speech_peft.{COMMANDS[word][0]}").main
    return guarded(command, rest)


def run() -> None:
    """The entry point of the installed command."""
    raise SystemExit(main())


if __name__ == "__main__":
    run()
