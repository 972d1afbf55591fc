"""Names to things: the one way a recipe's word becomes a class."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Any, TypeVar

from .errors import ConfigError, did_you_mean

T = TypeVar("T")


class Registry(Mapping[str, Any]):
    """Things that register themselves by name, found by importing the package they live in.

    The package is imported at the first look-up, so that a command which only prints its help never pays
    for it. Other distributions add to `speech_peft.methods` through the entry-point group of that name.
    """

    def __init__(self, package: str):
        self.package = package
        self.kind = package.rpartition(".")[2].removesuffix("s").replace("corpora", "corpus")
        self._things: dict[str, Any] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator; a second thing of the same name is refused and the first is named."""

        def add(thing: T) -> T:
            if name in self._things and self._things[name] is not thing:
                first = self._things[name]
                raise ConfigError(f"{self.kind} {name!r} is already {first.__module__}.{first.__qualname__}")
            if isinstance(thing, type):
                thing.name = name  # type: ignore[attr-defined]
            self._things[name] = thing
            return thing

        return add

    def _load(self) -> dict[str, Any]:
        if not self._loaded:
            self._loaded = True  # before the imports: a module may look up a sibling
            package = import_module(self.package)
            for module in iter_modules(package.__path__):
                import_module(f"{self.package}.{module.name}")
            for entry in entry_points(group=self.package):
                entry.load()
        return self._things

    def __getitem__(self, name: str) -> Any:
        things = self._load()
        if not isinstance(name, str) or name not in things:
            raise ConfigError(f"no {self.kind} is called {name!r}. {did_you_mean(str(name), things)}")
        return things[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._load()))

    def __len__(self) -> int:
        return len(self._load())

    def names(self) -> list[str]:
        return list(self)


METHODS = Registry("speech_peft.methods")
BACKBONES = Registry("speech_peft.backbones")
CORPORA = Registry("speech_peft.prepare.corpora")
TASKS = Registry("speech_peft.train.tasks")
DECODERS = Registry("speech_peft.decoders")
