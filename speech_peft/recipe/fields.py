"""The fields of pydantic models as rows of a table: name, type, default, and the docstring below each."""

import ast
import inspect
import re
import textwrap
from itertools import pairwise
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined


def settings(model: type[BaseModel], prefix: str = "") -> list[list[str]]:
    """A row for each field, the prefix before its name."""
    meanings = documented(model)
    return [
        [f"`{prefix}{field}`", f"`{spelled(info.annotation)}`", default(info), meanings.get(field, "")]
        for field, info in model.model_fields.items()
    ]


def documented(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings under a model's fields (else the comments behind them), those that it inherits too."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if not issubclass(kind, BaseModel) or kind is BaseModel:
            continue
        source = textwrap.dedent(inspect.getsource(kind))
        body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
        for field, text in pairwise([*body, ast.Pass()]):
            if not isinstance(field, ast.AnnAssign):
                continue
            said: Any = getattr(text.value, "value", None) if isinstance(text, ast.Expr) else None
            if said is None:  # a few words behind it
                said = re.search(r"  # (.*)", source.splitlines()[field.lineno - 1] + "  # ")[1]  # type: ignore[index]
                said = said.removesuffix("  # ")
            if said:
                found[ast.unparse(field.target)] = " ".join(str(said).split())
    return found


def default(info: Any) -> str:
    if info.is_required() or info.default is PydanticUndefined:
        return "required"
    if isinstance(info.default, BaseModel):
        return "the defaults below"
    return f"`{info.default!r}`"


def spelled(annotation: object) -> str:
    """A type as a reader of recipes writes it, without its limits."""
    if get_origin(annotation) is Annotated:
        return spelled(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(spelled(part) for part in get_args(annotation))
    if get_origin(annotation) is tuple and get_args(annotation):
        return f"tuple[{', '.join('...' if part is ... else spelled(part) for part in get_args(annotation))}]"
    text = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", str(annotation))
    return text.replace("typing.", "").replace("NoneType", "None")
