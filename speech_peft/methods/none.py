"""No adapter at all: the backbone stays as it is, and only the task's own head is trained.

    y' = y

With a linear head this is the linear probe; with `backbone.train: true` it is full fine-tuning. Both are the
baselines that every comparison of adapters starts from, so they go through the same recipes and folders.
"""

from typing import ClassVar

from ..core.method import Method
from ..core.site import Kind
from ..registry import METHODS


@METHODS.register("none")
class NoAdapter(Method):
    """The baseline without an adapter: a probe, or full fine-tuning."""

    kinds: ClassVar[frozenset[Kind]] = frozenset()

    sites: tuple[()] = ()

    @classmethod
    def examples(cls) -> list[Method]:
        """None: every law of the contract is about what sits at a site."""
        return []
