"""Weights in parts: put together in order, once, or refused by name."""

import pytest

from speech_peft.backbones.checkpoints.joined import join
from speech_peft.backbones.checkpoints.weights import resolve_weights
from speech_peft.errors import ConfigError


@pytest.fixture
def parts(tmp_path):
    folders = tmp_path / "one", tmp_path / "other"
    for number, folder in enumerate(folders, 1):
        folder.mkdir()
        (folder / f"model.bin.part{number}").write_bytes(bytes([number]) * 3)
    (folders[1] / "config.json").write_text("{}")
    return list(folders)


def test_parts_are_one_file_in_their_order_whatever_the_order_of_the_folders(parts, tmp_path):
    folder = join(parts[::-1], tmp_path / "cache", "pkg:a+b")
    assert (folder / "model.bin").read_bytes() == b"\1\1\1\2\2\2"
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.bin"]
    assert join(parts, tmp_path / "cache", "pkg:a+b") == folder  # the same, not made again
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_file_that_was_cut_since_is_put_together_again(parts, tmp_path):
    folder = join(parts, tmp_path / "cache", "pkg:a+b")
    (folder / "model.bin").write_bytes(b"\1\1")
    assert join(parts, tmp_path / "cache", "pkg:a+b") == folder
    assert (folder / "model.bin").read_bytes() == b"\1\1\1\2\2\2"


def test_a_missing_part_and_a_name_twice_are_refused(parts, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.bin is here in parts \[2\]"):
        join(parts[1:], tmp_path / "cache", "pkg:b")
    (parts[0] / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"both .* are config\.json"):
        join(parts, tmp_path / "cache", "pkg:a+b")


def test_the_address_names_the_package_that_is_not_here():
    with pytest.raises(ConfigError, match="no_such_package_2"):
        resolve_weights("pkg:speech_peft/recipes+no_such_package_2/data")
