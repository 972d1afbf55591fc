"""`python -m speech_peft` is the `speech-peft` command."""

from .cli import run

run()
