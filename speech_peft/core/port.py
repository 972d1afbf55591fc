"""The only code that hooks a frozen model: it hands a site's x and y to the adapters that are active."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..errors import ConfigError
from .adapter import Adapter, Mixer
from .attention import ATTENDED, KEYWORD, Pair, joined, route, route_inside
from .context import Context, Current
from .selection import Selection
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
        shaping = (n for n in peers if not (methods[n].keeps_length and methods[n].keeps_batch))
        self.shaping = set(shaping)
        self.keys: tuple[nn.Module, ...] = ()
        """The modules at `site.keys`, where an adapter here selects frames."""
        self.x: Tensor | None = None
        self.selection: Selection | None = None
        self.outside: Context | None = None
        self.of_x: Context | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A recomputed block may stop between enter and leave; what it left here is no part of a copy.
        return {**self.__dict__, "x": None, "selection": None, "outside": None, "of_x": None}

    def _running(self) -> list[str]:
        """The active adapters here, in order, and last those that take frames or rows away again."""
        running = [name for name in self.current.active if name in self.peers]
        return [n for n in running if n not in self.shaping] + [n for n in running if n in self.shaping]

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
        rows, frames = x.shape[:2]
        for name in running:
            self._check_context(name)
            peer = self.peers[name]
            if isinstance(peer, Adapter) and peer.changes_input:
                x = peer.before(_cast(x, peer.dtype), self.current.ctx).to(x.dtype)
        self.x = x
        of_x = self.current.ctx.widened(x.shape[1] - frames).repeated(x.shape[0] // rows if rows else 1)
        self.selection = self._selected(running, x, of_x)
        if self.selection is not None:
            kwargs = {**kwargs, **self._keys(self.selection, x)}
            x = self.selection.take(x)
        self._step_inside(of_x)
        if added := self._added(running, x):
            kwargs = {**kwargs, KEYWORD: joined([*added, *([kwargs[KEYWORD]] if KEYWORD in kwargs else [])])}
        return ((x, *args[1:]), kwargs) if key is None else (args, {**kwargs, key: x})

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Forward hook of the exit module: rewrite y, the output or the first item of an output tuple."""
        running = self._running()
        if not running:
            return None
        x, self.x = self.x, None
        assert x is not None, f"{self.site.name}: left without having been entered"
        y: Tensor = output[0] if isinstance(output, tuple) else output
        if self.selection is not None:
            y, self.selection = self.selection.put_back(x, y), None
            self.current.ctx, self.of_x = self.of_x or self.current.ctx, None
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

    def _selected(self, running: list[str], x: Tensor, ctx: Context) -> Selection | None:
        """Which frames the frozen modules work on, where an adapter says so; ConfigError where two do."""
        found: Selection | None = None
        for name in running:
            peer = self.peers[name]
            if isinstance(peer, Adapter) and peer.selects_frames:
                chosen = peer.select(_cast(x, peer.dtype), ctx)
                if chosen is not None and found is not None:
                    raise ConfigError(
                        f"{self.site.name}: adapter {name!r} and another both select frames here. "
                        "Activate one of them"
                    )
                found = found or chosen
        return found

    def _keys(self, selection: Selection, x: Tensor) -> dict[str, Any]:
        """Keywords for the attention inside: keys of frames that are not worked on, and what is closed."""
        found: dict[str, Any] = {}
        if selection.others is not None:
            norm, key, value = self.keys
            others = norm(selection.take_others(x))
            found[KEYWORD] = key(others), value(others)
        if selection.attended is not None:
            found[ATTENDED] = selection.attended
        return found

    def _step_inside(self, of_x: Context) -> None:
        """Inside the site the context is about the frames and rows that pass there."""
        inside, chosen = of_x, self.selection
        if chosen is not None:
            inside, self.of_x = of_x.narrowed(chosen.frames, chosen.taken), of_x
        self.outside = None if inside is self.current.ctx else self.current.ctx
        self.current.ctx = inside

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
    """Hook every port onto the base: outermost sites enter first and leave last.

    Of one kind, only spans of blocks share a module; those that begin lower come first in `ports`.
    """
    ports = sorted(ports, key=lambda port: NESTING.index(port.site.kind))
    for port in ports:
        if any(isinstance(peer, Adapter) and peer.changes_attention for peer in port.peers.values()):
            route(resolve(base, port.site.entry), port.site)
        if any(isinstance(peer, Adapter) and peer.selects_frames for peer in port.peers.values()):
            _open_to_selection(port, base)
        resolve(base, port.site.entry).register_forward_pre_hook(port.enter, with_kwargs=True)
    for port in reversed(ports):
        resolve(base, port.site.exit).register_forward_hook(port.leave)


def _open_to_selection(port: Port, base: nn.Module) -> None:
    """A block's attention must take keys by keyword; a feed-forward sublayer has none."""
    if port.site.kind == "block":
        route_inside(resolve(base, port.site.entry), port.site)
    port.keys = tuple(resolve(base, path) for path in port.site.keys)
