"""Every example of every registered method, on every backbone, under every law."""

import pytest

from speech_peft.registry import METHODS

from .families import FAMILIES, case
from .laws import LAWS, SLOW

EXAMPLES = [
    pytest.param(example, id=f"{name}-{i}")
    for name in METHODS.names()
    for i, example in enumerate(METHODS[name].examples())
]
_LAWS = [pytest.param(law, id=law, marks=[pytest.mark.slow] if law in SLOW else []) for law in LAWS]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("law", _LAWS)
def test_method_obeys(law, example, family):
    does_not_apply = LAWS[law](case(family, example))
    if does_not_apply:
        pytest.skip(does_not_apply)
