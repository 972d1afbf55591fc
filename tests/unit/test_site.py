"""Sites: paths resolve or name the nearest, globs select or say what there is."""

import pytest

from speech_peft.core.site import resolve, select
from speech_peft.errors import ConfigError
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
