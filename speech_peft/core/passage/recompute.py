"""Gradient checkpointing that recomputes with the context of its own forward pass."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from ...errors import ConfigError
from ..context import Context
from ..current import Current


class Recompute:
    """Stands in for a block's `forward`: keeps no activations and runs it again when they are needed.

    The second run happens during backward. By then another forward pass (a teacher, the next task) may have
    set another context or other active adapters, and the gradient would silently go to those; so both are
    noted at the first run and restored at the second, which the context calls `again`.
    """

    def __init__(self, forward: Callable[..., Any], current: Current):
        self.forward, self.current = forward, current

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        if kwargs.get("past_key_values") is not None:
            raise ConfigError(
                "recompute: a block was given a key-value cache, to which its second run would append again. "
                "Call the model with use_cache=False, or decode under torch.no_grad()."
            )
        current = self.current
        first, kept = True, Context(kept={})
        active, here, draws = current.active, current.here.completed(kept), current.draws
        again = replace(here, again=True)

        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal first
            if first:  # a span may begin in here and end behind: its passage stays open
                first = False
                with current.telling(self, kept):
                    return self.forward(*args, **kwargs)
            with current.set(active, again, draws):
                return self.forward(*args, **kwargs)

        return checkpoint(run, *args, use_reentrant=False, **kwargs)
