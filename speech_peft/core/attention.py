"""Keys and values besides a site's own, through transformers' attention interface.

A stock attention module computes queries, keys and values and hands them to the function that its config
names, with every keyword that it does not know itself. So a port adds what its adapters bring as such a
keyword, and `route` lets the config name a function that puts them before the module's own keys and values
and goes on to the function that was named there. No forward is copied, and with no keyword the result is the
stock one.

Each function has its own form of mask, and those whose form is known can be routed. Whoever has the model may
name another (`set_attn_implementation`), so ports route anew where they hand something over.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad

from ..errors import ConfigError
from .site import Site

KEYWORD = "added_keys_values"
ATTENDED = "attended_keys"
ROUTED = "speech_peft_"

Pair = tuple[Float[Tensor, "b p d"], Float[Tensor, "b p d"]]


def route(module: nn.Module, site: Site) -> None:
    """Let this attention module, and all that share its config, take keys and values by keyword.

    Changes nothing where it does already. Raises ConfigError where the module does not use the interface, or
    names a function whose masks are not known here.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as MASKS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as FUNCTIONS

    config: Any = getattr(module, "config", None)
    named: str = getattr(config, "_attn_implementation", None) or "of no name"
    stock = named.removeprefix(ROUTED)
    if stock not in MASKED or _stock(stock, module) is None:
        raise ConfigError(
            f"{site.name}: {type(module).__name__} has an attention {stock!r}, to which no keys can be added "
            f"and none closed; that can be done to {', '.join(MASKED)}, where transformers has them for this "
            'model: model.set_attn_implementation("sdpa")'
        )
    if ROUTED + stock not in FUNCTIONS:
        FUNCTIONS.register(ROUTED + stock, partial(attend, stock))
        MASKS.register(ROUTED + stock, MASKS[stock])
    if named == stock:
        config._attn_implementation = ROUTED + stock


def attentions(block: nn.Module) -> tuple[nn.Module, ...]:
    """Every attention inside a block, which must hand on keywords that it does not know; or the block."""
    inside = [m for m in block.modules() if hasattr(getattr(m, "config", None), "_attn_implementation")]
    return tuple(inside or [block])


def _stock(name: str, module: nn.Module) -> Callable[..., Any] | None:
    """The function of that name for this module; "eager" is one of the module's own file."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as FUNCTIONS

    if name != "eager":
        return FUNCTIONS.get(name)
    files = (vars(sys.modules[kind.__module__]) for kind in type(module).__mro__)
    return next(
        (file["eager_attention_forward"] for file in files if "eager_attention_forward" in file), None
    )


def unroute(module: nn.Module) -> None:
    """Undo `route`, for a copy that is to be the stock module again."""
    config: Any = getattr(module, "config", None)
    name = getattr(config, "_attn_implementation", None)
    if isinstance(name, str) and name.startswith(ROUTED):
        config._attn_implementation = name.removeprefix(ROUTED)


def joined(pairs: Sequence[Pair]) -> Pair:
    """What several adapters bring, one behind the other."""
    keys, values = zip(*pairs, strict=True)
    return torch.cat(keys, 1), torch.cat(values, 1)


def attend(
    stock: str,
    module: nn.Module,
    query: Float[Tensor, "b h q c"],
    key: Float[Tensor, "b h k c"],
    value: Float[Tensor, "b h k c"],
    attention_mask: Any,
    *args: Any,
    added_keys_values: Pair | None = None,
    attended_keys: Bool[Tensor, "b k"] | None = None,
    **kwargs: Any,
) -> Any:
    """The stock attention over the added keys and values and then its own; every query may look at them.

    `attended_keys` closes some, for all queries, counted from the last key. A mask for fewer rows than there
    are is that of a batch which is run several times over, one whole batch behind the other.
    """
    own = key.shape[2]
    if added_keys_values is not None:
        key, value = (
            torch.cat((more.to(t.dtype).unflatten(-1, (t.shape[1], t.shape[3])).transpose(1, 2), t), 2)
            for more, t in zip(added_keys_values, (key, value), strict=True)
        )
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    keys = Keys(query.shape[0], query.shape[2], own, key.shape[2] - own, attended_keys, bool(causal))
    mask = MASKED[stock](attention_mask, keys, query)
    function = _stock(stock, module)
    assert function is not None  # `route` has seen to it
    with _named(module, stock):
        return function(module, query, key, value, mask, *args, **kwargs)


@contextmanager
def _named(module: nn.Module, stock: str) -> Iterator[None]:
    """Some stock functions read their own name in the config, to choose a kernel by it."""
    config: Any = getattr(module, "config", None)
    named = getattr(config, "_attn_implementation", None)
    if named != ROUTED + stock or not stock.startswith("flash"):
        yield
        return
    config._attn_implementation = stock
    try:
        yield
    finally:
        config._attn_implementation = named


# ---- masks, in the form of each function -------------------------------------------------------------------


@dataclass(frozen=True)
class Keys:
    """What is attended to, in numbers."""

    rows: int
    queries: int
    own: int
    """Keys that the module has made."""
    added: int
    """Keys before these."""
    attended: Bool[Tensor, "b k"] | None
    """Which of the last keys may be attended to."""
    causal: bool
    """Whether the module is one whose queries do not see later keys."""

    @property
    def changed(self) -> bool:
        """Whether there is anything but what the module has made."""
        return bool(self.added) or self.attended is not None

    def open(self) -> Bool[Tensor, "b k"]:
        """For all keys, whether they may be attended to."""
        assert self.attended is not None
        return pad(self.attended, (self.added + self.own - self.attended.shape[1], 0), value=True)


def _repeated(mask: Tensor, rows: int) -> Tensor:
    if mask.shape[0] in (1, rows):
        return mask
    return mask.repeat(rows // mask.shape[0], *[1] * (mask.dim() - 1))


def _dense(mask: Tensor | None, keys: Keys, like: Tensor) -> Tensor | None:
    """A mask of [b, h, q, k]: True where open, or what is added to the scores."""
    if mask is not None:
        open_to_all = 0.0 if mask.is_floating_point() else 1
        mask = pad(_repeated(mask, keys.rows), (keys.added, 0), value=open_to_all)
    if keys.attended is None:
        return mask
    attended = keys.open()[:, None, None]
    if mask is None or mask.dtype == torch.bool:
        return attended if mask is None else mask & attended
    return mask.masked_fill(~attended, torch.finfo(mask.dtype).min)


def _scores(mask: Tensor | None, keys: Keys, like: Tensor) -> Tensor | None:
    """The same where it is always added to the scores, of the type of `like`."""
    mask = _dense(mask, keys, like)
    if mask is None or mask.is_floating_point():
        return mask
    lowest = torch.finfo(like.dtype).min
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(~mask, lowest)


def _or_causal(mask: Tensor | None, keys: Keys, like: Tensor) -> Tensor | None:
    """The same, where no mask means that nobody sees later keys, counted from the first: not with others
    before it."""
    if mask is None and keys.changed and keys.causal and keys.queries > 1:
        every = torch.ones(keys.queries, keys.own, dtype=torch.bool, device=like.device)
        mask = every.tril(keys.own - keys.queries)[None, None]
    return _dense(mask, keys, like)


def _flat(mask: Tensor | None, keys: Keys, like: Tensor) -> Tensor | None:
    """A mask of [b, k], True where a key is there. Causal or not, queries are counted from the last key."""
    if mask is not None:
        mask = pad(_repeated(mask, keys.rows), (keys.added, 0), value=1)
    if keys.attended is None:
        return mask
    return keys.open() if mask is None else mask.bool() & keys.open()


def _blocks(mask: Any, keys: Keys, like: Tensor) -> Any:
    """A function of the places of a query and a key, and which blocks of them it opens at all."""
    from torch.nn.attention.flex_attention import BlockMask, create_block_mask

    if mask is not None and not isinstance(mask, BlockMask):
        return _scores(mask, keys, like)
    repeated = mask is not None and mask.shape[0] not in (1, keys.rows)
    if not (keys.changed or repeated) or (mask is None and keys.attended is None):
        return mask
    attended = None if keys.attended is None else keys.open()

    def opened(row: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        found = k < keys.added
        if mask is not None:
            found = found | mask.mask_mod(row % mask.shape[0], head, q, (k - keys.added).clamp(min=0))
        else:
            found = found | (k >= keys.added)
        return found if attended is None else found & attended[row, k]

    return create_block_mask(
        opened, keys.rows, None, keys.queries, keys.added + keys.own, device=str(like.device)
    )


MASKED: dict[str, Callable[[Any, Keys, Tensor], Any]] = {
    "eager": _scores,
    "sdpa": _or_causal,
    "flash_attention_2": _flat,
    "flash_attention_3": _flat,
    "flex_attention": _blocks,
}
"""The functions that keys can be added to, and what becomes of their mask."""
