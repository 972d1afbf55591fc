"""Which engine hears: torch, which runs everything, or CTranslate2 where the weights can be given to it.

`auto` takes CTranslate2 on a CPU where the package is installed, no other precision is asked for, and the
adapter disappears into the weights, or sits in the encoder alone, which torch can run beside it.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, cast, get_args

import torch

from ..backbones.whisper import Whisper
from ..compose.merge import merge
from ..core.adapter import NotMergeable
from ..core.model import AdaptedModel
from ..decoders.words.ct2_engine import Ct2Engine
from ..decoders.words.engine import Engine, TorchEngine
from ..errors import ConfigError, did_you_mean
from ..opening.loading import Opened
from . import ct2_folder
from .result import Dtype, EngineName

INSTALL = "pip install 'speech_peft[ct2]'"
_DTYPES: Mapping[str, tuple[str, ...]] = {
    "torch": ("auto", "float32", "bfloat16"),
    "ct2": ("auto", "int8", "float32"),
}
_MOST_WORKERS = 4  # each holds a batch; further cores work inside them


@dataclass(frozen=True)
class Ready:
    """A model as its engine runs it."""

    opened: Opened
    engine: Engine | None
    """None where a CTC layer reads the encoder."""
    dtype: str
    """Of what decodes: float32, bfloat16, int8 or float16."""


def ready(opened: Opened, name: EngineName, dtype: Dtype, device: str) -> Ready:
    """The model on its engine. Raises ConfigError for an engine or precision that cannot run it."""
    if name not in get_args(EngineName):
        raise ConfigError(f"engine: there is no {name!r}. {did_you_mean(name, get_args(EngineName))}")
    _check(dtype, name)
    whisper = isinstance(opened.backbone, Whisper) and opened.ctc is None
    if name == "auto":
        wanted = whisper and device == "cpu" and dtype in ("auto", "int8") and installed()
        try:
            if wanted and opened.backbone.card().sha256:
                return _on_ct2(opened, dtype, device)
        except NotMergeable:
            if dtype == "int8":
                raise
        _check(dtype, "torch")
    elif name == "ct2":
        _check_ct2(opened, whisper, device)
        return _on_ct2(opened, dtype, device)
    if dtype == "bfloat16":
        opened.model.to(torch.bfloat16)
    engine = TorchEngine(cast(Whisper, opened.backbone)) if whisper else None
    return Ready(opened, engine, "float32" if dtype == "auto" else dtype)


def installed() -> bool:
    return find_spec("ctranslate2") is not None


def _check(dtype: str, name: str) -> None:
    known = get_args(Dtype) if name == "auto" else _DTYPES[name]
    if dtype not in known:
        needs = "; int8 needs --engine ct2" if dtype == "int8" and not installed() else ""
        raise ConfigError(f"dtype: engine {name} has no {dtype!r}, only {', '.join(known)}{needs}")


def _check_ct2(opened: Opened, whisper: bool, device: str) -> None:
    if not whisper:
        raise ConfigError("engine: ct2 runs Whisper with its own decoder, and this is another model")
    if not installed():
        raise ConfigError(f"engine: ct2 needs the package ctranslate2: {INSTALL}")
    if device != "cpu" and not device.startswith("cuda"):
        raise ConfigError(f"engine: ct2 runs on cpu and cuda, not on {device}; take --engine torch")


def _on_ct2(opened: Opened, dtype: str, device: str) -> Ready:
    opened, hooked = _merged(opened)
    backbone = cast(Whisper, opened.backbone)
    kind = ("int8" if device == "cpu" else "float16") if dtype == "auto" else dtype
    threads = torch.get_num_threads()
    workers = min(threads, _MOST_WORKERS) if device == "cpu" else 1
    model = ct2_folder.model(
        backbone,
        None if hooked else _adapters(opened),
        kind,
        device=device,
        inter_threads=workers,
        intra_threads=max(1, threads // workers),
    )
    own_encoder = kind == "int8" and not hooked and not multiplies_bfloat16()
    own_encoder = own_encoder and backbone.positions != "interpolated"  # of which it knows nothing
    if kind != "float32" and device != "cpu":
        backbone.encoder.to(torch.float16)
    elif kind == "int8" and multiplies_bfloat16():
        backbone.encoder.to(torch.bfloat16)
    return Ready(opened, Ct2Engine(backbone, model, workers, own_encoder, hooked), kind)


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for it; without, torch is slower in bfloat16 than in float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _merged(opened: Opened) -> tuple[Opened, bool]:
    """The same with its adapters in the weights, or as it is where they hang on the encoder alone: then True.

    Raises NotMergeable for what is neither.
    """
    if not opened.model.methods:
        return opened, False
    try:
        module: Any = merge(opened.model)
    except NotMergeable as refused:
        sites = [site for own in opened.model.sites.values() for site in own]
        if any(site.name.startswith("decoder.") for site in sites):
            raise NotMergeable(
                f"engine ct2 takes an adapter that can be merged, or sits in the encoder alone: {refused}. "
                "Take --engine torch"
            ) from None
        return opened, True
    backbone = copy.copy(cast(Whisper, opened.backbone))
    backbone.module = module
    return replace(opened, backbone=backbone, model=AdaptedModel(module, backbone.sites(), {})), False


def _adapters(opened: Opened) -> tuple[str, ...]:
    """Digests of what is in the weights."""
    return tuple(one.digest for one in opened.group.values())
