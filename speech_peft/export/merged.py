"""What is exported: an adapter merged into its base, or a base as it is."""

from pathlib import Path
from typing import Any

from ..backbones.checkpoints.names import NAMES
from ..backbones.in_memory import open_weights
from ..backbones.whisper import Whisper
from ..compose.merge import merge_sharing
from ..core.adapter import NotMergeable
from ..core.model import AdaptedModel
from ..core.saved.hub import locate
from ..errors import ConfigError
from ..opening.loading import Opened, load


def open_any(address: str, weights: str | None = None, offline: bool = False) -> Opened:
    """An adapter on its base, or weights alone, by one address.

    A folder or a repository is an adapter where it has an adapter.json. Raises ConfigError where there is
    neither, and for `weights` beside weights.
    """
    if _is_adapter(address, offline):
        return load(address, weights, offline=offline)
    if weights is not None:
        raise ConfigError(f"{address} is no adapter, so --weights {weights} has nothing to carry; give one")
    backbone = open_weights(address, offline=offline)
    return Opened(backbone, AdaptedModel(backbone.module, backbone.sites(), {}))


def _is_adapter(address: str, offline: bool) -> bool:
    folder = Path(address)
    if (address in NAMES and not folder.exists()) or address.startswith("pkg:"):
        return False
    return (locate(address, offline=offline) / "adapter.json").is_file()


def merged(opened: Opened) -> Any:
    """The stock model with the adapter in its weights; it shares all others with the base.

    Raises NotMergeable, naming the site and what can be done, for an adapter that is no change of weights.
    """
    try:
        return merge_sharing(opened.model)
    except NotMergeable as refused:
        what = opened.saved.method.name if opened.saved else "this adapter"
        raise NotMergeable(
            f"{what} cannot be exported: {refused}. Other engines run stock weights alone. Use it here "
            "(speech-peft transcribe), or train a method that merges, lora for one: speech-peft methods "
            "lists them"
        ) from None


def whisper_of(opened: Opened, to: str) -> Whisper:
    """The Whisper that is exported; raises ConfigError for what the formats of speech-to-text do not hold."""
    backbone = opened.backbone
    if not isinstance(backbone, Whisper):
        raise ConfigError(f"--to {to} holds Whisper alone, and this is {backbone.name}; --to hf holds it")
    if backbone.layer:
        raise ConfigError(
            f"--to {to}: the adapter reads block {backbone.layer} of the encoder and no text is decoded, so "
            "there is nothing for a recogniser to run; --to hf writes the weights"
        )
    return backbone
