"""A test that returns early has tested nothing: it skips with the reason, or fails."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
INSIDE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def returns(node: ast.AST) -> Iterator[int]:
    """Lines on which a function returns, functions inside it left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Return):
            yield child.lineno
        elif not isinstance(child, INSIDE):
            yield from returns(child)


def early(source: str) -> list[str]:
    """Tests of a file that return, with the lines."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    tests = [function for function in functions if function.name.startswith("test_")]
    return [f"{test.name}:{line}" for test in tests for line in returns(test)]


@pytest.mark.parametrize("folder", sorted({path.parent.name for path in TESTS.rglob("test_*.py")}))
def test_no_test_returns(folder: str):
    files = sorted(path for path in TESTS.rglob("test_*.py") if path.parent.name == folder)
    assert [f"{file.name}: {one}" for file in files for one in early(file.read_text("utf-8"))] == []


def test_one_that_does_is_found():
    assert early("def test_a(x):\n    if x:\n        return\n    assert x") == ["test_a:3"]
    assert early("def test_a():\n    def inner():\n        return 1\n    assert inner()") == []
