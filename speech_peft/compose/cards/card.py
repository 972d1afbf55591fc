"""The card of an adapter: what it is for, in words and in sound. `card.json` beside adapter.json, if any.

What no card says is read off what is there: the task and language of the recipe that made it, or its heads.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...core.saved.save import Saved
from ...errors import ConfigError
from ...files import json_text, yaml_text

FILE = "card.json"
Words = Annotated[str, Field(max_length=2000)]
Few = Annotated[tuple[Annotated[str, Field(max_length=100)], ...], Field(max_length=100)]
Numbers = Annotated[tuple[float, ...], Field(max_length=20_000)]
FACETS = ("language", "channel", "domain", "speaker")
"""What a request may ask for, one adapter for each."""


class Sound(BaseModel):
    """How clips that the adapter is for sound to the frozen encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Numbers
    """Of its pooled states."""
    variance: Numbers
    """Along each of them, between clips."""
    clips: Annotated[int, Field(ge=1)]
    directions: Annotated[tuple[Numbers, ...], Field(max_length=16)] = ()
    """Along which its clips differ most, each as long as their deviation there."""
    radius: Annotated[float, Field(ge=0)] = 0.0
    """In cards of before; nothing reads it."""

    @model_validator(mode="after")
    def _of_one_width(self) -> "Sound":
        widths = {len(numbers) for numbers in (self.mean, self.variance, *self.directions)}
        if len(widths) > 1:
            raise ValueError(f"mean, variance and directions have {sorted(widths)} numbers, expected as many")
        return self


class AdapterCard(BaseModel):
    """card.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    title: Words = ""
    description: Words = ""
    task: Words | None = None
    """asr, classify, restore."""
    language: Few = ()
    """BCP-47 tags."""
    channel: Few = ()
    """telephone, far field, studio ..."""
    domain: Few = ()
    """What is talked about, or where."""
    speaker: Few = ()
    """Who talks: children, a name ..."""
    tags: Few = ()
    license: Words | None = None
    hours: Annotated[float, Field(ge=0)] | None = None
    weight: Annotated[float, Field(gt=0, le=2)] = 1.0
    """By which its change is multiplied where it is chosen; found on clips that it was not trained on."""
    metrics: dict[str, float] = {}
    sound: Sound | None = None

    @property
    def text(self) -> str:
        """All that it says in words."""
        facets = [word for facet in FACETS for word in getattr(self, facet)]
        return " ".join(filter(None, (self.title, self.description, self.task, *facets, *self.tags)))


def read_card(saved: Saved) -> AdapterCard:
    """The card of an adapter, with what its recipe and heads say besides; ConfigError for a broken one."""
    path = saved.folder / FILE
    if path.is_file():
        try:
            card = AdapterCard.model_validate(json_text.read_object(path))
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{path}: {where}: {first['msg']}") from None
    else:
        card = AdapterCard()
    told = {key: value for key, value in _told(saved).items() if not getattr(card, key)}
    return card.model_copy(update=told)


def write_card(folder: Path, card: AdapterCard) -> Path:
    """Put a card beside an adapter."""
    path = folder / FILE
    fields = card.model_dump(mode="json", exclude_defaults=True) | {"format": 1}
    path.write_text(json_text.write(fields, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return path


def cross_track(one: Saved, other: Saved) -> str | None:
    """Why two adapters learned tasks of two families; None where nothing says so."""
    a, b = read_card(one), read_card(other)
    for key, mine, theirs in (
        ("task", a.task, b.task),
        ("language", ", ".join(a.language), ", ".join(b.language)),
    ):
        if mine and theirs and mine != theirs:
            return f"{key}: {one.folder.name} is for {mine}, {other.folder.name} for {theirs}"
    return None


def _told(saved: Saved) -> dict[str, Any]:
    """By the recipe, and else by the heads."""
    found: dict[str, Any] = {}
    path = saved.folder / "recipe.yaml"
    task: Any = None
    if path.is_file():
        try:
            tree = yaml_text.read(path)
        except ConfigError:
            tree = None  # of its owner's making: it says nothing here
        task = tree.get("task") if isinstance(tree, dict) else None
    if isinstance(task, dict):
        found["task"] = task["name"] if isinstance(task.get("name"), str) else None
        found["language"] = (task["language"],) if isinstance(task.get("language"), str) else ()
    heads = {"ctc": "asr", "classify": "classify", "decoder": "restore"}
    found["task"] = found.get("task") or next((t for h, t in heads.items() if h in saved.head_config), None)
    found["title"] = saved.folder.name
    return {key: value for key, value in found.items() if value}
