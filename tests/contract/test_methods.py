"""Every example of every registered method, on every backbone, under every law."""

import pytest

from speech_peft.registry import METHODS

from .families import FAMILIES, case
from .laws import LAWS, SLOW, refused

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
    here = case(family, example)
    does_not_apply = refused(here) or LAWS[law](here)
    if does_not_apply:
        pytest.skip(does_not_apply)


@pytest.mark.parametrize("example", EXAMPLES)
def test_method_sits_on_some_backbone(example):
    assert not all(refused(case(family, example)) for family in FAMILIES)
