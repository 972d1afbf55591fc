"""A saved adapter: a folder with adapter.json and adapter.safetensors, and nothing that can run code.

adapter.json          format, method and its config, backbone, sites, heads, library version
adapter.safetensors   "<site>.<parameter>"; a shared network's under "shared."
head.safetensors      optional: "<head>.<parameter>" (a CTC layer, a classifier, a vocoder)
recipe.yaml README.md optional: the recipe that made it, the model card
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .. import __version__
from ..errors import ConfigError, did_you_mean
from ..registry import METHODS
from .method import Method
from .model import AdaptedModel

FORMAT = 1


class BackboneCard(BaseModel):
    """Which frozen model an adapter belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The registered family: whisper, ast, conformer, usm."""
    id: str
    """The address the weights came from: folder, hub id or pkg:PACKAGE/path."""
    revision: str | None = None
    dim: int
    layers: int
    sha256: str | None = None
    """Of the weight files."""
    options: dict[str, Any] = {}
    """How it was opened, for instance {"context": "fit"}."""

    def __str__(self) -> str:
        return f"{self.name} {self.id} (d={self.dim}, {self.layers} layers)"


class Manifest(BaseModel):
    """adapter.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    method: str
    config: dict[str, Any]
    backbone: BackboneCard
    sites: tuple[str, ...]
    needs: tuple[str, ...] = ()
    head_config: dict[str, Any] = {}
    base_trained: bool = False
    """Whether base.safetensors replaces parameters of the backbone (full fine-tuning)."""
    library: str = __version__


@dataclass(frozen=True)
class Saved:
    """An adapter folder that was read and checked; tensors are loaded when they are asked for."""

    folder: Path
    manifest: Manifest
    method: Method = field(repr=False)

    @property
    def sites(self) -> tuple[str, ...]:
        return self.manifest.sites

    @property
    def backbone(self) -> BackboneCard:
        return self.manifest.backbone

    @property
    def head_config(self) -> dict[str, Any]:
        return self.manifest.head_config

    @property
    def pinned(self) -> Method:
        """The method at the very sites it was trained at, whatever else its globs would match."""
        return self.method.model_copy(update={"sites": self.sites, "top": None})

    @property
    def base_trained(self) -> bool:
        return self.manifest.base_trained

    @property
    def digest(self) -> str:
        """sha256 of the adapter's tensors and configuration: what a fusion names its experts by."""
        digest = hashlib.sha256(self.manifest.model_dump_json(include={"method", "config"}).encode())
        for file in ("adapter.safetensors", *(["base.safetensors"] if self.base_trained else [])):
            digest.update((self.folder / file).read_bytes())
        return digest.hexdigest()

    def check_backbone(self, given: BackboneCard) -> None:
        """Raise ConfigError unless `given` has the name, width and depth of the model it was trained on."""
        made_for = self.backbone
        if (made_for.name, made_for.dim, made_for.layers) != (given.name, given.dim, given.layers):
            raise ConfigError(f"{self.folder}: this adapter was trained on {made_for}; you gave {given}")

    def load_into(self, model: AdaptedModel, name: str, backbone: BackboneCard | None = None) -> None:
        """Copy the tensors into adapter `name` of `model`; keys and shapes must agree in both directions."""
        if backbone is not None:
            self.check_backbone(backbone)
        _fill(self.folder / "adapter.safetensors", tensors_of(model, name))

    def load_base(self, parameters: Mapping[str, Tensor]) -> None:
        """Copy fine-tuned parameters over those of a backbone, `encoder_parameters()`; as strictly."""
        if not self.base_trained:
            raise ConfigError(f"{self.folder} holds no fine-tuned base")
        _fill(self.folder / "base.safetensors", parameters)

    def load_head(self, name: str, head: nn.Module) -> None:
        """Copy the tensors of one saved head into `head`, as strictly."""
        own = {f"{name}.{key}": value for key, value in head.state_dict().items()}
        others = tuple(f"{h}." for h in self.head_config if h != name)
        _fill(self.folder / "head.safetensors", own, ignore=others)


def tensors_of(model: AdaptedModel, name: str) -> dict[str, Tensor]:
    """Everything adapter `name` is made of, by file key; the tensors are the model's own."""
    own = {
        f"{site.name}.{key}": value
        for site in model.sites[name]
        for key, value in model.at(name, site).state_dict().items()
    }
    if name in model.shared:
        own |= {f"shared.{key}": value for key, value in model.shared[name].state_dict().items()}
    return own


def write(
    folder: str | Path,
    model: AdaptedModel,
    name: str,
    card: BackboneCard,
    *,
    heads: Mapping[str, nn.Module] | None = None,
    head_config: Mapping[str, Any] | None = None,
    base: Mapping[str, Tensor] | None = None,
    recipe: str | None = None,
    readme: str | None = None,
) -> Path:
    """Save one adapter; the folder appears under its name only when it is complete.

    `base` is what full fine-tuning changed of the backbone, by name.
    """
    folder = Path(folder)
    method = model.methods[name]
    manifest = Manifest(
        method=method.name,
        config=method.model_dump(mode="json"),
        backbone=card,
        sites=tuple(site.name for site in model.sites[name]),
        needs=tuple(sorted(method.reads)),
        head_config=dict(head_config or {}),
        base_trained=bool(base),
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    half = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir()
    (half / "adapter.json").write_text(manifest.model_dump_json(indent=2) + "\n")
    _save(half / "adapter.safetensors", tensors_of(model, name))
    if heads:
        head_tensors = {f"{h}.{k}": v for h, head in heads.items() for k, v in head.state_dict().items()}
        _save(half / "head.safetensors", head_tensors)
    if base:
        _save(half / "base.safetensors", base)
    for file, text in (("recipe.yaml", recipe), ("README.md", readme)):
        if text is not None:
            (half / file).write_text(text)
    _swap(half, folder)
    return folder


def read(folder: str | Path) -> Saved:
    """Open an adapter folder; raises ConfigError saying which file is wrong and how."""
    folder = Path(folder)
    path = folder / "adapter.json"
    for file in (path, folder / "adapter.safetensors"):
        if not file.is_file():
            hint = (
                " (a PEFT folder: read it with import_peft)"
                if (folder / "adapter_config.json").exists()
                else ""
            )
            raise ConfigError(f"{folder} is no saved adapter: it has no {file.name}{hint}")
    try:
        content = json.loads(path.read_text())
        if content.get("format", 0) > FORMAT:
            raise ConfigError(
                f"{path} has format {content['format']}; this version ({__version__}) reads up to {FORMAT}. "
                "Upgrade speech_peft"
            )
        manifest = Manifest.model_validate(content)
        method: Method = METHODS[manifest.method].model_validate(manifest.config)
    except (json.JSONDecodeError, ValidationError, AttributeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return Saved(folder, manifest, method)


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    # A clone each, as safetensors refuses tensors that share memory (a network used at two sites).
    save_file({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}, path)


@torch.no_grad()
def _fill(path: Path, own: Mapping[str, Tensor], ignore: tuple[str, ...] = ()) -> None:
    try:
        stored = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    stored = {key: value for key, value in stored.items() if not key.startswith(ignore or "\0")}
    for key in own.keys() - stored.keys():
        raise ConfigError(f"{path} lacks {key!r}. {did_you_mean(key, stored)}")
    for key, value in stored.items():
        if key not in own:
            raise ConfigError(f"{path} holds {key!r}, which this model has not. {did_you_mean(key, own)}")
        if value.shape != own[key].shape:
            raise ConfigError(
                f"{path}: {key} has shape {tuple(value.shape)}, expected {tuple(own[key].shape)}"
            )
        own[key].copy_(value)


def _swap(half: Path, final: Path) -> None:
    """Put a complete folder under its final name; an older one of that name gives way."""
    if final.exists():
        old = final.with_name(f"{final.name}.old-{os.getpid()}")
        os.replace(final, old)
        os.replace(half, final)
        shutil.rmtree(old)
    else:
        os.replace(half, final)
