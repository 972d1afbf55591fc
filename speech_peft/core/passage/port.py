"""What happens at a site: its x and its y are handed to the adapters that run there."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ..adapter import Adapter, Mixer
from ..attention import ATTENDED, KEYWORD, Pair, joined, route
from ..context import Context
from ..current import Current, Passage
from ..rows import Rows, Run
from ..selection import Selection
from ..site import Site
from .by_row import Products, low_rank, one_product, runs_of
from .mixing import over, traits

if TYPE_CHECKING:
    from ..method import Method

Peers = dict[str, Adapter | Mixer]

# The keyword under which transformers hands over a module's input when it gives no positional one.
_INPUT_NAMES = ("hidden_states", "input", "inputs")


class Port:
    """One site's two hooks. What entered is kept in the forward's own `Passage` until it leaves.

    The hooks are bound methods, not closures: `copy.deepcopy` of a model then copies its ports with it, where
    a closure would go on running the adapters of the original.
    """

    def __init__(self, site: Site, peers: Peers, methods: Mapping[str, "Method"], current: Current):
        self.site, self.peers, self.current = site, peers, current
        self.over = {name: over(name, peers) for name in peers}
        """What runs inside each mixer here, mixers inside it included."""
        self.reads = {n: {f: m for m in (n, *self.over[n]) for f in sorted(methods[m].reads)} for n in peers}
        self.traits = {name: traits(name, peers) for name in peers}
        shaping = (n for n in peers if not (methods[n].keeps_length and methods[n].keeps_batch))
        self.shaping = set(shaping)
        self.filters = {n for n in peers if any(_filters(m, peers, methods) for m in (n, *self.over[n]))}
        """Those for which it matters what frame follows which."""
        self._planned: tuple[Rows | None, tuple[Run, ...]] = None, ()
        """The last plan for a batch whose rows differ: it is the same at every token."""
        self._products = Products()
        self.keys: tuple[nn.Module, ...] = ()
        """The modules at `site.keys`, where an adapter here selects frames."""
        self.attentions: tuple[nn.Module, ...] = ()
        """The attentions that get keywords of this port."""

    def _running(self, active: tuple[str, ...]) -> list[str]:
        """Of the active adapters those here, in order, and last those that take frames or rows away again.

        Where an active mixer sits over an adapter, that adapter runs inside it, and not also by itself.
        """
        here = [name for name in active if name in self.peers]
        running = [n for n in here if not any(n in self.over[mixer] for mixer in here)]
        return [n for n in running if n not in self.shaping] + [n for n in running if n in self.shaping]

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Forward pre-hook of the entry module: note x, and let the adapters change what the base sees."""
        if not self._running(self.current.active):
            return None
        key = None if args else next((name for name in _INPUT_NAMES if name in kwargs), None)
        if not args and key is None:
            raise ConfigError(
                f"{self.site.name}: {self.site.entry} was called with {', '.join(kwargs) or 'nothing'}; "
                f"expected its input first, or as one of {', '.join(_INPUT_NAMES)}"
            )
        x: Tensor = args[0] if key is None else kwargs[key]
        rows, frames = x.shape[:2]
        outside = self.current.begin(self).for_rows(rows)
        runs = self._runs(outside.rows, x.device)
        running = [run.name for run in runs]
        for run in runs:
            self._check_context(run.name, outside)
            x = self._entered(run, x, outside)
        ctx = outside.widened(x.shape[1] - frames).repeated(x.shape[0] // rows if rows else 1)
        selection = self._selected(running, x, ctx)
        passage = Passage(self, ctx, ctx, runs, x, selection)
        if selection is not None:
            kwargs = {**kwargs, **self._keys(selection, x)}
            x = selection.take(x)
            passage.inside = ctx.narrowed(selection.frames, selection.taken)
        if added := self._all_added(running, x, passage.inside):
            kwargs = {**kwargs, KEYWORD: joined([*added, *([kwargs[KEYWORD]] if KEYWORD in kwargs else [])])}
        if KEYWORD in kwargs or ATTENDED in kwargs:
            for attention in self.attentions:  # somebody may have named another function since
                route(attention, self.site)
        self.current.passages.append(passage)
        return ((x, *args[1:]), kwargs) if key is None else (args, {**kwargs, key: x})

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Forward hook of the exit module: rewrite y, the output or the first item of an output tuple.

        Called after an error too, with no output: what entered is then forgotten.
        """
        passage = self.current.close(self)
        if output is None:
            return None
        if passage is None:
            if running := self._running(self.current.active):
                raise ConfigError(
                    f"{self.site.name}: left without having been entered, and adapter {running[0]!r} sits "
                    f"there. Run all modules from {self.site.entry} to {self.site.exit}, in one forward"
                )
            return None
        y: Tensor = output[0] if isinstance(output, tuple) else output
        assert passage.x is not None
        if passage.selection is not None:
            y = passage.selection.put_back(passage.x, y)
        y = self._left(passage.running, module, passage.x, y, passage.ctx)
        return (y, *output[1:]) if isinstance(output, tuple) else y

    # ---- one path to an adapter: alone, or inside a mixer --------------------------------------------------

    def _before(self, name: str, x: Tensor, ctx: Context) -> Tensor:
        """What the base sees instead of x, where this adapter has a say in it."""
        if not self.traits[name].changes_input:
            return x
        peer = self.peers[name]
        own = _cast(x, peer.dtype)
        if isinstance(peer, Adapter):
            return peer.before(own, ctx).to(x.dtype)
        inputs = [_cast(self._before(one, x, ctx), peer.dtype) for one in peer.over]
        return peer.before(own, inputs, ctx).to(x.dtype)

    def _added(self, name: str, x: Tensor, ctx: Context) -> Pair | None:
        """Keys and values that this adapter lets the site's attention see besides its own."""
        peer = self.peers[name]
        if isinstance(peer, Adapter) and self.traits[name].changes_attention:
            return peer.added(_cast(x, peer.dtype), ctx)
        return None

    def _select(self, name: str, x: Tensor, ctx: Context) -> Selection | None:
        """The frames that this adapter lets the base work on."""
        peer = self.peers[name]
        if isinstance(peer, Adapter) and self.traits[name].selects_frames:
            return peer.select(_cast(x, peer.dtype), ctx)
        return None

    def _rewrite(self, name: str, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """The one dtype policy: an adapter computes in its own precision, and y keeps the base's."""
        peer = self.peers[name]
        x_own, y_own = _cast(x, peer.dtype), _cast(y, peer.dtype)
        if isinstance(peer, Adapter):
            return peer(x_own, y_own, ctx).to(y.dtype)
        outputs = [_cast(self._rewrite(one, x, y, ctx), peer.dtype) for one in peer.over]
        return peer(x_own, y_own, outputs, ctx).to(y.dtype)

    # ---- for some rows of the batch ------------------------------------------------------------------------

    def _runs(self, rows: Rows | None, device: torch.device) -> tuple[Run, ...]:
        if rows is None:
            return tuple(map(Run, self._running(self.current.active)))
        if rows != self._planned[0]:
            self._planned = rows, runs_of(rows, self._running, device)
        return self._planned[1]

    def _entered(self, run: Run, x: Tensor, ctx: Context) -> Tensor:
        if run.rows is None or not self.traits[run.name].changes_input:
            return self._before(run.name, x, ctx)
        own = self._before(run.name, x[run.rows], ctx.picked(run.rows))
        return x.index_copy(0, run.rows, own)

    def _left(self, runs: tuple[Run, ...], module: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        differ = any(run.rows is not None for run in runs)
        if differ and self.site.entry == self.site.exit and x.dim() == 3:
            loras = low_rank(runs, self.peers, module)
            if loras is not None:
                return one_product(self._products.of(runs, loras, len(x)), x, y)
        for run in runs:
            if run.rows is None:
                y = self._rewrite(run.name, x, y, ctx)
            else:
                own = self._rewrite(run.name, x[run.rows], y[run.rows], ctx.picked(run.rows))
                y = y.index_copy(0, run.rows, own)
        return y

    # ---- all that run here ---------------------------------------------------------------------------------

    def _all_added(self, running: list[str], x: Tensor, ctx: Context) -> list[Pair]:
        found = [self._added(name, x, ctx) for name in running]
        return [pair for pair in found if pair is not None]

    def _selected(self, running: list[str], x: Tensor, ctx: Context) -> Selection | None:
        """Which frames the frozen modules work on, where an adapter says so; ConfigError where two do."""
        found: Selection | None = None
        for name in running:
            chosen = self._select(name, x, ctx)
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

    def _check_context(self, name: str, ctx: Context) -> None:
        for field, whose in self.reads[name].items():
            if getattr(ctx, field) is None:
                raise ConfigError(
                    f"{self.site.name}: adapter {whose!r} reads Context.{field}, and this forward pass gave "
                    f"none. Call model(..., ctx=Context({field}=...))."
                )
        if ctx.gathered and name in self.filters:
            raise ConfigError(
                f"{self.site.name}: adapter {name!r} sees neighbouring frames, and around it another adapter "
                "lets only some frames pass, which are no neighbours. Activate one of them, or place it at "
                "the site of the other or around it"
            )


class Room:
    """The hooks of a module that a span lies in: what the span left open goes when the module has run."""

    def __init__(self, current: Current):
        self.current = current

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Forward pre-hook."""
        here = self.current.here
        self.current.passages.append(Passage(self, here, here, room=True))

    def leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Forward hook, called after an error too."""
        self.current.close(self)


def _filters(name: str, peers: Peers, methods: Mapping[str, "Method"]) -> bool:
    """Whether a frame's change depends on the frames around it; whoever chooses among frames takes any."""
    peer = peers[name]
    return methods[name].sees_neighbours and not (isinstance(peer, Adapter) and peer.selects_frames)


def _cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor if dtype is None else tensor.to(dtype)
