"""A saved adapter: a folder with adapter.json and adapter.safetensors, and nothing that can run code.

adapter.json          format, method and its config, backbone, sites, heads, library version
adapter.safetensors   "<site>.<parameter>"; a shared network's under "shared."; packed ones with a suffix
head.safetensors      optional: "<head>.<parameter>" (a CTC layer, a classifier, a vocoder)
recipe.yaml README.md optional: the recipe that made it, the model card
"""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator
from torch import Tensor, nn

from .. import __version__
from ..errors import ConfigError, OtherWeights, did_you_mean
from ..files import json_text, tensors
from ..registry import METHODS
from . import packing
from .method import Method
from .model import AdaptedModel
from .swap import complete

FORMAT = 2
"""The newest that is read. Adapters that were trained alone are written as 1, which older versions read."""
MOST_SITES = 10_000
"""The largest encoders have 1,500."""
MOST_TOGETHER = 64
MOST_BYTES = 8_000_000_000
"""Of one file of tensors: an adapter that changes every weight of the largest encoder has a third of that."""


class BackboneCard(BaseModel):
    """Which frozen model an adapter belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The registered family: whisper, ast, conformer, usm."""
    id: str
    """The address the weights came from: folder, hub id or pkg:PACKAGE/path."""
    revision: str | None = None
    dim: PositiveInt
    layers: PositiveInt
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
    sites: Annotated[tuple[str, ...], Field(max_length=MOST_SITES)]
    needs: tuple[str, ...] = ()
    head_config: dict[str, Any] = {}
    base_trained: bool = False
    """Whether base.safetensors replaces parameters of the backbone (full fine-tuning)."""
    together: Annotated[dict[str, str], Field(max_length=MOST_TOGETHER)] = {}
    """All adapters that ran when it was trained, itself too, in their order.

    "." is itself, "../NAME" is of the same run; a frozen one is a hub id or, as "./../..", a folder."""
    library: str = __version__

    @field_validator("together")
    @classmethod
    def _itself_too(cls, given: dict[str, str]) -> dict[str, str]:
        """Without itself among those that run, an adapter that is asked for would never run."""
        if given and list(given.values()).count(".") != 1:
            raise ValueError(f'expected one adapter at ".", this one itself; got {given}')
        return given


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
            with open(self.folder / file, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def check_backbone(self, given: BackboneCard) -> None:
        """Raise ConfigError unless `given` has the name, width and depth of the model it was trained on.

        Other weights of that shape are warned of (`OtherWeights`): what was learned on one model says little
        on another, and the output tells nobody.
        """
        made_for = self.backbone
        if (made_for.name, made_for.dim, made_for.layers) != (given.name, given.dim, given.layers):
            raise ConfigError(f"{self.folder}: this adapter was trained on {made_for}; you gave {given}")
        if made_for.sha256 and given.sha256 and made_for.sha256 != given.sha256:
            warnings.warn(
                f"{self.folder}: this adapter was trained on {made_for.id} with sha256 "
                f"{made_for.sha256[:12]}, and {given.id} has {given.sha256[:12]}: the same shape, other "
                "weights. Results may be worthless; give those that it was trained on",
                OtherWeights,
                stacklevel=2,
            )

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

    Raises ConfigError where a number of it is not finite, as nobody could open it again, and where something
    else than an older adapter has that name.

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
    with complete(folder) as half:
        (half / "adapter.json").write_text(_json(manifest) + "\n", encoding="utf-8")
        tensors.write(half / "adapter.safetensors", tensors_of(model, name))
        if heads:
            tensors.write(half / "head.safetensors", stored_of(heads))
        if base:
            tensors.write(half / "base.safetensors", base)
        for file, text in (("recipe.yaml", recipe), ("README.md", readme)):
            if text is not None:
                (half / file).write_text(text, encoding="utf-8")
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
    content = json_text.read_object(path)
    version = content.get("format", 0)
    if isinstance(version, int) and version > FORMAT:
        raise ConfigError(
            f"{path} has format {version}; this version ({__version__}) reads up to {FORMAT}. "
            "Upgrade speech_peft"
        )
    try:
        manifest = Manifest.model_validate(content)
        method: Method = METHODS[manifest.method].model_validate(manifest.config)
        return Saved(folder, manifest, method)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_reasons(error)}") from None
    except (ConfigError, TypeError, ArithmeticError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _reasons(error: ValidationError) -> str:
    """The first problems, each by its key, in one line."""
    found = [f"{'.'.join(map(str, e['loc']))[:80]}: {e['msg']}" for e in error.errors(include_input=False)]
    return "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")


def shapes_of(path: Path) -> dict[str, tensors.Shape]:
    """What a file of an adapter folder holds, from its header; raises ConfigError for what no adapter has."""
    there = tensors.shapes(path)
    if (total := sum(shape.nbytes for shape in there.values())) > MOST_BYTES:
        raise ConfigError(f"{path} holds {total / 1e9:.1f} GB of tensors; an adapter has at most 8 GB")
    return there


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
    there = {k: shape for k, shape in shapes_of(path).items() if not k.startswith(ignore or "\0")}
    # Files of before hold the zeros too.
    own = {**own, **{key: value for key, value in zero.items() if key in there}}
    _check_shapes(path, there, own, places)
    stored = tensors.read(path, there)
    copies = [(value, stored[key]) for key, value in own.items()]
    for key, place in places.items():
        try:
            copies += place.filled(stored, key)
        except (ValueError, RuntimeError, IndexError) as error:
            raise ConfigError(f"{path}: {key} {error}") from None
    for target, value in copies:
        target.copy_(value)
    for key in zero.keys() - own.keys():
        zero[key].zero_()


def _check_shapes(
    path: Path,
    there: Mapping[str, tensors.Shape],
    own: Mapping[str, Tensor],
    places: Mapping[str, packing.Place],
) -> None:
    """Raise ConfigError unless a file holds what the model has, no more and no less, in the same types."""
    wanted = own.keys() | {key + suffix for key, place in places.items() for suffix in place.packed.suffixes}
    for key in sorted(wanted - there.keys()):
        raise ConfigError(f"{path} lacks {key!r}. {did_you_mean(key, there)}")
    for key, found in there.items():
        if key not in wanted:
            raise ConfigError(f"{path} holds {key!r}, which this model has not. {did_you_mean(key, wanted)}")
        if key not in own:
            continue  # packed, and looked at where it is unpacked
        expected = tensors.Shape(tuple(own[key].shape), own[key].dtype)
        if found.shape != expected.shape:
            raise ConfigError(f"{path}: {key} has shape {found.shape}, expected {expected.shape}")
        if not tensors.same_kind(found.dtype, expected.dtype):
            raise ConfigError(f"{path}: {key} is {found}, expected {expected}")
