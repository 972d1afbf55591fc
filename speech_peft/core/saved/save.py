"""A saved adapter: a folder with adapter.json and adapter.safetensors, and nothing that can run code.

adapter.json          format, method and its config, backbone, sites, heads, library version
adapter.safetensors   "<site>.<parameter>"; a shared network's under "shared."; packed ones with a suffix
head.safetensors      optional: "<head>.<parameter>" (a CTC layer, a classifier, a vocoder)
recipe.yaml README.md optional: the recipe that made it, the model card
"""

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator
from torch import Tensor, nn

from ... import __version__
from ...errors import ConfigError, OtherWeights
from ...files import json_text, tensors
from ...registry import METHODS
from .. import packing
from ..method import Method
from ..model import AdaptedModel
from .digests import digest_of
from .fill import fill, fill_parts, shapes_of
from .room import Room
from .swap import complete

Head = TypeVar("Head", bound=nn.Module)

FORMAT = 4
"""The newest that is read. Written is the oldest that will do: 1 alone, 2 with others, 3 over others, 4 made
of others."""
MOST_SITES = 10_000
"""The largest encoders have 1,500."""
MOST_TOGETHER = 64


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


class Origin(BaseModel):
    """What an adapter was made of, where it was not trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    how: str
    adapters: Annotated[dict[str, str], Field(max_length=MOST_TOGETHER)]
    """By name, the digest of each."""
    factors: tuple[float, ...]
    settings: dict[str, Any] = {}
    """The rank, share, order or chance by which they were joined."""


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
    experts: Annotated[dict[str, str], Field(max_length=MOST_TOGETHER)] = {}
    """Of a mixer, what it was trained over: names in `together`, and the digest of each."""
    joined: Origin | None = None
    """Of one that was made of others, which and how."""
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
        config = self.manifest.model_dump_json(include={"method", "config"})
        names = ("adapter.safetensors", *(["base.safetensors"] if self.base_trained else []))
        return digest_of(config, [self.folder / name for name in names])

    def room(self, file: str = "adapter.safetensors") -> Room:
        """What may be made to be filled by one of its files; raises ConfigError where that cannot be read."""
        path = self.folder / file
        return Room(
            self.folder / "adapter.json", path, sum(there.nbytes for there in shapes_of(path).values())
        )

    def build_head(self, name: str, build: Callable[[], Head]) -> Head:
        """What `build` makes, with the tensors of head `name`; raises ConfigError where they do not fit."""
        with self.room("head.safetensors").kept():
            head = build()
        self.load_head(name, head)
        return head

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
        fill_parts(self.folder / "adapter.safetensors", parts_of(model, name))

    def load_base(self, parameters: Mapping[str, Tensor]) -> None:
        """Copy fine-tuned parameters over those of a backbone, `encoder_parameters()`; as strictly."""
        if not self.base_trained:
            raise ConfigError(f"{self.folder} holds no fine-tuned base")
        fill(self.folder / "base.safetensors", parameters)

    def load_head(self, name: str, head: nn.Module) -> None:
        """Copy the tensors of one saved head into `head`, as strictly."""
        others = tuple(f"{h}." for h in self.head_config if h != name)
        fill_parts(self.folder / "head.safetensors", {name: head}, ignore=others)


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
    experts: Mapping[str, str] | None = None,
    joined: Origin | None = None,
    recipe: str | None = None,
    readme: str | None = None,
) -> Path:
    """Save one adapter; the folder appears under its name only when it is complete.

    Raises ConfigError where a number of it is not finite, as nobody could open it again, and where something
    else than an older adapter has that name.

    `base` is what full fine-tuning changed of the backbone, by name; `together` names what ran beside the
    adapter, `experts` what it is over and `joined` what it was made of, as those fields of `Manifest` do.
    """
    folder = Path(folder)
    method = model.methods[name]
    manifest = Manifest(
        format=4 if joined else 3 if experts else 2 if together else 1,
        method=method.name,
        config=method.model_dump(mode="json"),
        backbone=card,
        sites=tuple(site.name for site in model.sites[name]),
        needs=tuple(sorted(method.reads)),
        head_config=dict(head_config or {}),
        base_trained=bool(base),
        together=dict(together or {}),
        experts=dict(experts or {}),
        joined=joined,
    )
    with complete(folder) as half:
        (half / "adapter.json").write_text(manifest_text(manifest) + "\n", encoding="utf-8")
        tensors.write(half / "adapter.safetensors", tensors_of(model, name))
        if heads:
            tensors.write(half / "head.safetensors", stored_of(heads))
        if base:
            tensors.write(half / "base.safetensors", base)
        for file, text in (("recipe.yaml", recipe), ("README.md", readme)):
            if text is not None:
                (half / file).write_text(text, encoding="utf-8")
    return folder


def manifest_text(manifest: Manifest) -> str:
    """adapter.json, without what older versions do not know, where it says nothing."""
    return manifest.model_dump_json(
        indent=2, exclude={key for key in ("together", "experts", "joined") if not getattr(manifest, key)}
    )


def read(folder: str | Path) -> Saved:
    """Open an adapter folder; raises ConfigError saying which file is wrong and how."""
    folder = Path(folder)
    path = folder / "adapter.json"
    for file in (path, folder / "adapter.safetensors"):
        if not os.path.isfile(file):  # of a name that is too long Path.is_file raises
            hint = (
                " (a PEFT folder: read it with import_peft)"
                if os.path.isfile(folder / "adapter_config.json")
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
