"""Adapter folders shown, compared, merged and converted, on a tiny random Whisper saved as a folder."""

from pathlib import Path
from typing import Any

import pytest

from speech_peft.cli import adapters as adapters_cli


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from speech_peft.backbones.families import tiny

    folder = tmp_path_factory.mktemp("whisper")
    backbone: Any = tiny("whisper")
    backbone.module.save_pretrained(folder)
    # Its tokeniser knows no languages.
    (folder / "generation_config.json").write_text('{"is_multilingual": false}')
    backbone.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def lora(weights: Path, tmp_path: Path) -> Path:
    return make(weights, tmp_path / "lora", "lora", rank=4)


def make(weights: Path, folder: Path, method: str, **settings: object) -> Path:
    import torch

    from speech_peft.backbones.families import open_backbone
    from speech_peft.core.model import AdaptedModel
    from speech_peft.core.saved.save import write
    from speech_peft.registry import METHODS

    backbone = open_backbone("whisper", weights)
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": METHODS[method](**settings)})
    with torch.no_grad():
        for parameter in model.parameters_of("a"):
            parameter.normal_(std=0.1)
    return write(folder, model, "a", backbone.card())


def test_show_names_method_sites_and_backbone(lora: Path, capsys: pytest.CaptureFixture[str]):
    assert adapters_cli.main(["show", str(lora)]) == 0
    output = capsys.readouterr().out
    assert "lora" in output
    assert "layers.0.attn.q" in output
    assert "d=32, 2 layers" in output


def test_diff_is_0_for_equal_and_1_for_different_adapters(
    weights: Path, lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert adapters_cli.main(["diff", str(lora), str(lora)]) == 0
    other = make(weights, tmp_path / "other", "lora", rank=2)
    assert adapters_cli.main(["diff", str(lora), str(other)]) == 1
    assert "layers.0.attn.q.a: shape (4, 32) | (2, 32)" in capsys.readouterr().out


def test_a_peft_round_trip_changes_no_number(weights: Path, lora: Path, tmp_path: Path):
    peft, back = tmp_path / "peft", tmp_path / "back"
    assert adapters_cli.main(["export-peft", str(lora), "-o", str(peft)]) == 0
    arguments = ["import-peft", str(peft), "-o", str(back), "--weights", str(weights)]
    assert adapters_cli.main(arguments) == 0
    ours, theirs = (adapters_cli._tensors(folder / "adapter.safetensors") for folder in (lora, back))
    assert ours.keys() == theirs.keys()
    assert all(ours[key].equal(theirs[key]) for key in ours)


def test_what_merges_and_is_no_lora_goes_to_peft_as_the_nearest_one(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    dense = make(weights, tmp_path / "dense", "hd_pissa", workers=2, rank=2, sites=("*.attn.q",))
    assert adapters_cli.main(["export-peft", str(dense), "-o", str(tmp_path / "peft")]) == 2
    assert "hd_pissa, and at layers.0.attn.q" in capsys.readouterr().err
    errors = []
    for rank in (1, 4):  # the change that `make` makes has rank 4
        out = str(tmp_path / f"rank{rank}")
        assert adapters_cli.main(["export-peft", str(dense), "-o", out, "--rank", str(rank)]) == 0
        errors.append(float(capsys.readouterr().out.split("at most ")[1].split(" %")[0]))
    assert errors[0] > 10
    assert errors[1] < 1e-3


def test_a_merged_folder_opens_as_stock_weights_with_every_side_file(
    weights: Path, lora: Path, tmp_path: Path
):
    from speech_peft.backbones.families import open_backbone

    merged = tmp_path / "merged"
    assert adapters_cli.main(["merge", str(lora), "-o", str(merged)]) == 0
    side_files = {file.name for file in weights.iterdir() if file.suffix in (".json", ".txt")}
    assert side_files <= {file.name for file in merged.iterdir()}
    before = open_backbone("whisper", weights).module.state_dict()
    after = open_backbone("whisper", merged).module.state_dict()
    changed = {key for key in before if not before[key].equal(after[key])}
    assert changed == {
        key
        for key in before
        if key.endswith(("q_proj.weight", "v_proj.weight")) and "encoder_attn" not in key
    }


def test_a_trained_base_and_companions_are_merged_too(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    import torch

    from speech_peft.backbones.families import open_backbone
    from speech_peft.core.model import AdaptedModel
    from speech_peft.core.saved.save import write
    from speech_peft.methods.lora import Lora

    backbone = open_backbone("whisper", weights)
    before = {key: value.clone() for key, value in backbone.module.state_dict().items()}
    methods = {"a": Lora(rank=2, sites=("layers.0.attn.q",)), "b": Lora(rank=2, sites=("layers.1.attn.v",))}
    model = AdaptedModel(backbone.module, backbone.sites(), methods)
    trained = backbone.encoder_parameters()
    with torch.no_grad():
        for parameter in [*model.parameters_of("a"), *model.parameters_of("b")]:
            parameter.normal_(std=0.1)
        for parameter in trained.values():
            parameter.add_(0.1)
    for name, together in {"a": {"a": ".", "b": "../b"}, "b": {"a": "../a", "b": "."}}.items():
        write(tmp_path / name, model, name, backbone.card(), base=trained, together=together)
    assert adapters_cli.main(["merge", str(tmp_path / "a"), "-o", str(tmp_path / "merged")]) == 0
    assert "merged with b too" in capsys.readouterr().out
    merged = open_backbone("whisper", tmp_path / "merged")
    features = merged.prepare(torch.randn(1, 8000), torch.tensor([8000]))
    with torch.no_grad():
        wanted, found = backbone.encode(features).states, merged.encode(features).states
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    changed = {key for key, value in merged.module.state_dict().items() if not value.equal(before[key])}
    assert any("fc1" in key for key in changed)
    assert not any("decoder" in key for key in changed)
    assert adapters_cli.main(["export-peft", str(tmp_path / "a"), "-o", str(tmp_path / "peft")]) == 2
    assert "the backbone was trained too" in capsys.readouterr().err


def test_what_cannot_merge_says_why_and_writes_nothing(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    adapter = make(weights, tmp_path / "bottleneck", "bottleneck", width=4)
    assert adapters_cli.main(["merge", str(adapter), "-o", str(tmp_path / "merged")]) != 0
    assert "layers.0.ffn" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


def test_adapters_become_one_that_says_what_it_was_made_of(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    import numpy as np
    import soundfile

    from speech_peft.core.saved.save import read

    folders = [make(weights, tmp_path / name, "bottleneck", width=4) for name in ("a", "b.1")]
    wave = 0.1 * np.random.default_rng(0).standard_normal(8000)
    soundfile.write(tmp_path / "clip.wav", wave, 16000)
    given = ["merge-adapters", *map(str, folders), "-o"]
    for how in ([], ["--probe", str(tmp_path / "clip.wav"), "--factors", "3,1"]):
        out = tmp_path / f"mera{len(how)}"
        assert adapters_cli.main([*given, str(out), "--how", "mera", *how]) == 0
        assert "in the order of" in capsys.readouterr().out
        saved = read(out)
        assert saved.manifest.format == 4
        assert saved.manifest.joined.adapters == {f.name: read(f).digest for f in folders}
        assert saved.manifest.joined.settings["by"].startswith("activations" if how else "weights")
    assert saved.manifest.joined.factors == (0.75, 0.25)
    assert adapters_cli.main(["show", str(out)]) == 0
    assert "made of     a, b.1, by mera" in capsys.readouterr().out
    assert adapters_cli.main([*given, str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert adapters_cli.main([*given, str(tmp_path / "c"), "--how", "ties"]) == 2
    assert "and a is a bottleneck" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_adapters_of_two_tracks_are_made_one_only_where_that_is_asked(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folders = [make(weights, tmp_path / name, "lora", rank=2) for name in ("cs", "nl")]
    for folder in folders:
        (folder / "recipe.yaml").write_text(f"task: {{name: asr, language: {folder.name}}}")
    command = ["merge-adapters", *map(str, folders), "-o", str(tmp_path / "both"), "--how", "cat"]
    assert adapters_cli.main(command) == 2
    assert "language: cs is for cs, nl for nl" in capsys.readouterr().err
    assert adapters_cli.main([*command, "--across"]) == 0


def test_an_existing_output_folder_is_refused(lora: Path, capsys: pytest.CaptureFixture[str]):
    assert adapters_cli.main(["export-peft", str(lora), "-o", str(lora)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_folder_without_adapter_json_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert adapters_cli.main(["show", str(tmp_path)]) == 2
    assert "adapter.json" in capsys.readouterr().err


STOCK = """
import importlib.util, sys
found = importlib.util.find_spec  # a torchaudio for other hardware would keep transformers from importing
importlib.util.find_spec = lambda name, *a: None if name.split(".")[0] == "torchaudio" else found(name, *a)
import numpy
from transformers import AutoFeatureExtractor, AutoModel, AutoProcessor, AutoTokenizer, pipeline
noise = 0.1 * numpy.random.default_rng(0).standard_normal(16000).astype("float32")
whisper, ctc, ast = sys.argv[1:]
for folder in (whisper, ctc):
    assert isinstance(pipeline("automatic-speech-recognition", folder)(noise.copy())["text"], str)
for kind in (AutoProcessor, AutoTokenizer, AutoFeatureExtractor):
    kind.from_pretrained(whisper)
features = AutoFeatureExtractor.from_pretrained(ast)(noise, sampling_rate=16000, return_tensors="pt")
assert AutoModel.from_pretrained(ast)(**features).last_hidden_state.isfinite().all()
assert not any(name.startswith("speech_peft") for name in sys.modules)
"""


@pytest.mark.slow
def test_what_merge_writes_runs_in_a_process_that_never_imports_us(lora: Path, tmp_path: Path):
    """A Whisper without feature settings, as converted ones are, a Conformer with CTC, and an AST."""
    import subprocess
    import sys

    assert adapters_cli.main(["merge", str(lora), "-o", str(tmp_path / "whisper")]) == 0
    for family in ("conformer", "ast"):
        adapter = with_head(family, tmp_path)
        assert adapters_cli.main(["merge", str(adapter), "-o", str(tmp_path / family)]) == 0
    folders = [str(tmp_path / name) for name in ("whisper", "conformer", "ast")]
    done = subprocess.run(
        [sys.executable, "-c", STOCK, *folders], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def with_head(family: str, folder: Path, characters: str = "ab' é") -> Path:
    """A LoRA on a tiny model of the family, with a CTC layer."""
    import torch

    from speech_peft.backbones.families import open_backbone, tiny
    from speech_peft.core.model import AdaptedModel
    from speech_peft.core.saved.save import write
    from speech_peft.decoders.ctc import CtcHead
    from speech_peft.methods.lora import Lora

    base: Any = tiny(family)
    base.module.save_pretrained(folder / f"{family}-base")
    backbone = open_backbone(family, folder / f"{family}-base")
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": Lora(rank=2)})
    head = CtcHead(backbone.dim, characters)
    with torch.no_grad():
        for parameter in (*model.parameters_of("a"), *head.parameters()):
            parameter.normal_(std=0.3)
    return write(
        folder / f"{family}-adapter",
        model,
        "a",
        backbone.card(),
        heads={"ctc": head},
        head_config={"ctc": {"characters": characters}},
    )


def test_a_merged_ctc_model_writes_the_very_text_of_the_adapter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    import torch
    from transformers import AutoFeatureExtractor, AutoTokenizer, Wav2Vec2BertForCTC

    from speech_peft.opening.loading import load

    adapter = with_head("conformer", tmp_path)
    assert adapters_cli.main(["merge", str(adapter), "-o", str(tmp_path / "merged")]) == 0
    assert "a stock Wav2Vec2BertForCTC" in capsys.readouterr().out
    audio = torch.randn(1, 24000)
    opened = load(adapter)
    with torch.no_grad():
        encoded = opened.backbone.encode(opened.backbone.prepare(audio, torch.tensor([24000])))
        assert opened.ctc is not None
        (ours,) = opened.ctc.decode(encoded.states, encoded.mask)
        extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "merged")
        features = extractor(audio[0].numpy(), sampling_rate=16000, return_tensors="pt")
        logits = Wav2Vec2BertForCTC.from_pretrained(tmp_path / "merged")(**features).logits
    theirs = AutoTokenizer.from_pretrained(tmp_path / "merged").decode(logits[0].argmax(-1))
    assert theirs == ours
    assert len(set(ours)) > 2


def test_a_head_that_stock_code_has_not_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    adapter = with_head("ast", tmp_path)
    assert adapters_cli.main(["merge", str(adapter), "-o", str(tmp_path / "merged")]) == 0
    assert "note: the adapter's head 'ctc' is not in the folder" in capsys.readouterr().out
    files = list((tmp_path / "merged").iterdir())
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {file.name for file in files}
    (tmp_path / "new").touch()
    assert {file.stat().st_mode for file in files} == {(tmp_path / "new").stat().st_mode}


def test_an_adapter_at_no_site_is_shown_and_is_no_lora_for_peft(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    adapter = make(weights, tmp_path / "none", "none")
    assert adapters_cli.main(["show", str(adapter)]) == 0
    assert "sites       0" in capsys.readouterr().out
    assert adapters_cli.main(["export-peft", str(adapter), "-o", str(tmp_path / "peft")]) == 2
    assert "at no site" in capsys.readouterr().err
