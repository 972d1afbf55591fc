"""docs/recipes.md lists every key of a recipe, from the models that check it."""

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from speech_peft.audio.degradations.step import BaseStep, Settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    loader = SourceFileLoader("recipe_keys", str(ROOT / "scripts" / "recipe_keys"))
    spec = spec_from_loader("recipe_keys", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_keys_on_the_page_are_those_of_the_code(script):
    assert script.document(script.PAGE.read_text()) == script.PAGE.read_text()


def test_every_key_of_a_part_says_what_it_means(script):
    models = {"": ("", script.Recipe), **script.SECTIONS}
    silent = [
        row[0] for prefix, model in models.values() for row in script.settings(model, prefix) if not row[3]
    ]
    assert silent == []


def test_every_part_step_and_method_has_its_table(script):
    page = script.keys()
    named = {**vars(script.parts), **vars(script.tasks)}.values()
    parts = [value for value in named if isinstance(value, type)]
    parts = [part for part in parts if issubclass(part, script.parts.Part) and part is not script.parts.Part]
    assert {part for _, part in script.SECTIONS.values()} == set(parts)
    steps = [*Settings.__subclasses__(), *BaseStep.__subclasses__()]
    kinds = {step.model_fields["kind"].default for step in steps if step is not BaseStep}
    assert kinds == {step.model_fields["kind"].default for step in script.STEPS}
    assert all(f"#### {name}\n" in page for name in [*kinds, *script.METHODS.names(), *script.DECODERS])
