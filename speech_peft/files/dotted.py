"""Dotted keys: setting the value at one, listing them, and saying what is wrong at one."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError, did_you_mean
from . import yaml_text
from .plain_values import DEPTH


class Keyed(ConfigError):
    """Its lines begin with the dotted keys of fields, so what holds them may put its own key before each."""


M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], tree: Any, where: str = "") -> M:
    """`tree` as a `model`; a ConfigError with one line per problem otherwise."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explained(model, error, where)) from None


def explained(model: type[BaseModel], error: ValidationError, where: str = "") -> str:
    """What is wrong, one line per problem, each by its dotted key below `where`."""
    return "\n".join(_explain(model, e, where) for e in error.errors())


def override(tree: dict[str, Any], given: str) -> None:
    """Sets one `key=value` in a tree of plain values; raises ConfigError where the key leads nowhere."""
    key, equals, text = given.partition("=")
    steps = key.split(".")
    if not equals or not all(steps):
        raise ConfigError(f"{given[:200]!r}: overrides are key=value, as in optim.lr=3e-4")
    if len(steps) > DEPTH:
        raise ConfigError(f"{key[:200]}: more than {DEPTH} parts lie inside each other")
    value = yaml_text.parse(text, key)
    here: Any = tree
    for depth, step in enumerate(steps):
        last = depth == len(steps) - 1
        if isinstance(here, list):
            if not re.fullmatch(r"[0-9]{1,9}", step) or int(step) >= len(here):
                raise ConfigError(
                    f"{key}: {'.'.join(steps[:depth])} is a list of {len(here)}; give 0 to {len(here) - 1}"
                )
            index: Any = int(step)
        elif isinstance(here, dict):
            index = step
        else:
            raise ConfigError(f"{key}: {'.'.join(steps[:depth])} is {here!r}, which has no parts")
        if last:
            here[index] = value
        else:
            if isinstance(here, dict) and here.get(index) is None:
                here[index] = {}
            here = here[index]


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value of a tree, by its dotted key."""
    items: Any = (
        tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else None
    )
    if items is None:
        yield path, tree
        return
    for key, value in items:
        yield from leaves(value, f"{path}.{key}".lstrip("."))


def _explain(model: type[BaseModel], error: Any, where: str) -> str:
    """One problem, in the words of the recipe."""
    loc, owner = _place(model, [str(part) for part in error["loc"]])
    key = ".".join([*([where] if where else []), *loc])
    came = error.get("input")
    match error["type"]:
        case "extra_forbidden":
            hint = did_you_mean(loc[-1], owner.model_fields)
            return f"{key}: {owner.__name__} has no field {loc[-1]!r}. {hint}"
        case "missing":
            return f"{key}: required; give it as {key}=VALUE"
        case "literal_error":
            hint = f" {did_you_mean(came, _words(error))}" if isinstance(came, str) else ""
            return f"{key}: got {came!r}, expected {error['ctx']['expected']}.{hint}"
        case "union_tag_invalid":
            words = error["ctx"]["expected_tags"].replace("'", "").split(", ")
            return f"{key}.name: got {error['ctx']['tag']!r}. {did_you_mean(error['ctx']['tag'], words)}"
        case "union_tag_not_found":
            return f"{key}.name: required; give it as {key}.name=VALUE"
        case "value_error":
            message = str(error["ctx"]["error"])
            if isinstance(error["ctx"]["error"], Keyed) and key:
                return "\n".join(f"{key}.{line}" for line in message.splitlines())
            return f"{key}: {message}" if key else message
        case _:
            return f"{key}: got {came!r} ({type(came).__name__}). {error['msg']}"


def _words(error: Any) -> list[str]:
    return [word.strip(" '") for word in error["ctx"]["expected"].replace(" or ", ",").split(",")]


def _place(model: type[BaseModel], loc: Sequence[str]) -> tuple[list[str], type[BaseModel]]:
    """An error's place in a recipe, and the model that owns its last field.

    pydantic puts which member of a union it tried, `task.classify.head`, `layer.literal['last']`, into the
    path; a recipe has no such step.
    """
    steps, owner, kinds = [], model, [model]
    for part in loc:
        tagged = [kind for kind in kinds if part in _tags(kind)] if len(kinds) > 1 else []
        if tagged or part.startswith(("literal[", "constrained-")):
            kinds = tagged or kinds
            continue
        steps.append(part)
        owner = kinds[0]
        kinds = _kinds(owner, part) or kinds
    return steps, owner


def _tags(kind: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(kind.model_fields["name"].annotation) if "name" in kind.model_fields else ()


def _kinds(model: type[BaseModel], name: str) -> list[type[BaseModel]]:
    """The models that a field may hold."""
    if name not in model.model_fields:
        return []
    annotation = model.model_fields[name].annotation
    return [
        k for k in (annotation, *get_args(annotation)) if isinstance(k, type) and issubclass(k, BaseModel)
    ]
