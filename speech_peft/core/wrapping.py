"""Methods that constrain the weights of another: `{method: low_bit, of: {method: bottleneck, width: 32}}`.

The adapter is the host's, built by the host. Every matrix in it (each parameter of two or more dimensions;
biases and norms stay free) becomes a torch parametrisation: what is trained is something else, and the matrix
is made of it whenever it is read. So the host's forward, its merging and its file keys know nothing of it.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar, cast

import torch
from pydantic import field_serializer, field_validator, model_validator
from torch import nn
from torch.nn.utils import parametrize

from ..errors import ConfigError, did_you_mean
from ..registry import METHODS
from .adapter import Adapter, Mixer
from .method import Method
from .packing import Packed
from .site import Kind, Site

_PLACE = ("sites", "top")
P = TypeVar("P", bound=Packed)


class _AsHost:
    """A class variable of `Method` that an instance has from its host."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, wrapping: "Wrapping | None", owner: type) -> frozenset[Any]:
        return frozenset() if wrapping is None else getattr(wrapping.of, self.name)


class Wrapping(Method, ABC):
    """A method whose adapters are those of a host, `of`, with constrained matrices.

    It sits where the host sits; `sites` and `top` may be given here or there, and here wins.
    """

    kinds: ClassVar[frozenset[Kind]] = cast("Any", _AsHost("kinds"))
    reads: ClassVar[frozenset[str]] = cast("Any", _AsHost("reads"))

    instead: ClassVar[str] = ""
    """What to write where the host has matrices, and a setting leaves them all as they are."""

    of: Method
    """The host: `{method: NAME, ...}`, any method with matrices and without a procedure of its own."""

    @model_validator(mode="before")
    @classmethod
    def _where_the_host_sits(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "of" not in given:
            return given
        try:
            host = _host(given["of"])
        except ValueError:
            return given  # and the field says what is wrong with it
        place = {field: given.get(field, getattr(host, field)) for field in _PLACE}
        return {**given, **place, "of": host}

    @field_validator("of", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        return _host(given)

    @field_validator("of")
    @classmethod
    def _can_be_wrapped(cls, host: Method) -> Method:
        if isinstance(host, Wrapping):
            raise ValueError(f"{host.name} wraps a method itself; give the method that it wraps")
        if type(host).lifecycle is not Method.lifecycle:
            raise ValueError(f"{host.name} has a training procedure of its own, which would not run")
        return host

    @field_serializer("of")
    def _named(self, host: Method) -> dict[str, Any]:
        return {"method": host.name, **host.model_dump(mode="json")}

    @property
    def host(self) -> Method:
        """The host at the sites of this method."""
        return self.of.model_copy(update={field: getattr(self, field) for field in _PLACE})

    @property
    def identity_at_init(self) -> bool:
        """As the host's, for constraints that leave a fresh matrix as it is; others ask `zero_at_init`."""
        return self.host.identity_at_init

    @property
    def zero_at_init(self) -> bool:
        return self.identity_at_init and self.host.zero_at_init

    @property
    def keeps_length(self) -> bool:
        return self.host.keeps_length

    @property
    def keeps_batch(self) -> bool:
        return self.host.keeps_batch

    @property
    def sees_neighbours(self) -> bool:
        return self.host.sees_neighbours

    @property
    def hears(self) -> frozenset[str]:
        return self.host.hears

    @property
    def ids(self) -> Mapping[str, tuple[str, ...]]:
        return self.host.ids

    def pace(self, parameter: str) -> float:
        made = parameter.replace("parametrizations.", "").split(".original")[0]
        return self.host.pace(made)

    def choose(self, sites: Sequence[Site], base: nn.Module) -> list[Site]:
        return self.host.choose(sites, base)

    def check(self, adapter: str, site: Site) -> None:
        self.host.check(adapter, site)

    def shared(self, sites: Sequence[Site]) -> nn.Module | None:
        network = self.host.shared(sites)
        if network is not None:
            try:
                self.constrain(network, "shared")
            except ConfigError as refused:
                raise ConfigError(f"{sites[0].name}: {refused}") from None
        return network

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter | Mixer:
        part = self.host.build(site, target, shared)
        in_shared = shared is not None and any(map(parametrize.is_parametrized, shared.modules()))
        if not self.constrain(part, site.name) and not in_shared:
            instead = self.instead if any(True for _ in matrices(part)) else ""
            raise ConfigError(
                f"{self.name}: at {site.name} {self.of.name} has no matrix that it could constrain; "
                + (instead or "wrap a method that has some, such as bottleneck or lora")
            )
        return part

    @abstractmethod
    def constraint(self, key: str, weight: nn.Parameter) -> Packed | None:
        """What makes one matrix, named `key` in all the model; None leaves it free."""

    def constrain(self, part: nn.Module, place: str) -> int:
        """Put every matrix of a part under its constraint; returns how many there are."""
        count = 0
        for path, module, name, weight in list(matrices(part)):
            constraint = self.constraint(f"{place}.{path}".rstrip("."), weight)
            if constraint is not None:
                _register(module, name, constraint)
                count += 1
        return count


class _Named(nn.ModuleDict):
    """Constraints by the names of what they make; a plain ModuleDict takes no "keys" nor "values"."""

    def add_module(self, name: str, module: nn.Module | None) -> None:
        assert module is not None
        self._modules[name] = module


def _register(module: nn.Module, name: str, constraint: Packed) -> None:
    """Put one matrix under its constraint, whatever its name; torch holds constraints in a ModuleDict."""
    names = parametrize.__dict__  # where it finds its ModuleDict
    own = names["ModuleDict"]
    names["ModuleDict"] = _Named
    try:
        parametrize.register_parametrization(module, name, constraint)
    finally:
        names["ModuleDict"] = own


def _host(given: Any) -> Any:
    """`{method: NAME, **fields}` as a method; what is one already stays."""
    if not isinstance(given, dict):
        return given
    if "method" not in given:
        raise ValueError("give the host as {method: NAME, ...}")
    kind = METHODS[given["method"]]
    fields = {key: value for key, value in given.items() if key != "method"}
    for key in fields:
        if key not in kind.model_fields:
            raise ValueError(f"{kind.__name__} has no field {key!r}. {did_you_mean(key, kind.model_fields)}")
    return kind.model_validate(fields)


def matrices(part: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """Every matrix that is not yet constrained: its name in `part`, its module, its name there, itself."""
    for path, module in part.named_modules():
        if isinstance(module, parametrize.ParametrizationList):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() >= 2:
                yield f"{path}.{name}".lstrip("."), module, name, parameter


def constraints(part: nn.Module, kind: type[P]) -> Iterator[tuple[parametrize.ParametrizationList, P]]:
    """Every constraint of a kind in a part, behind the module that holds what is trained for it."""
    for module in part.modules():
        if isinstance(module, parametrize.ParametrizationList) and isinstance(first := module[0], kind):
            yield module, first


def plainly(part: nn.Module) -> None:
    """Keep the matrices and forget what they are made of: inference then costs what the host costs."""
    for module in list(part.modules()):
        if parametrize.is_parametrized(module):
            for name in list(cast("Any", module.parametrizations)):
                with torch.enable_grad():  # without, some of them would become buffers
                    parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def generator(*parts: object) -> torch.Generator:
    """Randomness that the parts name: the same on every machine and in every process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
