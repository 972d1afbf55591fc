"""A masked decoder by the kind that a recipe and adapter.json name."""

from typing import Any

from ....backbones.whisper import Whisper
from ....errors import ConfigError
from ..masked import MaskedDecoder
from .bridged import Bridged
from .texts import texts
from .whisper_masked import WhisperMasked


def build(backbone: Any, *, kind: str, corrects: bool = False, **fields: Any) -> MaskedDecoder:
    """The decoder of this kind beside its backbone, untrained. Raises ConfigError where that has none."""
    decoder = _built(backbone, kind, fields)
    decoder.corrects = corrects
    return decoder


def _built(backbone: Any, kind: str, fields: dict[str, Any]) -> MaskedDecoder:
    if kind == "whisper":
        if not isinstance(backbone, Whisper) or backbone.layer:
            name = getattr(backbone, "name", type(backbone).__name__)
            raise ConfigError(
                f"diffusion kind whisper is the frozen model's own decoder, and {name} has none that fits "
                "the states it gives; use kind=scratch"
            )
        return WhisperMasked(backbone, **fields)
    if kind in ("smdm", "scratch"):
        tokenizer, characters = fields.pop("tokenizer", "own"), fields.pop("characters", None)
        return Bridged(backbone.dim, texts(backbone, tokenizer, characters), **fields)
    raise ConfigError(f"diffusion: there is no kind {kind!r}; one of whisper, smdm, scratch")
