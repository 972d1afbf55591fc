"""What enters some sites while a model runs: the states of a reference."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..site import Site, resolve


@contextmanager
def noting(base: nn.Module, sites: Sequence[Site]) -> Iterator[dict[str, Tensor]]:
    """What enters these sites of a model while the block runs, by their names."""
    noted: dict[str, Tensor] = {}
    hooks = [
        resolve(base, site.entry).register_forward_pre_hook(
            partial(_note, noted, site.name), with_kwargs=True
        )
        for site in sites
    ]
    try:
        yield noted
    finally:
        for hook in hooks:
            hook.remove()


def _note(
    noted: dict[str, Tensor], name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    noted[name] = (args[0] if args else kwargs["hidden_states"]).detach()
