"""LoRA, and what amounts to one, to PEFT's files and back: stock PEFT computes what we do."""

import copy
import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from speech_peft.compat import guard_torchaudio

guard_torchaudio()  # before peft, which imports transformers
peft = pytest.importorskip("peft")

from speech_peft.backbones.families import tiny  # noqa: E402
from speech_peft.compose.peft_lora import export_peft, import_peft  # noqa: E402
from speech_peft.core.adapter import Adapter, NotMergeable  # noqa: E402
from speech_peft.core.method import Method  # noqa: E402
from speech_peft.core.model import AdaptedModel, key_of  # noqa: E402
from speech_peft.errors import ConfigError  # noqa: E402
from speech_peft.methods.bottleneck import Bottleneck  # noqa: E402
from speech_peft.methods.lora import Lora  # noqa: E402
from speech_peft.methods.pissa import Pissa  # noqa: E402
from speech_peft.registry import METHODS  # noqa: E402

pytestmark = [
    # peft 0.21 asks transformers 5 by a name that transformers 6 drops
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    # peft looks for the base's config on the hub, to see whether the vocabulary grew
    pytest.mark.filterwarnings("ignore:Could not find a config file in:UserWarning"),
    # Whisper's keys have no bias; a lora_bias of zeros is written for them where other layers have one
    pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed but the targeted layer:UserWarning"),
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


def states_a_lora(method: Method) -> bool:
    """Whether the parts that a method builds say what LoRA they amount to."""
    backbone = tiny("whisper", seconds=1.0)
    try:
        model = AdaptedModel(backbone.module, backbone.sites(), {"a": method})
        site = model.sites["a"][0]
        part = model.at("a", site)
        layer: Any = backbone.module.get_submodule(site.exit)
        if isinstance(part, Adapter):
            part.to_lora(layer.weight, layer.bias)
    except (NotMergeable, ConfigError, IndexError, AttributeError):
        return False
    return isinstance(part, Adapter)


STATING = [
    pytest.param(example, id=f"{name}-{i}")
    for name in METHODS.names()
    for i, example in enumerate(METHODS[name].examples())
    if states_a_lora(example)
]


def test_these_methods_amount_to_a_lora():
    assert {"lora", "hydra", "adapter_bias", "pissa"} <= {given.values[0].name for given in STATING}


@pytest.mark.parametrize("method", STATING)
def test_every_method_that_states_a_lora_runs_in_stock_peft_and_comes_back_as_one(method, backbone, tmp_path):
    """PEFT computes what we do, and what we read again is a `lora` that does it too."""
    model = AdaptedModel(copy.deepcopy(backbone.module), backbone.sites(), {"a": method}).eval()
    with torch.no_grad():
        for parameter in model.parameters_of("a"):
            parameter.add_(0.1 * torch.randn_like(parameter))
    export_peft(model, "a", tmp_path, "openai/whisper-tiny")
    expected = run(model)
    with model.using():
        assert (run(model) - expected).abs().max() > 1e-3
    stock = peft.PeftModel.from_pretrained(copy.deepcopy(backbone.module), tmp_path).eval()
    torch.testing.assert_close(run(stock), expected, atol=2e-6, rtol=1e-5)
    back = import_peft(tmp_path, copy.deepcopy(backbone.module), backbone.sites(), "b").eval()
    torch.testing.assert_close(run(back), expected, atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_layers_of_different_rank_and_scale_are_written_with_one_of_each(backbone, adapted, tmp_path):
    """PEFT's configuration has one rank and one alpha, so rows of zeros fill up."""
    site = adapted.sites["a"][0]
    wide = Lora(rank=6, alpha=3, bias=True).build(site, torch.nn.Identity(), None)
    adapted.adapters["a"][key_of(site)] = wide
    for parameter in wide.parameters():
        parameter.normal_(std=0.1)
    export_peft(adapted, "a", tmp_path, "x")
    back = import_peft(tmp_path, copy.deepcopy(backbone.module), backbone.sites(), "b")
    assert {len(back.at("b", place).a) for place in back.sites["b"]} == {6}
    for place in adapted.sites["a"]:
        frozen = torch.zeros(place.dim_out, place.dim_in), torch.zeros(place.dim_out)
        torch.testing.assert_close(
            back.at("b", place).merged(*frozen), adapted.at("a", place).merged(*frozen)
        )


def test_pissa_starts_trains_and_converts_as_pefts_own(backbone, tmp_path):
    """PEFT moves the principal part out of the base and we do not; nothing else differs."""
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], init_lora_weights="pissa")
    stock = peft.get_peft_model(copy.deepcopy(backbone.module), config).eval()
    stock.peft_config["default"].init_lora_weights = True  # else loading moves it out of the base once more
    stock.save_pretrained(tmp_path / "fresh")
    method = Pissa(rank=4, alpha=8, sites=("*.q",))
    ours = AdaptedModel(copy.deepcopy(backbone.module), backbone.sites(), {"a": method}).eval()
    with torch.no_grad():
        for site in ours.sites["a"]:
            theirs, part = stock.base_model.model.get_submodule(site.exit), ours.at("a", site)
            assert torch.equal(theirs.lora_A["default"].weight, part.a)
            assert torch.equal(theirs.lora_B["default"].weight, part.b)
            for own, other in ((part.a, theirs.lora_A), (part.b, theirs.lora_B)):
                step = 0.1 * torch.randn_like(own)
                own.add_(step)
                other["default"].weight.add_(step)
    torch.testing.assert_close(run(stock), run(ours), atol=2e-6, rtol=1e-5)
    stock.save_pretrained(tmp_path / "lora", path_initial_model_for_weight_conversion=str(tmp_path / "fresh"))
    export_peft(ours, "a", tmp_path / "ours", "x")
    converted, written = (load_file(tmp_path / f / "adapter_model.safetensors") for f in ("lora", "ours"))
    assert converted.keys() == written.keys()
    assert all(torch.equal(converted[key], written[key]) for key in written)


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
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "pissa_niter_4"),
        ("alora_invocation_tokens", [1, 2]),
        ("arrow_config", {"top_k": 1}),
        ("a_setting_of_tomorrow", 1),
        ("use_dora", 1),
        ("r", 0),
        ("r", "8"),
        ("lora_alpha", None),
        ("lora_dropout", 1.5),
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


@pytest.mark.parametrize(
    ("key", "value"),
    [("init_lora_weights", "gaussian"), ("a_setting_of_tomorrow", None), ("modules_to_save", [])],
)
def test_a_value_that_changes_nothing_is_read(adapted, backbone, tmp_path, key, value):
    export_peft(adapted, "a", tmp_path, "x")
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    read = import_peft(tmp_path, copy.deepcopy(backbone.module), backbone.sites(), "a")
    assert torch.equal(run(read), run(adapted))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_numbers_that_no_lora_has_are_refused_by_key(adapted, backbone, tmp_path, bad):
    from safetensors.torch import load_file, save_file

    export_peft(adapted, "a", tmp_path, "x")
    path = tmp_path / "adapter_model.safetensors"
    stored = load_file(path)
    key = sorted(stored)[0]
    stored[key][0, 0] = bad
    save_file(stored, path)
    with pytest.raises(ConfigError, match=f"{key} has"):
        import_peft(tmp_path, copy.deepcopy(backbone.module), backbone.sites(), "a")


def test_tensors_that_are_no_floats_of_the_rank_are_refused_before_anything_is_built(
    adapted, backbone, tmp_path
):
    from safetensors.torch import load_file, save_file

    export_peft(adapted, "a", tmp_path, "x")
    path, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    stored, settings = load_file(path), json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "r": 10**9}))
    with pytest.raises(ConfigError, match=r"lora_\w\.weight is float32 .*, expected floats \("):
        import_peft(tmp_path, copy.deepcopy(backbone.module), backbone.sites(), "a")
    config.write_text(json.dumps(settings))
    save_file({key: value.to(torch.int32) for key, value in stored.items()}, path)
    with pytest.raises(ConfigError, match=r"is int32 .*, expected floats"):
        import_peft(tmp_path, copy.deepcopy(backbone.module), backbone.sites(), "a")
    save_file(dict(list(stored.items())[1:]), path)
    with pytest.raises(ConfigError, match=r"lacks .*lora_\w"):
        import_peft(tmp_path, copy.deepcopy(backbone.module), backbone.sites(), "a")


def test_an_adapter_at_no_site_is_no_lora(backbone, tmp_path):
    model = AdaptedModel(copy.deepcopy(backbone.module), backbone.sites(), {"a": METHODS["none"]()})
    with pytest.raises(ConfigError, match="'a' is a none, at no site"):
        export_peft(model, "a", tmp_path / "out", "x")
    assert not (tmp_path / "out").exists()
