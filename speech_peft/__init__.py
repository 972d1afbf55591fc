"""Adapts frozen speech encoders with small trained parts.

Public names are imported at first use, so that `import speech_peft` costs nothing. Every registered method
class is one of them: `speech_peft.Lora`. The stub beside this file says the same to type checkers.
"""

from importlib import import_module
from typing import Any

from .compat import watch_for_transformers

__version__ = "0.1.0"

# Names and where they live.
_PUBLIC = {
    "Adapted": "opening.adapted",
    "AdaptedModel": "core.model",
    "Classifier": "classify.classifier",
    "Context": "core.context",
    "Generator": "generate.generator",
    "Method": "core.method",
    "Restorer": "restore.restorer",
    "Site": "core.site",
    "Transcriber": "transcribe.transcriber",
    "adapt": "opening.adapt",
    "build": "train.python",
    "evaluate": "bench.evaluate",
    "fit": "train.python",
    "load": "opening.adapted",
    "merge_adapters": "opening.merging",
    "open_backbone": "backbones.families",
}
__all__ = ["__version__", *_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    if name[:1].isupper():
        for method in _methods():
            if method.__name__ == name:
                return method
    raise AttributeError(_unknown(name))


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC, *(method.__name__ for method in _methods())})


def _methods() -> list[Any]:
    """The classes of all methods that are installed; they are imported for it, and torch with them."""
    from .registry import METHODS

    return list(METHODS.values())


def _unknown(name: str) -> str:
    from .errors import did_you_mean

    hint = did_you_mean(name, __dir__()) if name[:1].isupper() else did_you_mean(name, _PUBLIC)
    return f"module {__name__!r} has no attribute {name!r}. {hint}"


watch_for_transformers()
