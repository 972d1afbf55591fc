"""A method: the configuration of one adapter, and the recipe to build it at a site."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import nn

from ..errors import ConfigError
from ..files.dotted import Keyed, explained
from .adapter import Adapter, Mixer
from .site import Kind, Site, select, topmost

if TYPE_CHECKING:
    from .lifecycle import Lifecycle


class Method(BaseModel):
    """One published idea, with its settings. Subclasses register themselves: `@METHODS.register("lora")`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    """The registered name, set by the registry."""
    kinds: ClassVar[frozenset[Kind]]
    """Where the method makes sense."""
    reads: ClassVar[frozenset[str]] = frozenset()
    """The Context fields it cannot do without."""

    sites: tuple[str, ...] = ("*.ffn",)
    """Globs over site names."""
    top: Annotated[int, Field(gt=0, strict=True)] | Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of these, only the sites in so many of the topmost blocks: a number (4), or a share (0.25 or 1/3)."""

    def __init__(self, **fields: Any) -> None:
        """Raises ConfigError, one line for each wrong field, as a recipe's reader does."""
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise Keyed(explained(type(self), error)) from None

    @field_validator("top", mode="before")
    @classmethod
    def _share(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        try:
            return float(Fraction(given))
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{given!r} is neither a number of blocks nor a share such as 1/3") from None

    @property
    def identity_at_init(self) -> bool:
        """Whether a fresh adapter leaves the frozen model's output as it is."""
        return True

    @property
    def zero_at_init(self) -> bool:
        """Whether it is the identity because some matrix starts at zero, so also with others in the rest.

        False where numbers of the adapter cancel at the start (PiSSA), which a constraint on them ends.
        """
        return self.identity_at_init

    @property
    def keeps_length(self) -> bool:
        """False for methods that add, drop or move frames (prompts)."""
        return True

    @property
    def keeps_batch(self) -> bool:
        """False for methods that run a batch several times over inside a span of blocks."""
        return True

    @property
    def sees_neighbours(self) -> bool:
        """True for methods in which a frame's change depends on the frames around it (convolutions)."""
        return False

    @property
    def ids(self) -> Mapping[str, tuple[str, ...]]:
        """Context fields with the id of each clip, and the names that these ids count from 0."""
        return {}

    @property
    def hears(self) -> frozenset[str]:
        """Context fields that it listens to where a pass has them; where not, it changes nothing."""
        return frozenset()

    def pace(self, parameter: str) -> float:
        """How many times the recipe's rate a parameter learns at, by its name in a part; 0: it stays."""
        return 1.0

    def choose(self, sites: Sequence[Site], base: nn.Module) -> list[Site]:
        """Where it sits, of all the `sites` that `base` has."""
        chosen = select(sites, self.sites)
        return chosen if self.top is None else topmost(chosen, sites, self.top)

    def shared(self, sites: Sequence[Site]) -> nn.Module | None:
        """One network for all sites (a hypernetwork, a router); most methods have none."""
        return None

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter | Mixer:
        """The trained part for one site; `target` is the frozen module at the site's exit."""
        raise NotImplementedError

    def lifecycle(self, model: Any, adapter: str) -> "Lifecycle | None":
        """The method's part in the training loop of the AdaptedModel `model`, when it has one."""
        return None

    def renamed(self, names: Mapping[str, str]) -> "Method":
        """The same where adapters go by other names, given by the old ones."""
        return self

    @classmethod
    def examples(cls) -> list["Method"]:
        """The configurations that the contract suite runs."""
        return [cls()]

    def company(self) -> dict[str, "Method"]:
        """Small adapters that can run where this one cannot do without others: for tests and tables."""
        return {}

    def check(self, adapter: str, site: Site) -> None:
        """Raise ConfigError, naming the site, where this method must not sit."""
        if site.kind not in self.kinds:
            raise ConfigError(
                f"adapter {adapter!r}: {self.name} cannot sit at {site.name}, a site of kind {site.kind!r}; "
                f"it sits at: {', '.join(sorted(self.kinds))}"
            )
        if site.fixed_length and not self.keeps_length:
            raise ConfigError(
                f"adapter {adapter!r}: {self.name} changes the number of frames, and {site.name} is a site "
                "of fixed length: its positions are relative, or its mask counts frames, and would be "
                "silently wrong. Use a method that adds no frames, such as bottleneck."
            )
        if site.causal and self.sees_neighbours:
            raise ConfigError(
                f"adapter {adapter!r}: {self.name} lets a frame see later ones, and at {site.name}, "
                'in a decoder, they are not written yet. Choose sites of the encoder, such as "layers.*.ffn".'
            )


@dataclass(frozen=True)
class Peer:
    """One of the adapters at a site that a mixer is built over."""

    method: Method
    part: Adapter | Mixer


class Mixing(Method, ABC):
    """A method whose parts are mixers, over adapters that stand in `over` by name and in this order."""

    over: tuple[str, ...]
    """The adapters that are mixed, by their names in the model or recipe. Their order is part of it."""
    sites: tuple[str, ...] = ()
    """Globs over site names; by default every site where all those sit that it is over."""

    @field_validator("over")
    @classmethod
    def _each_once(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({name for name in given if given.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} named twice; each is mixed once")
        if not given:
            raise ValueError("expected the names of the adapters that are mixed; got none")
        return given

    def choose_over(
        self, adapter: str, sites: Sequence[Site], base: nn.Module, placed: Mapping[str, Sequence[Site]]
    ) -> list[Site]:
        """Where it sits; `placed` has the sites of those that it is over."""
        if self.sites:
            return self.choose(sites, base)
        common = [site for site in sites if all(site in placed[name] for name in self.over)]
        if not common:
            first = "; ".join(f"{name} at {placed[name][0].name} …" for name in self.over if placed[name])
            raise ConfigError(
                f"adapter {adapter!r}: there is no site where all of {', '.join(self.over)} sit ({first})"
            )
        return common if self.top is None else topmost(common, sites, self.top)

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter | Mixer:
        raise ConfigError(f"{site.name}: {self.name} is built over other adapters, and alone it is nothing")

    @abstractmethod
    def build_over(
        self, site: Site, target: nn.Module, shared: nn.Module | None, peers: Mapping[str, Peer]
    ) -> Mixer:
        """The part for one site, over `peers`, which are all there. Raises ConfigError naming one that does
        not fit."""

    def renamed(self, names: Mapping[str, str]) -> Method:
        return self.model_copy(update={"over": tuple(names.get(name, name) for name in self.over)})
