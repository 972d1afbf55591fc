"""`auto` follows the device, and what is said stands on every device."""

import pytest

from speech_peft.decoders.diffusion.by_device import count_of, drafting, passes, texts
from speech_peft.errors import ConfigError

DEVICES = ("cpu", "cuda", "cuda:1", "mps")


def test_auto_follows_the_device():
    assert texts("auto") == 1
    assert [passes("auto", 1, device) for device in DEVICES] == [8, 16, 16, 16]


def test_passes_that_nothing_ends_early_are_few_on_every_device():
    """A text that is masked anew at random takes all of its passes, and so does a draft."""
    assert {passes("auto", 8, device) for device in DEVICES} == {4}
    assert drafting("auto") == 1


@pytest.mark.parametrize("device", DEVICES)
def test_a_number_stands_on_every_device(device):
    assert texts(3) == 3
    assert {passes(5, candidates, device) for candidates in (1, 8)} == {5}
    assert drafting(5) == 5


@pytest.mark.parametrize("wrong", ["soon", "", "2.0", 0, -1, 65, 2.0, True])
def test_what_is_no_number_of_passes_is_said_with_the_option_s_name(wrong):
    with pytest.raises(ConfigError, match=r"--steps: .* expected a whole number from 1 to 64, or auto"):
        count_of(wrong, "--steps")
