"""Adapts frozen speech encoders with small trained parts."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public names and where they live: imported at first use, so `import speech_peft` costs nothing.
_PUBLIC = {
    "AdaptedModel": "core.model",
    "Classifier": "infer.classifier",
    "Context": "core.context",
    "Site": "core.site",
    "Transcriber": "infer.transcriber",
    "load": "infer.loading",
    "open_backbone": "backbones.base",
}
__all__ = [
    "AdaptedModel",
    "Classifier",
    "Context",
    "Site",
    "Transcriber",
    "__version__",
    "load",
    "open_backbone",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
