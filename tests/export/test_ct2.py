"""CTranslate2's layout: what is written is read again, number for number."""

import json
from pathlib import Path

import pytest
import torch

from speech_peft.backbones.families import open_backbone, tiny
from speech_peft.errors import ConfigError
from speech_peft.export.ct2 import write_ct2


@pytest.fixture(scope="module")
def whisper():
    return tiny("whisper")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECH_PEFT_CACHE", str(tmp_path / "cache"))


def written(whisper, folder: Path, dtype: str) -> dict[str, torch.Tensor]:
    pytest.importorskip("ctranslate2")
    write_ct2(whisper.module, whisper, folder, dtype)
    return open_backbone("whisper", folder).module.state_dict()


def test_float32_comes_back_bit_for_bit_and_the_model_stays_as_it_was(whisper, tmp_path):
    before = {key: value.clone() for key, value in whisper.module.state_dict().items()}
    after = written(whisper, tmp_path / "ct2", "float32")
    assert after.keys() == before.keys()
    assert not [key for key in before if not after[key].equal(before[key])]


def test_int8_is_off_by_at_most_half_a_step_of_its_row_and_the_model_stays_as_it_was(whisper, tmp_path):
    before = {key: value.clone() for key, value in whisper.module.state_dict().items()}
    after = written(whisper, tmp_path / "ct2", "int8")
    for key, value in whisper.module.state_dict().items():
        assert value.equal(before[key]), key
    for key in (key for key, value in before.items() if value.dim() > 1 and "positions" not in key):
        step = before[key].flatten(1).abs().amax(1) / 127
        off = (after[key] - before[key]).flatten(1).abs().amax(1)
        assert (off <= 0.501 * step).all(), key


def test_tokens_times_and_settings_lie_where_faster_whisper_looks(whisper, tmp_path):
    written(whisper, tmp_path / "ct2", "float16")
    tokens = json.loads((tmp_path / "ct2/vocabulary.json").read_text())
    begin = whisper.generation.timestamp_begin
    assert len(tokens) == whisper.module.config.vocab_size
    assert tokens[whisper.generation.sot] == "<|startoftranscript|>"
    assert tokens[begin : begin + 3] == ["<|0.00|>", "<|0.02|>", "<|0.04|>"]
    assert tokens[-1] == "<|30.00|>"
    config = json.loads((tmp_path / "ct2/config.json").read_text())
    assert config["alignment_heads"] == [[1, 0], [1, 1]]
    features = json.loads((tmp_path / "ct2/preprocessor_config.json").read_text())
    assert features["feature_size"] == 80
    assert (tmp_path / "ct2/tokenizer.json").is_file()


def test_a_failure_leaves_nothing_and_a_full_folder_stays(whisper, tmp_path, monkeypatch):
    pytest.importorskip("ctranslate2")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("kept")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_ct2(whisper.module, whisper, tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["file"]
    monkeypatch.setattr("speech_peft.export.ct2.write_side_files", lambda *_: (_ for _ in ()).throw(KeyError))
    with pytest.raises(KeyError):
        write_ct2(whisper.module, whisper, tmp_path / "new")
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_other_types_and_models_are_refused_by_name(whisper, tmp_path):
    with pytest.raises(ConfigError, match="'int4' is none"):
        write_ct2(whisper.module, whisper, tmp_path / "new", "int4")
    pytest.importorskip("ctranslate2")
    with pytest.raises(ConfigError, match="this is a WhisperModel"):
        write_ct2(whisper.module.model, whisper, tmp_path / "new")
