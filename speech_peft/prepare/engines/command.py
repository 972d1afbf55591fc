"""Any command that turns text into a recording: `espeak-ng -v {voice} -w {wav} {text}`.

`{wav}` is the file that it is to write, `{text}` the sentence (which it reads from standard input where the
command does not name it), `{voice}` one of the names that were given. The command is split as a shell splits
it, and run without one.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ...audio import io
from ...audio.io import Samples
from ...errors import ConfigError
from .base import Manner, Settings, Voice, manners, played

SAMPLE_RATE = 16_000
SECONDS = 120
"""After which a sentence counts as failed."""


def voices(settings: Settings) -> list[Voice]:
    """The named voices, each as often as it takes, played at other rates."""
    words = shlex.split(settings.command or "")
    if not words or "{wav}" not in (settings.command or ""):
        raise ConfigError(
            "command: give a command line with {wav} in it, such as 'espeak-ng -w {wav} {text}'"
        )
    names = list(settings.names or [Path(words[0]).name])
    if len(names) > 1 and "{voice}" not in (settings.command or ""):
        raise ConfigError(f"voice: {len(names)} names, and the command has no {{voice}} to put them")
    rounds = manners(-(-settings.number // len(names)), settings.seed, free=False)
    every = [(name, manner) for manner in rounds for name in names]
    return [_Command(_named(name, manner), words, name, manner) for name, manner in every[: settings.number]]


def _named(name: str, manner: Manner) -> str:
    return Manner(pitch=manner.pitch, formants=manner.formants).name(name)  # the tempo goes along with them


@dataclass(frozen=True)
class _Command:
    name: str
    words: list[str]
    voice: str
    manner: Manner
    sample_rate: int = SAMPLE_RATE

    def say(self, text: str) -> Samples:
        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder) / "spoken.wav"
            put = {"{wav}": str(wav), "{text}": text, "{voice}": self.voice}
            line = [_filled(word, put) for word in self.words]
            told = None if any("{text}" in word for word in self.words) else text
            try:
                ran = subprocess.run(
                    line, input=told, capture_output=True, text=True, timeout=SECONDS, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise ConfigError(f"command: {shlex.join(line)}: {error}") from error
            if ran.returncode or not wav.exists():
                why = ran.stderr.strip()[-300:] or f"exit code {ran.returncode}, and no recording"
                raise ConfigError(f"command: {shlex.join(line)}: {why}")
            return played(io.load(wav, SAMPLE_RATE).samples, SAMPLE_RATE, self.manner.formants)


def _filled(word: str, put: dict[str, str]) -> str:
    """A word with what its braces stand for; what is put in is not read again."""
    return re.sub(r"\{(wav|text|voice)\}", lambda mark: put[mark[0]], word)
