"""Whisper's text side: its tokenizer, and the token ids that decoding needs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError, did_you_mean

LANGUAGE = re.compile(r"<\|[a-z]{2,3}\|>")
"""The special tokens that are languages: <|en|>, <|yue|>."""


@dataclass(frozen=True)
class Generation:
    """Token ids that decoding needs."""

    sot: int
    """Start of transcript."""
    eot: int
    no_timestamps: int
    timestamp_begin: int
    """The token <|0.00|>; each later one is 0.02 s more."""
    start_of_previous: int
    no_speech: int | None
    suppress: tuple[int, ...] = ()
    """Never written: punctuation of captions and the like."""
    begin_suppress: tuple[int, ...] = ()
    """Never written first."""
    alignment_heads: tuple[tuple[int, int], ...] = ()
    """(decoder block, head) whose cross attention follows time."""
    languages: Mapping[str, int] = field(default_factory=dict)
    """Language code to token; empty for English-only models."""
    tasks: Mapping[str, int] = field(default_factory=dict)
    """"transcribe" and "translate" to token; empty for English-only models."""

    @property
    def is_multilingual(self) -> bool:
        return bool(self.languages)

    def prompt(
        self, language: str | None = None, task: str = "transcribe", times: bool = False
    ) -> tuple[int, ...]:
        """The tokens a transcript starts with; English where a multilingual model is told no language."""
        tail = () if times else (self.no_timestamps,)
        if not self.is_multilingual:
            if language not in (None, "en") or task != "transcribe":
                raise ConfigError(
                    f"this Whisper only transcribes English; language {language!r} with task {task!r} "
                    'needs a multilingual one (its name has no ".en")'
                )
            return (self.sot, *tail)
        language = language or "en"
        if language not in self.languages:
            raise ConfigError(
                f"Whisper has no language {language!r}. {did_you_mean(language, self.languages)}"
            )
        if task not in self.tasks:
            raise ConfigError(f"Whisper has no task {task!r}. {did_you_mean(task, self.tasks)}")
        return (self.sot, self.languages[language], self.tasks[task], *tail)


def generation_of(tokenizer: Any, settings: Any) -> Generation:
    """The ids by their names in the tokenizer; the generation config for what has no name there."""
    ids = tokenizer.get_added_vocab()
    sot, no_timestamps = ids["<|startoftranscript|>"], ids["<|notimestamps|>"]
    multilingual = getattr(settings, "is_multilingual", None)
    if multilingual is None:
        multilingual = sot != 50257
    codes = {t[2:-2]: i for t, i in ids.items() if LANGUAGE.fullmatch(t)} if multilingual else {}
    return Generation(
        sot=sot,
        eot=ids["<|endoftext|>"],
        no_timestamps=no_timestamps,
        timestamp_begin=no_timestamps + 1,
        start_of_previous=ids["<|startofprev|>"],
        no_speech=ids.get("<|nospeech|>", ids.get("<|nocaptions|>")),
        suppress=tuple(getattr(settings, "suppress_tokens", None) or ()),
        begin_suppress=tuple(getattr(settings, "begin_suppress_tokens", None) or ()),
        alignment_heads=tuple((b, h) for b, h in getattr(settings, "alignment_heads", None) or ()),
        languages=codes,
        tasks={task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")} if multilingual else {},
    )


def check_ids(generation: Generation, config: Any) -> None:
    """Raise ValueError unless all that is told to be left out, or looked at, is in a model of this size."""
    for token in (*generation.suppress, *generation.begin_suppress):
        if not 0 <= int(token) < config.vocab_size:
            raise ValueError(f"token {token} is none of {config.vocab_size}")
    for block, head in generation.alignment_heads:
        if not (0 <= block < config.decoder_layers and 0 <= head < config.decoder_attention_heads):
            raise ValueError(f"alignment head {block}, {head} is none of the decoder's")


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer of a checkpoint, from its `tokenizer.json` or from vocabulary and merges."""
    from transformers import PreTrainedTokenizerFast, WhisperTokenizer

    try:
        if not (folder / "tokenizer.json").is_file():
            return WhisperTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"),
            eos_token="<|endoftext|>",
            pad_token="<|endoftext|>",
            clean_up_tokenization_spaces=False,
        )
    except Exception as error:  # a bare Exception is what the tokenizers package raises
        raise ConfigError(f"weights: {folder} has no tokenizer that could be read: {error}") from None


def tiny_tokenizer() -> Any:
    """Whisper's tokenizer without its merges: one token per byte, and the special ones."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    special = ("endoftext", "startoftranscript", "startoflm", "startofprev", "nospeech", "notimestamps")
    tokenizer.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
