"""Keys that adapters add: under every stock attention and its form of mask, and whatever is named later."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from speech_peft.backbones.base import Backbone
from speech_peft.backbones.families import tiny
from speech_peft.core.attention import MASKED, Keys, attend
from speech_peft.core.method import Method
from speech_peft.core.model import AdaptedModel
from speech_peft.errors import ConfigError
from speech_peft.methods.coda import Coda
from speech_peft.methods.parscale import ParScale
from speech_peft.methods.prefix import Prefix

LIKE = torch.zeros(1)
AUDIO = 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
THOSE_WITH_KEYS: list[Method] = [
    Prefix(frames=4, init_std=1),
    Coda(width=4, attend="k_to_all"),
    Coda(width=4),
    ParScale(streams=2, frames=3, hidden=4, init_std=1),
]


def opened(name: str = "whisper", attention: str = "sdpa") -> Backbone:
    backbone = tiny(name, context="fit")
    backbone.module.set_attn_implementation(attention)
    return backbone


def states(backbone: Backbone) -> Tensor:
    with torch.no_grad():
        return backbone.encode(backbone.prepare(AUDIO, torch.tensor([8000, 5000]))).states


@pytest.mark.parametrize("method", THOSE_WITH_KEYS, ids=lambda m: m.name)
@pytest.mark.parametrize("name", ["whisper", "ast"])
def test_another_attention_named_after_attaching_switches_nothing_off(name, method):
    torch.manual_seed(0)
    backbone = opened(name)
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": method})
    expected = states(backbone)
    for attention in ("eager", "sdpa"):
        backbone.module.set_attn_implementation(attention)
        torch.testing.assert_close(states(backbone), expected, atol=1e-5, rtol=1e-4)
    with model.using():
        bare = states(backbone)
    assert not torch.allclose(bare, expected, atol=1e-2)


@pytest.mark.parametrize("method", THOSE_WITH_KEYS, ids=lambda m: m.name)
def test_eager_attention_takes_keys_from_the_start(method):
    found = []
    for attention in ("sdpa", "eager"):
        torch.manual_seed(0)
        backbone = opened(attention=attention)
        AdaptedModel(backbone.module, backbone.sites(), {"a": method})
        found.append(states(backbone))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)


def test_an_attention_whose_masks_are_not_known_is_refused_at_once_and_when_named_later():
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as FUNCTIONS

    FUNCTIONS.register("of_somebody", FUNCTIONS["sdpa"])
    known = "eager, sdpa, flash_attention_2, flash_attention_3, flex_attention"
    why = rf"layers\.0\.attn: WhisperAttention has an attention 'of_somebody'.*{known}"
    for before in (True, False):
        backbone = opened()
        if before:
            backbone.module.config._attn_implementation = "of_somebody"
            with pytest.raises(ConfigError, match=why):
                AdaptedModel(backbone.module, backbone.sites(), {"a": Prefix(frames=4)})
        else:
            AdaptedModel(backbone.module, backbone.sites(), {"a": Prefix(frames=4)})
            backbone.module.config._attn_implementation = "of_somebody"
            with pytest.raises(ConfigError, match=why):
                states(backbone)


# --- masks in the form of each function ---

ROWS, OWN, ADDED = 4, 5, 3
HEARD = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
CLOSED = torch.tensor([[True] * 5, [True] * 5, [True, False, True, True, True], [True] * 4 + [False]])


def wanted(causal: bool, heard: bool, closed: bool) -> Tensor:
    """What is open, written out: [b, q, k]."""
    own = torch.ones(ROWS, OWN, OWN, dtype=torch.bool)
    own = own.tril() if causal else own
    own = own & HEARD.repeat(2, 1)[:, None] if heard else own
    own = own & CLOSED[:, None] if closed else own
    return torch.cat((torch.ones(ROWS, OWN, ADDED, dtype=torch.bool), own), 2)


def stock_dense(causal: bool, heard: bool) -> Tensor:
    mask = torch.ones(2, 1, OWN, OWN, dtype=torch.bool)
    return (mask.tril() if causal else mask) & (HEARD[:, None, None] if heard else True)


def stock_blocks(causal: bool, heard: bool) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def opened(row: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return ((q >= k) | (not causal)) & (HEARD[row, k] | (not heard))

    return create_block_mask(opened, 2, None, OWN, OWN, device="cpu")


def dense_of(stock: str, mask: Any, causal: bool) -> Tensor:
    """What a mask in the form of one function opens, [b, q, k], as that function reads it."""
    if mask is None:
        mask = torch.ones(1, 1, OWN, ADDED + OWN, dtype=torch.bool)
        if stock == "sdpa" and causal:
            mask = mask.tril()
    if stock == "flex_attention" and not isinstance(mask, Tensor):
        places = torch.arange(ROWS), torch.arange(OWN), torch.arange(ADDED + OWN)
        row, q, k = torch.meshgrid(*places, indexing="ij")
        return mask.mask_mod(row, torch.zeros_like(row), q, k)
    if mask.dim() == 2:  # flash: causal counts from the last key
        mask = mask[:, None, None].bool().expand(-1, -1, OWN, -1)
    if stock.startswith("flash") and causal:
        mask = mask & torch.ones(OWN, ADDED + OWN, dtype=torch.bool).tril(ADDED)
    mask = mask > -1 if stock == "eager" else mask  # which it adds, a boolean one too
    return mask[:, 0].expand(ROWS, OWN, -1)


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("stock", MASKED)
def test_every_form_of_mask_says_the_same(stock, causal, heard, closed):
    forms: dict[str, Callable[[], Any]] = {
        "eager": lambda: torch.zeros(2, 1, OWN, OWN).masked_fill(~stock_dense(causal, heard), -9e9),
        "sdpa": lambda: stock_dense(causal, True) if heard else None,
        "flex_attention": lambda: stock_blocks(causal, heard),
    }
    given = forms.get(stock, lambda: HEARD if heard else None)()
    keys = Keys(ROWS, OWN, OWN, ADDED, CLOSED if closed else None, causal)
    found = dense_of(stock, MASKED[stock](given, keys, LIKE), causal)
    assert torch.equal(found, wanted(causal, heard, closed))


@torch.no_grad()
@pytest.mark.parametrize("stock", ["flash_attention_2", "flex_attention"])
def test_attentions_that_need_another_machine_are_given_what_they_read(stock, monkeypatch):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as FUNCTIONS

    names = []

    def stands_in(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **kwargs: Any) -> Any:
        names.append(module.config._attn_implementation)
        if mask is not None and not isinstance(mask, Tensor):
            places = (torch.arange(n) for n in (len(q), q.shape[2], k.shape[2]))
            row, i, j = torch.meshgrid(*places, indexing="ij")
            mask = mask.mask_mod(row, torch.zeros_like(row), i, j)[:, None]
        elif mask is not None:
            mask = mask[:, None, None]
        return FUNCTIONS["sdpa"](module, q, k, v, mask, **{**kwargs, "is_causal": False})

    for method in THOSE_WITH_KEYS:
        torch.manual_seed(0)
        backbone = opened()
        AdaptedModel(backbone.module, backbone.sites(), {"a": method})
        expected = states(backbone)
        with monkeypatch.context() as patched:
            patched.setitem(FUNCTIONS._global_mapping, stock, stands_in)
            backbone.module.config._attn_implementation = stock
            torch.testing.assert_close(states(backbone), expected, atol=1e-5, rtol=1e-4)
        if stock.startswith("flash"):
            assert set(names) == {stock}, "it chooses its kernel by this name"


def test_without_anything_added_a_mask_is_what_it_was():
    nothing = Keys(2, OWN, OWN, 0, None, causal=True)
    for stock, change in MASKED.items():
        assert change(None, nothing, LIKE) is None, stock
    same: Any = stock_blocks(causal=True, heard=True)
    assert MASKED["flex_attention"](same, nothing, LIKE) is same
    assert MASKED["sdpa"](None, replace(nothing, queries=1, added=2), LIKE) is None


def test_a_causal_attention_without_a_mask_stays_causal_behind_added_keys():
    q, k, v = (torch.randn(1, 2, OWN, 4) for _ in range(3))
    module = nn.Module()
    module.is_causal = True  # type: ignore[assignment]
    more = (torch.randn(1, 2, 8), torch.randn(1, 2, 8))
    now, _ = attend("sdpa", module, q, k, v, None, added_keys_values=more)
    k[:, :, -1], v[:, :, -1] = 9.0, 9.0
    later, _ = attend("sdpa", module, q, k, v, None, added_keys_values=more)
    torch.testing.assert_close(now[:, :-1], later[:, :-1])
    assert not torch.allclose(now[:, -1], later[:, -1])
