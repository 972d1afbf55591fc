"""`python -m speech_peft` is the `speech-peft` command."""

from .cli.main import run

__package__ = ""  # with a package, help would call each command `python -m speech_peft.speech-peft`

run()
