"""Every example of every registered method under every law, on backbones by turns."""

from itertools import product

import pytest

from speech_peft.registry import METHODS

from .every_law import EXAMPLES, LAWS, ONLY, SLOW, backbone_of, meetings, takes
from .families import FAMILIES, case


def obey(law: str, example: str, turn: int) -> None:
    family = backbone_of(law, example, turn)
    if family is None:
        pytest.skip(f"it sits on none of {', '.join(ONLY[law])}")
    try:
        does_not_apply = LAWS[law](case(family, EXAMPLES[example]))
    except Exception as error:
        error.add_note(f"on the backbone {family}")
        raise
    if does_not_apply:
        pytest.skip(f"{family}: {does_not_apply}")


@pytest.mark.parametrize(("law", "example", "turn"), list(meetings()))
def test_method_obeys(law, example, turn):
    obey(law, example, turn)


@pytest.mark.slow
@pytest.mark.parametrize(("law", "example", "turn"), list(meetings(slow=True)))
def test_method_obeys_what_is_slow(law, example, turn):
    obey(law, example, turn)


@pytest.mark.parametrize("example", EXAMPLES)
def test_method_sits_on_some_backbone_and_is_refused_by_a_site_s_name_elsewhere(example):
    assert takes(example)


def test_every_law_meets_every_method_and_every_backbone_and_these_meet_each_other():
    met = [
        (law, example.rpartition("-")[0], backbone_of(law, example, turn))
        for slow in (False, True)
        for law, example, turn in meetings(slow)
    ]
    names = {example.rpartition("-")[0] for example in EXAMPLES}
    assert names == set(METHODS.names()) - {"none"}, "which has no adapter"
    on = {name: {f for e in EXAMPLES if e.rpartition("-")[0] == name for f in takes(e)} for name in names}
    for law, name in product(LAWS, names):
        if on[name] & set(ONLY.get(law, FAMILIES)):
            assert any(one[:2] == (law, name) and one[2] for one in met), f"{law} does not meet {name}"
    for law in LAWS:
        missed = set(ONLY.get(law, FAMILIES)) - {family for one, _, family in met if one == law}
        assert not missed, f"{law} does not meet {missed}"
    for name in names:
        missed = on[name] - {family for law, one, family in met if one == name and law not in SLOW}
        assert not missed, f"{name} is not tried on {missed}"
