"""Where adapters come from; the hub itself is replaced."""

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from speech_peft.core.saved.hub import PATTERNS, locate
from speech_peft.errors import ConfigError


def test_an_existing_folder_wins(tmp_path, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate("org/name").samefile(tmp_path / "org" / "name")


def test_a_repository_is_fetched_without_anything_that_runs_code(tmp_path, monkeypatch):
    asked = {}

    def snapshot(address, **options):
        asked.update(options, address=address)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert locate("org/name", revision="v1", offline=True) == tmp_path
    assert asked == {
        "address": "org/name",
        "revision": "v1",
        "allow_patterns": PATTERNS,
        "local_files_only": True,
    }
    assert not [pattern for pattern in PATTERNS if pattern.endswith((".bin", ".pt", ".pkl", ".py", "*"))]


def test_what_the_hub_lacks_is_an_error_with_the_address_and_the_revision(monkeypatch):
    def snapshot(address, **options):
        raise LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(ConfigError, match=r"org/name \(revision main\).*offline.*not in the cache"):
        locate("org/name", offline=True)


@pytest.mark.parametrize("address", ["./absent", "/absent/folder", "absent", "a/b/c", "~/absent"])
def test_what_can_be_no_repository_is_not_looked_for_on_the_hub(address):
    with pytest.raises(ConfigError, match=r"no adapter folder at .*adapter\.json"):
        locate(address)


def test_a_file_is_no_adapter_folder(tmp_path):
    (tmp_path / "adapter.json").write_text("{}")
    with pytest.raises(ConfigError, match="no adapter folder"):
        locate(tmp_path / "adapter.json")


def test_a_name_the_hub_cannot_have_is_an_error_of_the_same_kind():
    with pytest.raises(ConfigError, match=r"org/na me"):
        locate("org/na me")
