"""Every protocol can be checked while tests run: else `-p tests.beartyped` ends before its first test."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def unchecked(source: str) -> list[str]:
    """Protocols of a file without `@runtime_checkable`."""
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    return [
        one.name
        for one in classes
        if any(ast.unparse(base).partition("[")[0].endswith("Protocol") for base in one.bases)
        and "runtime_checkable" not in [ast.unparse(decorator) for decorator in one.decorator_list]
    ]


def test_every_protocol_can_be_checked_at_runtime():
    files = sorted((ROOT / "speech_peft").rglob("*.py"))
    assert [f"{file.name}: {name}" for file in files for name in unchecked(file.read_text("utf-8"))] == []


def test_one_that_cannot_is_found():
    assert unchecked("class A(Protocol): ...\n@runtime_checkable\nclass B(Protocol[T]): ...") == ["A"]
