"""What `import speech_peft as sp` gives, and what it costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import speech_peft as sp
from speech_peft.errors import ConfigError
from speech_peft.registry import METHODS

STUB = Path(sp.__file__).with_suffix(".pyi")


def test_importing_the_package_imports_no_torch_and_no_transformers():
    heavy = {"torch", "transformers", "lightning", "pydantic"}
    code = f"import sys, speech_peft; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


@pytest.mark.parametrize("name", sp._PUBLIC)
def test_every_public_name_is_there(name):
    assert getattr(sp, name).__name__ == name


def test_the_stub_tells_type_checkers_the_same_names_from_the_same_modules():
    imports = [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ImportFrom)]
    assert {node.names[0].name: node.module for node in imports} == sp._PUBLIC
    assert all(node.names[0].asname == node.names[0].name for node in imports)


def test_every_registered_method_is_a_public_name_and_no_two_are_called_alike():
    classes = {method.__name__: method for method in METHODS.values()}
    assert len(classes) == len(METHODS)
    assert not classes.keys() & sp._PUBLIC.keys()
    assert {name: getattr(sp, name) for name in classes} == classes
    assert {*classes, *sp._PUBLIC} <= set(dir(sp))


def test_a_method_of_another_distribution_is_one_too(monkeypatch):
    class Another(sp.Method):
        pass

    monkeypatch.setitem(METHODS._load(), "another", Another)
    assert sp.Another is Another


@pytest.mark.parametrize(
    ("name", "hint"), [("Lorra", "Lora"), ("lod", "load"), ("Transcribe", "Transcriber")]
)
def test_a_name_that_is_not_there_is_an_error_with_the_nearest(name, hint):
    with pytest.raises(AttributeError, match=rf"no attribute '{name}'\. Did you mean .*'{hint}'"):
        getattr(sp, name)


def test_a_wrong_field_of_a_method_is_told_as_a_recipe_tells_it():
    with pytest.raises(ConfigError, match=r"^r: Lora has no field 'r'\. Did you mean 'rank'\?$"):
        sp.Lora(r=8)
    with pytest.raises(ConfigError, match=r"^rank: got 0 \(int\)"):
        sp.Lora(rank=0)


@pytest.mark.parametrize("kind", [sp.Transcriber, sp.Classifier, sp.Restorer])
def test_a_wrong_option_is_told_likewise_before_anything_is_opened(kind):
    name = kind.__name__
    with pytest.raises(
        ConfigError, match=rf"^chanels: {name} has no option 'chanels'\. Did you mean 'channels'"
    ):
        kind("no/such/folder", chanels="first")
