"""Every law, and on which backbones it meets a method: by turns, as the full product takes too long.

Each example of a method meets each law on some of the backbones that take it, one further with each law and
each example. So every law meets every method, every law every backbone, and every method every backbone that
it can sit on; a test holds that.
"""

from collections.abc import Iterator
from functools import cache

from speech_peft.core.method import Method
from speech_peft.registry import METHODS

from . import clip_laws, company_laws, laws
from .families import FAMILIES, case

LAWS: dict[str, laws.Law] = {**laws.LAWS, **clip_laws.LAWS, **company_laws.LAWS}
SLOW = laws.SLOW
EXAMPLES: dict[str, Method] = {
    f"{name}-{i}": one for name in METHODS.names() for i, one in enumerate(METHODS[name].examples())
}
BACKBONES_EACH = dict.fromkeys(LAWS, 2) | dict.fromkeys((*company_laws.LAWS, *SLOW), 1)
"""On how many backbones an example meets a law."""
ONLY = {
    "causal": ("whisper",),
    "padding": ("w2v_bert", "parakeet"),
    "starts": tuple(family for family in FAMILIES if family != "parakeet"),
}
"""Where a law says something: a decoder, encoders whose tiny instances leave padding alone, those in which
three steps of one size are small."""


@cache
def takes(example: str) -> tuple[str, ...]:
    """The backbones that this example can sit on."""
    return tuple(family for family in FAMILIES if not laws.refused(case(family, EXAMPLES[example])))


def meetings(slow: bool = False) -> Iterator[tuple[str, str, int]]:
    """Law, example, and whose turn it is."""
    for i, law in enumerate(law for law in LAWS if (law in SLOW) == slow):
        for k, example in enumerate(EXAMPLES):
            for n in range(BACKBONES_EACH[law]):
                yield law, example, i + k + n * len(FAMILIES) // 2


def backbone_of(law: str, example: str, turn: int) -> str | None:
    """Whose turn it is, of those that take the example and about which the law says something."""
    able = [family for family in takes(example) if family in ONLY.get(law, FAMILIES)]
    return able[turn % len(able)] if able else None
