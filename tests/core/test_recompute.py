"""Checkpointing restores the adapters and the context of its own forward pass."""

import copy

import pytest
import torch

from speech_peft.backbones.families import tiny
from speech_peft.compose.merge import merge
from speech_peft.core.model import AdaptedModel
from speech_peft.core.passage.recompute import Recompute
from speech_peft.errors import ConfigError
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.lora import Lora
from tests import toy


def two(recompute: bool) -> AdaptedModel:
    torch.manual_seed(0)
    methods = {
        "ffn": Bottleneck(width=4, zero_up=False, dropout=0.3),
        "tail": Bottleneck(width=4, zero_up=False, sites=("*.tail",)),
    }
    model = AdaptedModel(toy.toy(), toy.sites(), methods)
    if recompute:
        model.recompute()
    return model


def gradients(model: AdaptedModel) -> list[torch.Tensor | None]:
    torch.manual_seed(1)
    with model.using("ffn"):
        loss = model(toy.speech()).square().sum()
    with model.using("tail"):
        model(toy.speech(seed=1)).sum()
    loss.backward()
    return [p.grad for p in model.parameters()]


def test_dropout_and_the_active_adapters_are_those_of_the_forward():
    for plain, recomputed in zip(gradients(two(False)), gradients(two(True)), strict=True):
        assert (plain is None) == (recomputed is None)
        assert plain is None or torch.allclose(plain, recomputed, atol=1e-5)


def test_blocks_run_twice_with_gradients_and_once_without():
    model, runs = two(True), []
    model.base.layers[1].attn.register_forward_hook(lambda *_: runs.append(1))
    model(toy.speech()).sum().backward()
    assert len(runs) == 2
    with torch.no_grad():
        model(toy.speech())
    assert len(runs) == 3


def test_asking_twice_wraps_once():
    model = two(True)
    model.recompute()
    assert not isinstance(model.base.layers[0].forward.forward, Recompute)


def test_a_copy_recomputes_its_own_blocks():
    model = two(True)
    model(toy.speech()).sum().backward()
    twin = copy.deepcopy(model)
    assert twin.base.layers[0].forward.forward.__self__ is twin.base.layers[0]
    assert twin.base.layers[0].forward.current is twin.current


def test_a_merged_model_recomputes_nothing():
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Lora()})
    model.recompute()
    assert not any("forward" in vars(module) for module in merge(model).modules())


def test_a_key_value_cache_is_refused_where_it_would_be_written_twice():
    backbone = tiny("whisper")
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": Bottleneck(width=4)})
    model.recompute()
    states, tokens = torch.randn(1, 10, 32), torch.tensor([[1, 2, 3]])
    decoder = backbone.module.model.decoder
    decoder(
        input_ids=tokens, encoder_hidden_states=states, use_cache=False
    ).last_hidden_state.sum().backward()
    with torch.no_grad():
        decoder(input_ids=tokens, encoder_hidden_states=states, use_cache=True)
    with pytest.raises(ConfigError, match="use_cache=False"):
        decoder(input_ids=tokens, encoder_hidden_states=states, use_cache=True)
