"""docs/methods.md is generated, and what it says of a method is found out and not typed."""

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from speech_peft.methods.hydra import Hydra
from speech_peft.methods.lora import Lora
from speech_peft.methods.prompt import Prompt
from speech_peft.registry import METHODS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    loader = SourceFileLoader("methods_table", str(ROOT / "scripts" / "methods_table"))
    spec = spec_from_loader("methods_table", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_page_is_what_the_code_says(script):
    assert (ROOT / "docs" / "methods.md").read_text() == script.document()
    text = (ROOT / "docs" / "results.md").read_text()
    assert script.results(text) == text
    assert "<!-- compared -->" in text


def test_costs_are_those_that_are_known(script):
    """In Whisper tiny's encoder: 4 blocks, 384 wide, 1536 inside."""
    assert script.cost(Lora(rank=8)) == {"trains": 49_152, "file_bytes": 4 * 49_152}
    assert script.cost(Hydra(bias=False))["trains"] == 33_792


def test_what_merges_is_tried(script):
    lora, prompt = script.facts(Lora), script.facts(Prompt)
    assert (lora.merges, lora.as_lora, script.exempt(Lora, lora)) == ("yes", "yes", "–")
    assert (prompt.merges, prompt.as_lora) == ("no", "no")
    assert script.exempt(Prompt, prompt) == "identity, merge, shapes"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("T.\n\n    y' = y + A x,      y = W x\n", "y' = y + A x"),
        ("T.\n\n    W = U S V^T\n    forward      y' = W x      nothing more\n", "y' = W x"),
        ("T.\n\n    A(h) = s U h,     s = 1\n\n    parallel   y' = y + A(x)\n", "A(h) = s U h"),
        ("T.\n\ny' = y + t\n", "y' = y + t"),
        ("T.\n\n    split    M_1 + M_2 = 1, at random\n    merge    W'  = M_1 W\n", "W' = M_1 W"),
        ("T, without one.", ""),
    ],
)
def test_the_equation_is_the_docstrings_first(script, text, found):
    assert script.equation(text) == found


def test_every_method_opens_with_an_equation(script):
    assert [name for name in METHODS if not script.equation(script.about(METHODS[name]))] == []


def test_a_setting_is_explained_by_the_line_below_it(script):
    from speech_peft.recipe import fields

    assert fields.documented(Lora)["bias"].startswith("Whether a bias trains along")
    assert "Globs over site names." in fields.documented(Lora)["sites"]


def test_settings_are_shown_as_a_recipe_has_them(script):
    host = {"method": "lora", "rank": 4}
    assert script.given(METHODS["sparse"](of=host, density=0.5)) == {
        "method": "sparse",
        "sites": ("*.attn.[qv]",),
        "of": host,
        "density": 0.5,
    }
