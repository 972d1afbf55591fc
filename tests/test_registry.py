"""Names to things."""

import subprocess
import sys

import pytest

from speech_peft.core.method import Method
from speech_peft.errors import ConfigError
from speech_peft.registry import METHODS, Registry


def test_methods_are_found_in_their_folder():
    assert {"affine", "bottleneck", "lora"} <= set(METHODS.names())
    assert all(issubclass(METHODS[name], Method) and METHODS[name].name == name for name in METHODS)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'lorra'.*Did you mean 'lora'"):
        METHODS["lorra"]


def test_a_second_thing_of_a_name_is_refused_and_the_first_is_named():
    registry = Registry("speech_peft.methods")
    first = registry.register("mine")(type("First", (), {}))
    assert registry.register("mine")(first) is first
    with pytest.raises(ConfigError, match=r"'mine' is already .*First"):
        registry.register("mine")(type("Second", (), {}))


def test_nothing_is_imported_before_the_first_look_up():
    code = "import sys, speech_peft.registry; assert not {'speech_peft.methods', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
