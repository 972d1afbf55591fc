"""Sites: paths resolve or name the nearest, globs select or say what there is."""

import pytest

from speech_peft.core.method import Method
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import Site, resolve, select, topmost
from speech_peft.errors import ConfigError
from speech_peft.methods.bottleneck import Bottleneck
from tests import toy


def test_globs_select_in_model_order_and_each_site_once():
    names = [site.name for site in select(toy.sites(), ("*.ffn", "layers.1.f?n", "layers.0.attn"))]
    assert names == ["layers.0.attn", "layers.0.ffn", "layers.1.ffn"]


def test_a_glob_for_a_sublayer_leaves_out_its_linears():
    assert {site.kind for site in select(toy.sites(), ("*.attn",))} == {"attn"}


def test_a_glob_that_matches_nothing_is_refused_with_the_nearest_names():
    with pytest.raises(ConfigError, match=r"no site matches 'layers\.0\.fnn'.*'layers\.0\.ffn'"):
        select(toy.sites(), ("*.attn", "layers.0.fnn"))


def test_a_module_path_that_drifted_names_the_nearest_paths():
    with pytest.raises(ConfigError, match=r"Toy has no module 'layers\.0\.atn'\. Nearest: layers\.0\.attn"):
        resolve(toy.toy(), "layers.0.atn")


def test_an_unknown_path_with_nothing_near_says_none():
    with pytest.raises(ConfigError, match="Nearest: none"):
        resolve(toy.toy(), "zzzzzzzz")


def chosen_by(method: Method) -> list[str]:
    return [site.name for site in AdaptedModel(toy.toy(), toy.sites(), {"a": method}).sites["a"]]


def test_top_keeps_the_highest_blocks_of_what_the_globs_choose():
    assert chosen_by(Bottleneck(width=4, top=1)) == ["layers.1.ffn"]
    assert chosen_by(Bottleneck(width=4, top=2)) == ["layers.0.ffn", "layers.1.ffn"]


@pytest.mark.parametrize(("top", "blocks"), [(0.1, 1), (0.5, 1), ("1/2", 1), ("2/3", 1), (0.9, 2)])
def test_top_as_a_share_is_rounded_to_at_least_one_block(top, blocks):
    assert len(chosen_by(Bottleneck(width=4, top=top))) == blocks


def test_top_counts_in_each_stack_and_keeps_what_follows_it():
    sites = [
        Site(name, kind, "", "", 8, 8)
        for name, kind in (
            ("stack", "stack"),
            *((f"layers.{i}.ffn", "ffn") for i in range(11)),
            ("norm", "norm"),
            ("decoder.stack", "stack"),
            *((f"decoder.layers.{i}.ffn", "ffn") for i in range(2)),
        )
    ]
    kept = [site.name for site in topmost(sites, sites, 2)]
    assert kept == ["layers.9.ffn", "layers.10.ffn", "norm", "decoder.layers.0.ffn", "decoder.layers.1.ffn"]


def test_top_beyond_the_stack_or_with_nothing_left_is_refused():
    with pytest.raises(
        ConfigError, match=r"3 blocks were asked for, and layers\.0\.ffn lies in a stack of 2"
    ):
        chosen_by(Bottleneck(width=4, top=3))
    with pytest.raises(ConfigError, match=r"none of the chosen sites lies in the top blocks \(1\): stack"):
        chosen_by(Bottleneck(width=4, top=1, sites=("stack",)))


@pytest.mark.parametrize("top", [0, -1, 1.0, 1.5, "a third", "1/0", True])
def test_top_is_a_number_of_blocks_or_a_share(top):
    with pytest.raises(ValueError, match="top"):
        Bottleneck(width=4, top=top)
