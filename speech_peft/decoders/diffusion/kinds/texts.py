"""Tokens that a masked decoder of its own writes with: its backbone's, characters, or those of a folder."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ....backbones.whisper import Whisper
from ....errors import ConfigError
from ...ctc import Characters


@runtime_checkable
class Texts(Protocol):
    """A text as tokens and back."""

    @property
    def end(self) -> int: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def per_second(self) -> float:
        """How many tokens fast speech has in a second."""
        ...

    def encode(self, text: str) -> list[int]: ...
    def decode(self, tokens: Sequence[int]) -> str: ...
    def piece(self, token: int) -> str: ...


@dataclass(frozen=True)
class ByCharacter:
    """One token a character; 0 is the end."""

    characters: Characters
    end: int = 0
    per_second: float = 18.0

    @property
    def vocabulary(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        return self.characters.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.characters.decode(tokens)

    def piece(self, token: int) -> str:
        return self.characters.characters[token - 1] if token else ""


@dataclass(frozen=True)
class ByTokenizer:
    """Pieces of words, as a tokenizer of transformers has them."""

    tokenizer: Any
    end: int
    vocabulary: int
    per_second: float = 5.0

    def encode(self, text: str) -> list[int]:
        ids = self.tokenizer.encode(" " + text.strip(), add_special_tokens=False)
        return [token for token in ids if token < self.vocabulary]

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(self.tokenizer.decode(list(tokens), skip_special_tokens=True).split())

    def piece(self, token: int) -> str:
        # Between two others, as some tokenizers drop the space before the first piece.
        whole = self.tokenizer.decode([token, token], skip_special_tokens=True)
        return whole[len(self.tokenizer.decode([token], skip_special_tokens=True)) :]


def texts(backbone: Any, tokenizer: str, characters: str | None = None) -> Texts:
    """`own` is the backbone's tokenizer, `characters` those given, all else a folder with a tokenizer.json.

    Raises ConfigError where there is none.
    """
    if tokenizer == "characters":
        if not characters:
            raise ConfigError("diffusion: tokenizer=characters, and no characters were given")
        return ByCharacter(Characters(characters))
    if tokenizer == "own":
        if not isinstance(backbone, Whisper):
            raise ConfigError(
                f"task.decoder.tokenizer: {getattr(backbone, 'name', 'this encoder')} has none of its own; "
                "give characters, or a folder with a tokenizer.json"
            )
        end = backbone.generation.eot
        return ByTokenizer(backbone.tokenizer, end, end + 1)  # special tokens follow the end
    return _of_folder(Path(tokenizer))


def _of_folder(folder: Path) -> Texts:
    from transformers import PreTrainedTokenizerFast

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ConfigError(f"task.decoder.tokenizer: {folder} holds no tokenizer.json")
    try:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file))
    except Exception as error:  # a bare Exception is what the tokenizers package raises
        raise ConfigError(f"task.decoder.tokenizer: {file} could not be read: {error}") from None
    known = tokenizer.get_vocab()
    end = next((known[name] for name in ("</s>", "<|endoftext|>", "[SEP]") if name in known), None)
    if end is None:
        raise ConfigError(f"task.decoder.tokenizer: {file} has no end of text (</s>, <|endoftext|>)")
    return ByTokenizer(tokenizer, end, len(tokenizer))


def characters_of(lines: Iterable[str]) -> str:
    """The characters of a corpus."""
    return Characters.of(lines).characters
