"""The only code that hooks a frozen model: it hands a site's x and y to the adapters that are active."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.functional import pad

from ..errors import ConfigError
from .adapter import Adapter, Mixer
from .attention import KEYWORD, Pair, joined, route
from .context import Context, Current
from .site import NESTING, Site, resolve

if TYPE_CHECKING:
    from .method import Method

Peers = dict[str, Adapter | Mixer]

# The keyword under which transformers hands over a module's input when it gives no positional one.
_INPUT_NAMES = ("hidden_states", "input", "inputs")


class Port:
    """One site's two hooks. Keeps x between enter and leave, so a model runs one forward at a time.

    The hooks are bound methods, not closures: `copy.deepcopy` of a model then copies its ports with it, where
    a closure would go on running the adapters of the original.
    """

    def __init__(self, site: Site, peers: Peers, methods: Mapping[str, "Method"], current: Current):
        self.site, self.peers, self.current = site, peers, current
        self.reads = {name: methods[name].reads for name in peers}
        self.moving = {name for name in peers if not methods[name].keeps_length}
        self.x: Tensor | None = None
        self.outside: Context | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A recomputed block may stop between enter and leave; what it left here is no part of a copy.
        return {**self.__dict__, "x": None, "outside": None}

    def _running(self) -> list[str]:
        """The active adapters that sit here, in order, and last those that take frames away again."""
        running = [name for name in self.current.active if name in self.peers]
        return [n for n in running if n not in self.moving] + [n for n in running if n in self.moving]

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Forward pre-hook of the entry module: note x, and let the adapters change what the base sees."""
        running = self._running()
        if not running:
            return None
        key = None if args else next((name for name in _INPUT_NAMES if name in kwargs), None)
        if not args and key is None:
            raise ConfigError(
                f"{self.site.name}: {self.site.entry} was called with {', '.join(kwargs) or 'nothing'}; "
                f"expected its input first, or as one of {', '.join(_INPUT_NAMES)}"
            )
        x: Tensor = args[0] if key is None else kwargs[key]
        width = x.shape[1]
        for name in running:
            self._check_context(name)
            peer = self.peers[name]
            if isinstance(peer, Adapter) and peer.changes_input:
                x = peer.before(_cast(x, peer.dtype), self.current.ctx).to(x.dtype)
        self.x = x
        self._widen_mask(x.shape[1] - width)
        if added := self._added(running, x):
            kwargs = {**kwargs, KEYWORD: joined(added)}
        return ((x, *args[1:]), kwargs) if key is None else (args, {**kwargs, key: x})

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Forward hook of the exit module: rewrite y, the output or the first item of an output tuple."""
        running = self._running()
        if not running:
            return None
        x, self.x = self.x, None
        assert x is not None, f"{self.site.name}: left without having been entered"
        y: Tensor = output[0] if isinstance(output, tuple) else output
        for name in running:
            y = self._rewrite(self.peers[name], x, y)
        if self.outside is not None:
            self.current.ctx, self.outside = self.outside, None
        return (y, *output[1:]) if isinstance(output, tuple) else y

    def _added(self, running: list[str], x: Tensor) -> list[Pair]:
        """What the running adapters let the site's attention see besides its own keys and values."""
        peers = [self.peers[name] for name in running]
        found = [
            peer.added(_cast(x, peer.dtype), self.current.ctx)
            for peer in peers
            if isinstance(peer, Adapter) and peer.changes_attention
        ]
        return [pair for pair in found if pair is not None]

    def _widen_mask(self, added: int) -> None:
        """Inside the site the mask covers the frames that were added: they come first and count as signal."""
        ctx, self.outside = self.current.ctx, None
        if added and ctx.mask is not None:
            self.outside = ctx
            self.current.ctx = replace(ctx, mask=pad(ctx.mask, (added, 0), value=True))

    def _rewrite(self, peer: Adapter | Mixer, x: Tensor, y: Tensor) -> Tensor:
        """The one dtype policy: an adapter computes in its own precision, and y keeps the base's."""
        ctx = self.current.ctx
        x_own, y_own = _cast(x, peer.dtype), _cast(y, peer.dtype)
        if isinstance(peer, Adapter):
            return peer(x_own, y_own, ctx).to(y.dtype)
        outputs = [_cast(self._rewrite(self.peers[name], x, y), peer.dtype) for name in peer.over]
        return peer(x_own, y_own, outputs, ctx).to(y.dtype)

    def _check_context(self, name: str) -> None:
        for field in self.reads[name]:
            if getattr(self.current.ctx, field) is None:
                raise ConfigError(
                    f"{self.site.name}: adapter {name!r} reads Context.{field}, and this forward pass gave "
                    f"none. Call model(..., ctx=Context({field}=...))."
                )


def _cast(tensor: Tensor, dtype: Any) -> Tensor:
    return tensor if dtype is None else tensor.to(dtype)


def install(base: nn.Module, ports: list[Port]) -> None:
    """Hook every port onto the base: outermost sites enter first and leave last."""
    ports = sorted(ports, key=lambda port: NESTING.index(port.site.kind))
    for port in ports:
        if any(isinstance(peer, Adapter) and peer.changes_attention for peer in port.peers.values()):
            route(resolve(base, port.site.entry), port.site)
        resolve(base, port.site.entry).register_forward_pre_hook(port.enter, with_kwargs=True)
    for port in reversed(ports):
        resolve(base, port.site.exit).register_forward_hook(port.leave)
