"""Models with adapters in Python: attached to a stock model, used like it, saved, shared, let go."""

import copy
import json
import types

import huggingface_hub
import pytest
import torch
from torch import nn
from transformers import (
    ASTForAudioClassification,
    LlamaConfig,
    LlamaForCausalLM,
    Wav2Vec2BertForCTC,
    Wav2Vec2ConformerForCTC,
    WhisperForAudioClassification,
    WhisperForConditionalGeneration,
)

import speech_peft as sp
from speech_peft.backbones.families import tiny
from speech_peft.backbones.in_memory import look_at
from speech_peft.core.adapter import NotMergeable
from speech_peft.core.saved import hub
from speech_peft.core.saved.save import read, write
from speech_peft.decoders.ctc import CtcHead
from speech_peft.errors import ConfigError
from speech_peft.opening import exchange, loading
from tests.contract.families import FAMILIES, STOCK

MEL = torch.randn(1, 80, 300, generator=torch.Generator().manual_seed(1))


def whisper() -> WhisperForConditionalGeneration:
    return tiny("whisper", seconds=3.0).module


def lora() -> dict[str, sp.Method]:
    return {"tel": sp.Lora(rank=2, sites=["layers.*.attn.[qv]"])}


def trained(module: nn.Module | None = None, methods: dict[str, sp.Method] | None = None) -> sp.Adapted:
    """A model whose adapters do something."""
    model = sp.adapt(module or whisper(), methods or lora())
    with torch.no_grad():
        for parameter in model.adapters.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def states(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(
            input_features=MEL.to(next(model.parameters()).dtype), decoder_input_ids=torch.ones(1, 3).long()
        ).logits


# ---- attached -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", STOCK)
def test_a_stock_model_in_memory_has_the_sites_of_its_backbone(family):
    name, options = FAMILIES[family]
    backbone = tiny(name, **options)
    found = look_at(backbone.module)
    assert found.sites == backbone.sites()
    assert (found.card.name, found.card.dim, found.card.layers) == (name, backbone.dim, backbone.depth)


AROUND = {
    "WhisperModel": lambda: whisper().model,
    "WhisperEncoder": lambda: whisper().model.encoder,
    "WhisperForAudioClassification": lambda: WhisperForAudioClassification(whisper().config),
    "ASTForAudioClassification": lambda: ASTForAudioClassification(tiny("ast").module.config),
    "Wav2Vec2BertForCTC": lambda: Wav2Vec2BertForCTC(_spelling("wav2vec2-bert")),
    "Wav2Vec2ConformerForCTC": lambda: Wav2Vec2ConformerForCTC(_spelling("wav2vec2-conformer")),
    "a module of one's own": lambda: nn.Sequential(tiny("usm").module),
}


def _spelling(family):
    config = tiny("conformer", family=family).module.config
    config.vocab_size = 12
    return config


@pytest.mark.parametrize("case", AROUND)
def test_blocks_are_found_wherever_a_model_has_them_under_the_same_names(case):
    module = AROUND[case]()
    model = sp.adapt(module, {"a": sp.Bottleneck(width=4, sites=["layers.*.ffn"])})
    assert [site.name for site in model.sites["a"]] == ["layers.0.ffn", "layers.1.ffn"]
    assert model.detach() is module


def test_a_model_of_another_kind_is_refused_with_what_is_known():
    small = LlamaConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=8
    )
    with pytest.raises(
        ConfigError, match=r"LlamaForCausalLM has no blocks that are known here.*WhisperEncoder"
    ):
        sp.adapt(LlamaForCausalLM(small), lora())


def test_two_encoders_are_refused_by_their_places():
    with pytest.raises(ConfigError, match=r"several encoders: 0 \(ASTModel\), 1 \(ASTModel\)"):
        look_at(nn.Sequential(tiny("ast").module, tiny("ast").module))


def test_attaching_twice_is_refused_by_the_names_of_what_is_there():
    module = whisper()
    model = sp.adapt(module, lora())
    for given in (module, module.model.encoder, model):
        with pytest.raises(ConfigError, match=r"adapters.*'tel'.*detach\(\)"):
            sp.adapt(given, {"other": sp.Lora(rank=2)})
    assert sp.adapt(model.detach(), {"other": sp.Lora(rank=2)}).active == ("other",)


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        (None, r"adapters: expected names and methods"),
        ({}, r"adapters: expected names and methods"),
        ({"a.b": 1}, r"'a\.b': a name is letters"),
        ({"a": "lora"}, r"adapters\.a: expected a method such as Lora\(rank=8\), got str"),
    ],
)
def test_what_are_no_adapters_is_refused(adapters, message):
    with pytest.raises(ConfigError, match=message):
        sp.adapt(whisper(), adapters)


def test_what_is_no_model_is_refused():
    with pytest.raises(ConfigError, match="expected a transformers model or the address of weights, got int"):
        sp.adapt(3, lora())
    with pytest.raises(ConfigError, match="context: is for weights by address"):
        sp.adapt(whisper(), lora(), context="fit")


def test_weights_by_address_say_themselves_which_family_they_are(tmp_path):
    tiny("ast").module.save_pretrained(tmp_path / "ast")
    model = sp.adapt(str(tmp_path / "ast"), {"a": sp.Bottleneck(width=4)}, context="fit")
    assert model.backbone.name == model.card.name == "ast"
    assert model.card.options == {"context": "fit"}
    model.save(tmp_path / "a")
    assert sp.load(tmp_path / "a").backbone.context == "fit"
    with pytest.raises(ConfigError, match="no such option"):
        sp.adapt(str(tmp_path / "ast"), lora(), contexts="fit")


def test_weights_of_another_kind_are_refused_with_the_kinds_that_are_known(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match=r"'llama' model; known here are .*wav2vec2-bert.*whisper"):
        sp.adapt(tmp_path, lora())


# ---- used as the stock model is -----------------------------------------------------------------------


def test_generate_runs_the_adapters_and_nothing_is_the_stock_model():
    module = whisper()
    stock = module.generate(input_features=MEL, max_new_tokens=6)
    model = trained(module)
    assert not torch.equal(model.generate(input_features=MEL, max_new_tokens=6), stock)
    with model.using():
        assert torch.equal(model.generate(input_features=MEL, max_new_tokens=6), stock)
    with pytest.raises(ConfigError, match="ASTModel generates nothing"):
        sp.adapt(tiny("ast").module, {"a": sp.Bottleneck(width=4)}).generate()


@pytest.mark.parametrize(
    "move", [lambda m: m.half(), lambda m: m.to(torch.bfloat16), lambda m: m.to("cpu", torch.float64)]
)
def test_a_change_of_precision_takes_base_and_adapters_along(move):
    model = trained()
    before = states(model)
    moved = move(model)
    assert moved is model
    assert {p.dtype for p in model.parameters()} == {model.dtype} != {torch.float32}
    torch.testing.assert_close(states(model).float(), before, atol=0.1, rtol=0.1)


def test_a_deepcopy_is_a_model_of_its_own():
    model = trained()
    before, other = states(model), copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.adapters.parameters():
            parameter.zero_()
    assert torch.equal(states(model), before)
    with model.using():
        assert torch.equal(states(other), states(model))
    assert other.base is not model.base


def test_a_compiled_model_runs_the_adapters_that_are_active():
    model = trained(whisper().model.encoder)
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(MEL).last_hidden_state, model(MEL).last_hidden_state)
        with model.using():
            torch.testing.assert_close(compiled(MEL).last_hidden_state, model(MEL).last_hidden_state)


def test_what_trains_is_printed_in_the_words_of_peft(capsys):
    model = sp.adapt(whisper(), lora())
    model.print_trainable_parameters()
    base = sum(p.numel() for p in model.base.parameters())
    own = 2 * 2 * 2 * (32 + 32)
    every, share = base + own, 100 * own / (base + own)
    assert capsys.readouterr().out == (
        f"trainable params: {own:,} || all params: {every:,} || trainable%: {share:.4f}\n"
    )


# ---- saved, and found again ---------------------------------------------------------------------------


def test_an_adapter_of_a_model_in_memory_comes_back_on_the_model_that_is_given(tmp_path):
    module = whisper()
    model = trained(module)
    before = states(model)
    assert model.save(tmp_path / "tel", name="tel") == tmp_path / "tel"
    again = sp.load(tmp_path / "tel", base=model.detach())
    assert again.active == ("tel",)
    assert torch.equal(states(again), before)
    assert not again.training


def test_its_card_says_that_it_has_no_address_and_loading_asks_for_the_base(tmp_path):
    trained().save(tmp_path / "tel")
    assert json.loads((tmp_path / "tel" / "adapter.json").read_text())["backbone"] == {
        "name": "whisper", "id": "memory:WhisperForConditionalGeneration", "revision": None,
        "dim": 32, "layers": 2, "sha256": None, "options": {},
    }  # fmt: skip
    for opened in (sp.load, lambda folder: sp.Transcriber(adapter=folder)):
        with pytest.raises(ConfigError, match=r"memory:WhisperFor.*no address.*base=MODEL"):
            opened(tmp_path / "tel")


def test_a_model_that_transformers_read_is_found_by_that_address(tmp_path):
    tiny("ast").module.save_pretrained(tmp_path / "ast")
    module = ASTForAudioClassification.from_pretrained(tmp_path / "ast")
    model = trained(module, {"a": sp.Bottleneck(width=4)})
    model.save(tmp_path / "a")
    assert sp.load(tmp_path / "a").card.id == str(tmp_path / "ast")


def test_a_base_of_another_size_is_refused(tmp_path):
    trained().save(tmp_path / "tel")
    with pytest.raises(ConfigError, match=r"was trained on whisper memory:Whisper.*you gave ast"):
        sp.load(tmp_path / "tel", base=tiny("ast").module)
    with pytest.raises(ConfigError, match="context: is for weights by address"):
        sp.load(tmp_path / "tel", base=whisper(), context="fit")


def test_heads_come_back_and_are_saved_again(tmp_path):
    module = tiny("conformer").module
    model = trained(module, {"a": sp.Bottleneck(width=4)})
    head = CtcHead(32, "abc ")
    write(
        tmp_path / "a",
        model,
        "a",
        model.card,
        heads={"ctc": head},
        head_config={"ctc": {"characters": "abc "}},
    )
    model.detach()
    sp.load(tmp_path / "a", base=module).save(tmp_path / "b")
    again = sp.load(tmp_path / "b", base=copy.deepcopy(tiny("conformer").module))
    assert torch.equal(again.heads["ctc"].linear.weight, head.linear.weight)


def test_of_several_adapters_one_is_named(tmp_path):
    model = sp.adapt(whisper(), {**lora(), "far": sp.Lora(rank=2)})
    with pytest.raises(ConfigError, match="name: there are tel, far; say which"):
        model.save(tmp_path / "x")
    with pytest.raises(ConfigError, match=r"no adapter is called 'te'\. Did you mean 'tel'"):
        model.save(tmp_path / "x", name="te")
    assert sp.load(model.save(tmp_path / "x", "far"), base=model.detach()).active == ("x",)


def test_no_folder_with_something_else_in_it_is_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="folder without an adapter in it"):
        trained().save(tmp_path)


# ---- shared -------------------------------------------------------------------------------------------


class Hub:
    """What huggingface_hub's HfApi does, in a folder."""

    def __init__(self, folder):
        self.folder, self.made = folder, []

    def __call__(self, token=None):
        self.token = token
        return self

    def create_repo(self, repo, private, exist_ok):
        assert exist_ok
        self.made.append((repo, private))

    def upload_folder(self, repo_id, folder_path, revision, commit_message, allow_patterns):
        assert allow_patterns == hub.PATTERNS
        there = self.folder / repo_id
        there.parent.mkdir(parents=True)
        folder_path.rename(there)
        return types.SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def snapshot_download(self, repo, revision, allow_patterns, local_files_only):
        return str(self.folder / repo)


def test_what_is_pushed_to_the_hub_comes_back_from_it(tmp_path, monkeypatch):
    stub = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", stub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", stub.snapshot_download)
    model = trained()
    before = states(model)
    assert model.push_to_hub("me/tel", private=True, token="t") == "https://hub/me/tel/commit/1"
    assert (stub.made, stub.token) == ([("me/tel", True)], "t")
    assert {p.name for p in (tmp_path / "me" / "tel").iterdir()} == {
        "adapter.json", "adapter.safetensors", "README.md",
    }  # fmt: skip
    assert "library_name: speech_peft" in (tmp_path / "me" / "tel" / "README.md").read_text()
    again = sp.Adapted.from_pretrained("me/tel", model.detach())
    assert again.active == ("tel",)
    assert torch.equal(states(again), before)


def test_what_the_hub_refuses_is_one_error_with_the_repository(monkeypatch):
    class Refuses(Hub):
        def create_repo(self, *_, **__):
            raise OSError("401 Unauthorized")

    monkeypatch.setattr(huggingface_hub, "HfApi", Refuses(None))
    with pytest.raises(ConfigError, match="me/tel: the adapter could not be put onto the hub: 401"):
        trained().push_to_hub("me/tel")


# ---- exchanged ----------------------------------------------------------------------------------------


def test_another_adapter_takes_the_place_of_one_without_the_base_being_opened_again(tmp_path):
    backbone = tiny("whisper", context="fit")
    kinds = {"tel": sp.Lora(rank=2), "far": sp.Lora(rank=2), "wide": sp.Bottleneck(width=4, zero_up=False)}
    model = trained(backbone.module, kinds)
    card = backbone.card()
    folders = {name: write(tmp_path / name, model, name, card) for name in kinds}
    features = backbone.prepare(torch.randn(1, 8000), torch.tensor([8000]))
    wanted = {}
    for name in kinds:
        with torch.no_grad(), model.using(name):
            wanted[name] = backbone.encode(features).states
    model.detach()
    saved = read(folders["tel"])
    opened = loading.attached(backbone, saved, {"tel": saved}, "cpu", offline=True)
    parts = [id(p) for p in opened.model.parameters()]
    for name in ("far", "wide", "tel"):
        opened = exchange.exchanged(opened, folders[name], torch.device("cpu"))
        with torch.no_grad():
            assert torch.equal(backbone.encode(features).states, wanted[name])
        if name == "far":
            assert parts == [id(p) for p in opened.model.parameters()], "in place"
    broken = folders["wide"] / "adapter.safetensors"
    broken.write_bytes((folders["far"] / "adapter.safetensors").read_bytes())
    with pytest.raises(ConfigError, match=r"adapter\.safetensors"):
        exchange.exchanged(opened, folders["wide"], torch.device("cpu"))
    with torch.no_grad():
        assert torch.equal(backbone.encode(features).states, wanted["tel"]), "all is as it was"


def test_an_adapter_of_another_base_or_context_takes_no_place(tmp_path):
    backbone = tiny("whisper", context="fit")
    model = trained(backbone.module, {"tel": sp.Lora(rank=2)})
    full = backbone.card().model_copy(update={"options": {"context": "full"}})
    other = write(tmp_path / "full", model, "tel", full)
    opened = loading.Opened(backbone, model)
    with pytest.raises(ConfigError, match="context is 'full' there and 'fit' here"):
        exchange.exchanged(opened, other, torch.device("cpu"))


# ---- let go -------------------------------------------------------------------------------------------


def test_merged_and_unloaded_it_is_a_stock_model_that_does_the_same():
    module = whisper()
    model = trained(module)
    before = states(model)
    stock = model.merge_and_unload()
    assert type(stock) is type(module)
    assert stock is not module
    torch.testing.assert_close(states(stock), before, atol=1e-5, rtol=1e-4)
    assert _hooks(stock) == _hooks(module) == 0


def test_what_cannot_be_merged_leaves_all_as_it_is():
    model = trained(methods={"a": sp.Bottleneck(width=4)})
    with pytest.raises(NotMergeable, match=r"layers\.0\.ffn"):
        model.merge_and_unload()
    assert model.attached


def test_detached_it_is_the_stock_object_again():
    module = whisper()
    before, keys = states(module), list(module.state_dict())
    model = trained(module)
    assert not torch.equal(states(model), before)
    assert model.detach() is module
    assert torch.equal(states(module), before)
    assert list(module.state_dict()) == keys
    assert _hooks(module) == 0
    for call in (lambda: model(MEL), lambda: model.generate(MEL)):
        with pytest.raises(ConfigError, match="was detached from its base"):
            call()


def _hooks(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())
