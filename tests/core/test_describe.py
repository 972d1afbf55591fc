"""The table a model gives of itself."""

from speech_peft.core.describe import count, rows
from speech_peft.core.model import AdaptedModel
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.lora import Lora
from tests import toy


def described() -> AdaptedModel:
    model = AdaptedModel(toy.toy(), toy.sites(), {"wide": Bottleneck(width=4), "low": Lora(rank=2)})
    model.activate("low")
    model.trainable("low")
    return model


def test_rows_count_what_is_there_and_what_trains():
    wide, low = rows(described())
    assert (wide.method, wide.sites, wide.trainable) == ("bottleneck", ("layers.0.ffn", "layers.1.ffn"), 0)
    assert low.parameters == low.trainable == 4 * 2 * 2 * toy.DIM
    assert (wide.active, low.active) == (False, True)


def test_the_table_has_a_line_for_the_base_and_one_for_each_adapter():
    base, wide, low = described().describe().splitlines()
    assert base.startswith("Toy: ")
    assert "frozen" in base
    assert "wide (bottleneck, idle): 2 sites" in wide
    assert (
        "low (lora, active): 4 sites (layers.0.attn.q … layers.1.attn.v), 256 parameters, 256 trained" in low
    )


def test_a_shared_parameter_counts_once():
    (parameter, *_) = toy.toy().parameters()
    assert count([parameter, parameter]) == parameter.numel()
