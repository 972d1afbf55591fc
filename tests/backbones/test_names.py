"""Short names of weights: the hub's, an installed package's without a network, and a folder before both."""

import pytest

from speech_peft.backbones.checkpoints import names
from speech_peft.backbones.checkpoints.weights import resolve_weights
from speech_peft.errors import ConfigError


@pytest.fixture(autouse=True)
def _nothing_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(names, "_in_cache", lambda name: False)
    monkeypatch.setattr(names, "_installed", lambda address: True)


@pytest.mark.parametrize("name", names.NAMES)
def test_a_short_name_is_the_hubs_weights(name):
    assert names.full_address(name) == names.NAMES[name]


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_without_a_network_an_installed_package_has_them(name, monkeypatch):
    assert names.full_address(name, offline=True) == names.PACKAGES[name]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert names.full_address(name) == names.PACKAGES[name]
    monkeypatch.setattr(names, "_in_cache", lambda name: True)
    assert names.full_address(name) == names.NAMES[name]


def test_without_the_package_the_hubs_name_stays_and_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(names, "_installed", lambda address: False)
    assert names.full_address("base", offline=True) == "openai/whisper-base"


def test_a_folder_of_that_name_comes_first(tmp_path):
    (tmp_path / "base").mkdir()
    assert names.full_address("base", offline=True) == "base"


@pytest.mark.parametrize("address", ["me/base", "pkg:a/b", "./base", "basis"])
def test_other_addresses_stay_as_they_are(address):
    assert names.full_address(address, offline=True) == address


def test_a_name_that_is_nearly_one_is_told():
    with pytest.raises(ConfigError, match="Did you mean 'small'"):
        resolve_weights("smal")
