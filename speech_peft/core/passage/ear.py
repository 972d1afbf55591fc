"""What a block is told about its frames, its adapters know too, whoever runs it."""

from typing import Any

from torch import nn

from ..context import Context
from ..current import Current
from ..site import Site


class Ear:
    """The hooks of one block. Encoders that mask padding tell each of their blocks which frames hold sound.

    So it is known on every way into the model: through its own forward, a part of it, or one block alone.
    """

    def __init__(self, block: Site, current: Current):
        assert block.told is not None
        self.told, self.current = block.told, current

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook."""
        if self.current.active:
            known = Context() if self.current.here.mask is not None else self.told(args, kwargs)
            self.current.told.append((self, known))

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Forward hook, called after an error too."""
        told = self.current.told
        mine = next((i for i in reversed(range(len(told))) if told[i][0] is self), len(told))
        del told[mine:]
