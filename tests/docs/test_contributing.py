"""The worked example of CONTRIBUTING obeys the laws, and its test passes."""

from collections.abc import Iterator

import pytest

from speech_peft.registry import METHODS
from tests.contract.every_law import LAWS, ONLY, SLOW
from tests.contract.families import FAMILIES, case

from .read import blocks

EXAMPLE = "fourier"


@pytest.fixture
def example() -> Iterator[str]:
    """The method of CONTRIBUTING, registered for the length of a test; "" when the package has it by now."""
    if EXAMPLE in METHODS.names():
        pytest.skip(f"{EXAMPLE} is in the package; give CONTRIBUTING another example")
    method, test = blocks("CONTRIBUTING.md", "python")
    exec(compile(method, "CONTRIBUTING.md", "exec"), {"__name__": "contributing_example"})
    try:
        yield test
    finally:
        del METHODS._things[EXAMPLE]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_method_of_contributing_obeys_every_law(example: str, family: str):
    turn = [*FAMILIES].index(family)
    for i, law in enumerate(law for law in LAWS if law not in SLOW):
        # By turns, each on two backbones; where a law says something on few, on all of these.
        if (i - turn) % 3 if law not in ONLY else family not in ONLY[law]:
            continue
        for config in METHODS[EXAMPLE].examples():
            LAWS[law](case(family, config))


def test_the_test_of_contributing_passes(example: str):
    names: dict[str, object] = {"__name__": "contributing_test"}
    exec(compile(example, "CONTRIBUTING.md", "exec"), names)
    for name, function in names.items():
        if name.startswith("test_"):
            function()  # type: ignore[operator]
