"""LoRA to PEFT's files and back: stock PEFT computes exactly what we do."""

import copy
import json

import pytest
import torch

from speech_peft.compat import guard_torchaudio

guard_torchaudio()  # before peft, which imports transformers
peft = pytest.importorskip("peft")

from speech_peft.backbones.base import tiny  # noqa: E402
from speech_peft.core.model import AdaptedModel  # noqa: E402
from speech_peft.core.peft_lora import export_peft, import_peft  # noqa: E402
from speech_peft.errors import ConfigError  # noqa: E402
from speech_peft.methods.bottleneck import Bottleneck  # noqa: E402
from speech_peft.methods.lora import Lora  # noqa: E402

pytestmark = [
    # peft 0.21 asks transformers 5 by a name that transformers 6 drops
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    # peft looks for the base's config on the hub, to see whether the vocabulary grew
    pytest.mark.filterwarnings("ignore:Could not find a config file in:UserWarning"),
]


@pytest.fixture(scope="module")
def backbone():
    return tiny("whisper", seconds=1.0)


@torch.no_grad()
def run(model) -> torch.Tensor:
    mel = torch.randn(2, 80, 100, generator=torch.Generator().manual_seed(0))
    return model(input_features=mel, decoder_input_ids=torch.tensor([[1, 2, 3], [1, 4, 5]])).logits


@pytest.fixture
def adapted(backbone) -> AdaptedModel:
    method = Lora(rank=4, alpha=8, sites=("*.attn.[qv]", "*.ffn.up", "decoder.*.cross.k"))
    model = AdaptedModel(copy.deepcopy(backbone.module), backbone.sites(), {"a": method}).eval()
    with torch.no_grad():
        for parameter in model.parameters_of("a"):
            parameter.normal_(std=0.1)
    return model


def test_stock_peft_loads_what_we_write_and_computes_the_same(adapted, backbone, tmp_path):
    export_peft(adapted, "a", tmp_path, "openai/whisper-tiny")
    stock = peft.PeftModel.from_pretrained(copy.deepcopy(backbone.module), tmp_path).eval()
    assert torch.equal(run(stock), run(adapted))
    with adapted.using():
        assert not torch.equal(run(adapted), run(stock))


def test_what_stock_peft_writes_we_read_and_compute_the_same(backbone, tmp_path):
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "fc1"], init_lora_weights=False)
    stock = peft.get_peft_model(copy.deepcopy(backbone.module), config).eval()
    stock.save_pretrained(tmp_path)
    model = import_peft(tmp_path, copy.deepcopy(backbone.module), backbone.sites(), "a").eval()
    assert torch.equal(run(model), run(stock))
    assert {name.rsplit(".", 1)[1] for name in (site.name for site in model.sites["a"])} == {"q", "up"}


def test_ours_to_peft_to_ours_changes_no_bit(adapted, backbone, tmp_path):
    export_peft(adapted, "a", tmp_path / "1", "openai/whisper-tiny")
    peft.PeftModel.from_pretrained(copy.deepcopy(backbone.module), tmp_path / "1").save_pretrained(
        tmp_path / "2"
    )
    back = import_peft(tmp_path / "2", copy.deepcopy(backbone.module), backbone.sites(), "a")
    ours = [p.detach() for p in adapted.parameters_of("a")]
    assert all(torch.equal(a, b) for a, b in zip(ours, back.parameters_of("a"), strict=True))


def test_only_a_lora_can_be_written(backbone, tmp_path):
    model = AdaptedModel(copy.deepcopy(backbone.module), backbone.sites(), {"a": Bottleneck(width=4)})
    with pytest.raises(
        ConfigError, match=r"'a' is a bottleneck, and at layers\.0\.ffn Parallel is no low-rank"
    ):
        export_peft(model, "a", tmp_path, "x")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dora", True),
        ("use_rslora", True),
        ("modules_to_save", ["proj_out"]),
        ("alpha_pattern", {"fc1": 4}),
        ("rank_pattern", {"fc1": 4}),
        ("bias", "all"),
        ("fan_in_fan_out", True),
        ("layer_replication", [[0, 1]]),
        ("peft_type", "IA3"),
    ],
)
def test_a_setting_that_is_not_supported_is_refused_by_name(adapted, backbone, tmp_path, key, value):
    export_peft(adapted, "a", tmp_path, "x")
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ConfigError, match=key):
        import_peft(tmp_path, copy.deepcopy(backbone.module), backbone.sites(), "a")


def test_a_layer_that_is_no_site_is_refused_by_key(backbone, tmp_path):
    config = peft.LoraConfig(r=4, target_modules=["proj_out"])
    peft.get_peft_model(copy.deepcopy(backbone.module), config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"proj_out.*belongs to no linear site"):
        import_peft(tmp_path, copy.deepcopy(backbone.module), backbone.sites(), "a")
