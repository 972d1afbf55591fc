"""Keys and values besides a site's own, through transformers' attention interface.

A stock attention module computes queries, keys and values and hands them to the function that its config
names, with every keyword that it does not know itself. So a port adds what its adapters bring as such a
keyword, and `route` lets the config name a function that puts them before the module's own keys and values
and goes on to the function that was named there. No forward is copied, and with no keyword the result is the
stock one.
"""

from collections.abc import Callable, Sequence
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

    Raises ConfigError where the module does not use the interface.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as MASKS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as FUNCTIONS

    config: Any = getattr(module, "config", None)
    stock: str = getattr(config, "_attn_implementation", None) or "of no name"
    if stock.startswith(ROUTED):
        return
    if stock not in FUNCTIONS:
        raise ConfigError(
            f"{site.name}: {type(module).__name__} has an attention {stock!r}, to which no keys can be "
            'added; transformers has others, such as "sdpa": model.set_attn_implementation("sdpa")'
        )
    FUNCTIONS.register(ROUTED + stock, partial(attend, FUNCTIONS[stock]))
    MASKS.register(ROUTED + stock, MASKS[stock])
    config._attn_implementation = ROUTED + stock


def route_inside(block: nn.Module, site: Site) -> None:
    """The same for every attention inside a block; the block must hand on keywords that it does not know."""
    inside = [m for m in block.modules() if hasattr(getattr(m, "config", None), "_attn_implementation")]
    for module in inside or [block]:
        route(module, site)


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
    stock: Callable[..., Any],
    module: nn.Module,
    query: Float[Tensor, "b h q c"],
    key: Float[Tensor, "b h k c"],
    value: Float[Tensor, "b h k c"],
    attention_mask: Tensor | None,
    *args: Any,
    added_keys_values: Pair | None = None,
    attended_keys: Bool[Tensor, "b k"] | None = None,
    **kwargs: Any,
) -> Any:
    """The stock attention over the added keys and values and then its own; every query may look at them.

    `attended_keys` closes some, for all queries, counted from the last key. A mask for fewer rows than there
    are is that of a batch which is run several times over, one whole batch behind the other.
    """
    if attention_mask is not None and attention_mask.shape[0] not in (1, query.shape[0]):
        attention_mask = attention_mask.repeat(query.shape[0] // attention_mask.shape[0], 1, 1, 1)
    if added_keys_values is not None:
        key, value = (
            torch.cat(
                (more.to(own.dtype).unflatten(-1, (own.shape[1], own.shape[3])).transpose(1, 2), own), 2
            )
            for more, own in zip(added_keys_values, (key, value), strict=True)
        )
        if attention_mask is not None:
            open_to_all = 0.0 if attention_mask.is_floating_point() else 1
            attention_mask = pad(attention_mask, (added_keys_values[0].shape[1], 0), value=open_to_all)
    if attended_keys is not None:
        attention_mask = _closed(attention_mask, attended_keys, key.shape[2])
    return stock(module, query, key, value, attention_mask, *args, **kwargs)


def _closed(mask: Tensor | None, attended: Bool[Tensor, "b k"], keys: int) -> Tensor:
    """A mask that is closed as well where a key is not attended to."""
    attended = pad(attended, (keys - attended.shape[1], 0), value=True)[:, None, None]
    if mask is None or mask.dtype == torch.bool:
        return attended if mask is None else mask & attended
    return mask.masked_fill(~attended, torch.finfo(mask.dtype).min)
