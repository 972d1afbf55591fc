"""What Whisper is told was said before: names and spellings that it then writes the same way.

    <|startofprev|> HOTWORDS PROMPT <|startoftranscript|> ...

It was trained with the text before a window in this place, and goes on in its manner (arXiv:2212.04356,
section 2.3). The text is no instruction, and a decoder hears what it expects: give words that are said.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...backbones.whisper import Whisper


def previous(backbone: "Whisper", prompt: str | None = None, hotwords: str | None = None) -> tuple[int, ...]:
    """The tokens before the start of a transcript, at most half the decoder's context; () for no text.

    Of text that is too long the first hotwords and the last words of the prompt stay, as these are nearest to
    what is written next.
    """
    most = backbone.module.config.max_target_positions // 2 - 1  # one for <|startofprev|>
    first = _tokens(backbone, hotwords)[:most]
    room = most - len(first)
    last = _tokens(backbone, prompt)[-room:] if room else []
    return (backbone.generation.start_of_previous, *first, *last) if first or last else ()


def _tokens(backbone: "Whisper", text: str | None) -> list[int]:
    """As inside a transcript, a space before the first word; what reads like a special token is left out."""
    words = " ".join((text or "").split())
    if not words:
        return []
    ids = backbone.tokenizer.encode(f" {words}", add_special_tokens=False)
    return [token for token in ids if token < backbone.generation.eot]
