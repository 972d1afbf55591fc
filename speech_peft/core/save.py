"""A saved adapter: a folder with adapter.json and adapter.safetensors, and nothing that can run code.

adapter.json          format, method and its config, backbone, sites, heads, library version
adapter.safetensors   "<site>.<parameter>"; a shared network's under "shared."; packed ones with a suffix
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
from . import packing
from .method import Method
from .model import AdaptedModel

FORMAT = 2
"""The newest that is read. Adapters that were trained alone are written as 1, which older versions read."""


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

    format: int = 1
    method: str
    config: dict[str, Any]
    backbone: BackboneCard
    sites: tuple[str, ...]
    needs: tuple[str, ...] = ()
    head_config: dict[str, Any] = {}
    base_trained: bool = False
    """Whether base.safetensors replaces parameters of the backbone (full fine-tuning)."""
    together: dict[str, str] = {}
    """All adapters that ran when it was trained, itself too, in their order.

    "." is itself, "../NAME" is of the same run; a frozen one is a hub id or, as "./../..", a folder."""
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
        _fill_parts(self.folder / "adapter.safetensors", parts_of(model, name))

    def load_base(self, parameters: Mapping[str, Tensor]) -> None:
        """Copy fine-tuned parameters over those of a backbone, `encoder_parameters()`; as strictly."""
        if not self.base_trained:
            raise ConfigError(f"{self.folder} holds no fine-tuned base")
        _fill(self.folder / "base.safetensors", parameters)

    def load_head(self, name: str, head: nn.Module) -> None:
        """Copy the tensors of one saved head into `head`, as strictly."""
        others = tuple(f"{h}." for h in self.head_config if h != name)
        _fill_parts(self.folder / "head.safetensors", {name: head}, ignore=others)


def parts_of(model: AdaptedModel, name: str) -> dict[str, nn.Module]:
    """Everything adapter `name` is made of, by what its keys in a file begin with."""
    own: dict[str, nn.Module] = {site.name: model.at(name, site) for site in model.sites[name]}
    return own | ({"shared": model.shared[name]} if name in model.shared else {})


def tensors_of(model: AdaptedModel, name: str) -> dict[str, Tensor]:
    """What a file holds of adapter `name`, by key; what is not packed is the model's own."""
    return stored_of(parts_of(model, name))


def stored_of(parts: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """What a file holds of these parts, by key."""
    return {f"{p}.{key}": value for p, part in parts.items() for key, value in packing.stored(part).items()}


def write(
    folder: str | Path,
    model: AdaptedModel,
    name: str,
    card: BackboneCard,
    *,
    heads: Mapping[str, nn.Module] | None = None,
    head_config: Mapping[str, Any] | None = None,
    base: Mapping[str, Tensor] | None = None,
    together: Mapping[str, str] | None = None,
    recipe: str | None = None,
    readme: str | None = None,
) -> Path:
    """Save one adapter; the folder appears under its name only when it is complete.

    `base` is what full fine-tuning changed of the backbone, by name; `together` names what ran beside the
    adapter, as `Manifest.together` does.
    """
    folder = Path(folder)
    method = model.methods[name]
    manifest = Manifest(
        format=FORMAT if together else 1,
        method=method.name,
        config=method.model_dump(mode="json"),
        backbone=card,
        sites=tuple(site.name for site in model.sites[name]),
        needs=tuple(sorted(method.reads)),
        head_config=dict(head_config or {}),
        base_trained=bool(base),
        together=dict(together or {}),
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    half = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir()
    (half / "adapter.json").write_text(_json(manifest) + "\n")
    _save(half / "adapter.safetensors", tensors_of(model, name))
    if heads:
        _save(half / "head.safetensors", stored_of(heads))
    if base:
        _save(half / "base.safetensors", base)
    for file, text in (("recipe.yaml", recipe), ("README.md", readme)):
        if text is not None:
            (half / file).write_text(text)
    _swap(half, folder)
    return folder


def _json(manifest: Manifest) -> str:
    """Without what older versions do not know, where it says nothing."""
    return manifest.model_dump_json(indent=2, exclude=None if manifest.together else {"together"})


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


def _fill_parts(path: Path, parts: Mapping[str, nn.Module], ignore: tuple[str, ...] = ()) -> None:
    own = {f"{p}.{key}": value for p, part in parts.items() for key, value in packing.plain(part).items()}
    places = {f"{p}.{key}": place for p, part in parts.items() for key, place in packing.places(part).items()}
    zero = {f"{p}.{key}": value for p, part in parts.items() for key, value in packing.left_out(part).items()}
    _fill(path, own, places, ignore, zero)


@torch.no_grad()
def _fill(
    path: Path,
    own: Mapping[str, Tensor],
    places: Mapping[str, packing.Place] | None = None,
    ignore: tuple[str, ...] = (),
    zero: Mapping[str, Tensor] | None = None,
) -> None:
    """Copy a file's tensors over the model's; nothing is copied unless all fits.

    `zero` is what a file need not hold, and is then set to zero.
    """
    places, zero = places or {}, zero or {}
    try:
        stored = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    stored = {key: value for key, value in stored.items() if not key.startswith(ignore or "\0")}
    # Files of before hold the zeros too.
    own = {**own, **{key: value for key, value in zero.items() if key in stored}}
    wanted = own.keys() | {key + suffix for key, place in places.items() for suffix in place.packed.suffixes}
    for key in wanted - stored.keys():
        raise ConfigError(f"{path} lacks {key!r}. {did_you_mean(key, stored)}")
    copies: list[tuple[Tensor, Tensor]] = []
    for key, value in stored.items():
        if key not in wanted:
            raise ConfigError(f"{path} holds {key!r}, which this model has not. {did_you_mean(key, wanted)}")
        if key in own:
            if value.shape != own[key].shape:
                raise ConfigError(
                    f"{path}: {key} has shape {tuple(value.shape)}, expected {tuple(own[key].shape)}"
                )
            copies.append((own[key], value))
    for key, place in places.items():
        try:
            copies += place.filled(stored, key)
        except ValueError as error:
            raise ConfigError(f"{path}: {key} {error}") from None
    for target, value in copies:
        target.copy_(value)
    for key in zero.keys() - own.keys():
        zero[key].zero_()


def _swap(half: Path, final: Path) -> None:
    """Put a complete folder under its final name; an older one of that name gives way."""
    if final.exists():
        old = final.with_name(f"{final.name}.old-{os.getpid()}")
        os.replace(final, old)
        os.replace(half, final)
        shutil.rmtree(old)
    else:
        os.replace(half, final)
