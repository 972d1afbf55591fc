"""Every example of every registered method under every law: on every backbone, the slow laws on one each."""

import pytest

from speech_peft.registry import METHODS

from .families import FAMILIES, case
from .laws import LAWS, SLOW, refused

_EXAMPLES = {f"{name}-{i}": one for name in METHODS.names() for i, one in enumerate(METHODS[name].examples())}
EXAMPLES = [pytest.param(example, id=key) for key, example in _EXAMPLES.items()]
TURNS = [pytest.param(example, turn, id=key) for turn, (key, example) in enumerate(_EXAMPLES.items())]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("law", [law for law in LAWS if law not in SLOW])
def test_method_obeys(law, example, family):
    here = case(family, example)
    does_not_apply = refused(here) or LAWS[law](here)
    if does_not_apply:
        pytest.skip(does_not_apply)


@pytest.mark.slow
@pytest.mark.parametrize(("example", "turn"), TURNS)
@pytest.mark.parametrize("law", sorted(SLOW))
def test_method_obeys_on_the_backbone_whose_turn_it_is(law, example, turn):
    """Compilation costs a hundred times what another law does. Examples take the backbones by turns, so
    that every method and every backbone is compiled, and a method of several examples on several backbones.
    """
    start = turn % len(FAMILIES)
    by_turns = [*FAMILIES][start:] + [*FAMILIES][:start]
    family = next(family for family in by_turns if not refused(case(family, example)))
    try:
        does_not_apply = LAWS[law](case(family, example))
    except Exception as error:
        error.add_note(f"on the backbone {family}")
        raise
    if does_not_apply:
        pytest.skip(does_not_apply)


@pytest.mark.parametrize("example", EXAMPLES)
def test_method_sits_on_some_backbone(example):
    assert not all(refused(case(family, example)) for family in FAMILIES)
