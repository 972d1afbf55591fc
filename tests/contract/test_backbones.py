"""What every backbone promises: stock states, sites that are there, features that equal the family's own."""

import numpy as np
import pytest
import torch
from torch import nn

from speech_peft.backbones.families import open_backbone, tiny
from speech_peft.backbones.stack import Row, Stack
from speech_peft.core.site import resolve
from speech_peft.errors import ConfigError, SpeechPeftError

CASES = {
    "whisper": ("whisper", {"seconds": 4.0}),
    "whisper-fit": ("whisper", {"context": "fit"}),
    "ast": ("ast", {}),
    "w2v-bert": ("conformer", {}),
    "w2v-conformer": ("conformer", {"family": "wav2vec2-conformer"}),
    "parakeet": ("conformer", {"family": "parakeet"}),
    "usm": ("usm", {}),
}


@pytest.fixture(scope="module", params=CASES)
def backbone(request):
    name, options = CASES[request.param]
    made = tiny(name, **options)
    with (
        torch.no_grad(),
        torch.random.fork_rng(),
    ):  # zero-initialised embeddings and equal norms would hide mistakes
        torch.manual_seed(1)
        for parameter in made.module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


@pytest.fixture(scope="module")
def clips():
    seconds = torch.arange(36000) / 16000
    tone = 0.3 * torch.sin(2 * torch.pi * 220 * seconds) * (1 + torch.sin(2 * torch.pi * 3 * seconds))
    noise = 0.05 * torch.randn(2, 36000, generator=torch.Generator().manual_seed(0))
    audio = tone + noise
    audio[1, 21000:] = 0
    return audio, torch.tensor([36000, 21000])


@pytest.fixture(scope="module")
def features(backbone, clips):
    return backbone.prepare(*clips)


def stock(backbone, features) -> torch.Tensor:
    """States by the stock forward of the family; AST's averaged over its bands."""
    module = backbone.module
    if backbone.name == "whisper":
        assert backbone.context == "full"
        return module.model.encoder(features.values).last_hidden_state
    if backbone.name == "usm":
        return module(features.values, ~features.mask).last_hidden_state
    if backbone.name == "ast":
        tokens = module(features.values).last_hidden_state
        return tokens[:, 2:].unflatten(1, (backbone.bands, backbone.columns)).mean(1)
    return module(features.values, attention_mask=features.mask).last_hidden_state


def test_states_equal_the_stock_forward_bit_by_bit(backbone, features):
    if getattr(backbone, "context", None) == "fit":
        pytest.skip("stock Whisper refuses anything but its full window")
    assert torch.equal(backbone.encode(features).states, stock(backbone, features))


def test_ast_pools_as_stock_does(clips):
    backbone = tiny("ast")
    features = backbone.prepare(*clips)
    expected = backbone.module(features.values).pooler_output
    assert torch.equal(backbone.encode(features).pooled, expected)


def test_fit_equals_full_when_the_clip_fills_the_window():
    full, fit = (tiny("whisper", seconds=2.0, context=context) for context in ("full", "fit"))
    audio, lengths = torch.randn(1, 32000), torch.tensor([32000])
    states = [b.encode(b.prepare(audio, lengths)).states for b in (full, fit)]
    assert torch.equal(*states)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_prefix_and_rest_give_what_encode_gives(backbone, features, k):
    whole = backbone.encode(features)
    parts = backbone.encode_from(k, backbone.prefix(features, k), features)
    assert torch.equal(parts.states, whole.states)
    assert torch.equal(parts.mask, whole.mask)


def test_states_are_finite_and_masked_by_length(backbone, features):
    encoded = backbone.encode(features)
    assert encoded.states.isfinite().all()
    assert encoded.states.shape[2] == backbone.dim
    assert encoded.mask.sum(1).tolist() == features.lengths.tolist()
    seconds = features.lengths[0] / backbone.frame_rate
    assert abs(seconds - 36000 / 16000) < 1.5 / backbone.frame_rate


def test_what_lies_behind_a_clip_is_never_read(backbone, clips, features):
    audio, lengths = clips
    dirty = audio.clone()
    dirty[1, 21000:] = 7.0
    assert torch.equal(backbone.prepare(dirty, lengths).values, features.values)


def test_a_clip_of_no_samples_still_has_finite_states(backbone):
    features = backbone.prepare(torch.zeros(1, 0), torch.tensor([0]))
    assert features.lengths[0] >= 1
    assert backbone.encode(features).states.isfinite().all()


def test_sites_have_unique_names_in_model_order(backbone):
    names = [site.name for site in backbone.sites()]
    assert len(set(names)) == len(names)
    front = [name.startswith("front.") for name in names]
    assert front == sorted(front, reverse=True)
    assert names[sum(front)] == "stack"
    assert {"layers.0.ffn", "layers.1.attn.q", "layers.0.tail", "layers.1.norm_ffn"} <= set(names)


def test_widths_are_those_of_the_tensors_that_pass(backbone, features):
    seen: dict[str, tuple[int, int]] = {}

    def first(values):
        return values[0] if isinstance(values, tuple) else values

    handles = []
    for site in backbone.sites():
        box: dict[str, int] = {}
        axis = 1 if site.kind == "front" else -1  # convolutions have their channels first

        def enter(module, args, kwargs, box=box, axis=axis):
            box["in"] = (args[0] if args else kwargs["hidden_states"]).shape[axis]

        def leave(module, args, output, box=box, name=site.name, axis=axis):
            output = first(output)
            if output.dim() == 4 and axis == -1:  # Gemma's attention gives its heads apart
                output = output.flatten(2)
            seen[name] = (box["in"], output.shape[axis])

        entry, leaving = resolve(backbone.module, site.entry), resolve(backbone.module, site.exit)
        handles += [
            entry.register_forward_pre_hook(enter, with_kwargs=True),
            leaving.register_forward_hook(leave),
        ]
    states = backbone.encode(features).states
    if backbone.name == "whisper":
        backbone.decoder(torch.zeros(len(states), 3, dtype=torch.long), encoder_hidden_states=states)
    for handle in handles:
        handle.remove()
    assert seen == {site.name: (site.dim_in, site.dim_out) for site in backbone.sites()}


def test_sites_of_free_length_take_more_frames(backbone, features):
    """fixed_length is honest: where it is False, a frame may be added on entry and dropped on leaving."""

    def enter(module, args, kwargs):
        if args:
            return (torch.cat((args[0], args[0][:, :1]), 1), *args[1:]), kwargs
        longer = torch.cat((kwargs["hidden_states"], kwargs["hidden_states"][:, :1]), 1)
        return args, {**kwargs, "hidden_states": longer}

    def leave(module, args, output):
        return (output[0][:, :-1], *output[1:]) if isinstance(output, tuple) else output[:, :-1]

    plain = backbone.encode(features).states
    for site in (site for site in backbone.sites() if not site.fixed_length):
        entry, leaving = resolve(backbone.module, site.entry), resolve(backbone.module, site.exit)
        hooks = [
            entry.register_forward_pre_hook(enter, with_kwargs=True),
            leaving.register_forward_hook(leave),
        ]
        states = backbone.encode(features).states
        for hook in hooks:
            hook.remove()
        assert states.shape == plain.shape
        assert not torch.equal(states, plain), f"{site.name}: the added frame was never attended to"


def test_relative_positions_fix_the_length_everywhere():
    for name, options in (CASES[case] for case in ("w2v-bert", "w2v-conformer", "parakeet", "usm")):
        assert all(site.fixed_length for site in tiny(name, **options).sites())


def test_block_of_says_where_an_adapter_first_acts(backbone):
    blocks = {site.name: backbone.block_of(site) for site in backbone.sites()}
    assert blocks["stack"] == 0
    assert blocks["layers.1.ffn.up"] == 1
    assert blocks.get("norm", backbone.depth) == backbone.depth
    assert all(block is None for name, block in blocks.items() if name.startswith("decoder."))


def test_module_is_frozen_and_in_eval_mode(backbone):
    assert not backbone.module.training
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())


def test_same_seed_gives_the_same_tiny_backbone():
    one, same, other = (tiny("ast", seed).module.state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("case", ["ast", "w2v-bert", "w2v-conformer", "usm"])
def test_layer_gives_the_states_of_that_block(case, clips):
    name, options = CASES[case]
    whole, cut = tiny(name, **options), tiny(name, **options, layer=1)
    features = cut.prepare(*clips)
    assert (cut.depth, cut.card().options) == (1, {"layer": 1})
    assert not any(site.name.startswith(("layers.1", "norm")) for site in cut.sites())
    if case == "w2v-bert":
        assert torch.equal(cut.encode(features).states, whole.prefix(features, 1))
    with pytest.raises(ConfigError, match="blocks, 1 to 2"):
        tiny(name, **options, layer=3)


# --- features equal the stock extractors' ---


def arrays(clips) -> list[np.ndarray]:
    return [clip[:length].numpy() for clip, length in zip(*clips, strict=True)]


def test_whisper_mel_equals_the_stock_extractor(clips):
    from transformers import WhisperFeatureExtractor

    expected = WhisperFeatureExtractor()(arrays(clips), sampling_rate=16000, return_tensors="pt")
    found = tiny("whisper").prepare(*clips).values
    torch.testing.assert_close(found, expected["input_features"], atol=1e-4, rtol=0)


def test_whisper_fit_mel_equals_the_stock_extractor_at_that_length(clips):
    from transformers import WhisperFeatureExtractor

    expected = WhisperFeatureExtractor()(
        arrays(clips), sampling_rate=16000, return_tensors="pt", padding="max_length", max_length=40000
    )
    found = tiny("whisper", context="fit").prepare(*clips).values
    assert found.shape[-1] == 250
    torch.testing.assert_close(found, expected["input_features"], atol=1e-4, rtol=0)


def test_ast_mel_equals_the_stock_extractor(clips):
    from transformers import ASTFeatureExtractor

    extract = ASTFeatureExtractor(num_mel_bins=32, max_length=256)
    expected = extract(arrays(clips), sampling_rate=16000, return_tensors="pt")
    torch.testing.assert_close(
        tiny("ast").prepare(*clips).values, expected["input_values"], atol=1e-4, rtol=0
    )


def test_w2v_bert_features_equal_the_stock_extractor(clips):
    from transformers import SeamlessM4TFeatureExtractor

    extract = SeamlessM4TFeatureExtractor(feature_size=20, num_mel_bins=20)
    expected = extract(arrays(clips), sampling_rate=16000, return_tensors="pt")
    found = tiny("conformer").prepare(*clips)
    assert torch.equal(found.mask.long(), expected["attention_mask"].long())
    torch.testing.assert_close(found.values, expected["input_features"], atol=1e-4, rtol=0)


def test_wav2vec2_waveform_equals_the_stock_extractor(clips):
    from transformers import Wav2Vec2FeatureExtractor

    extract = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    expected = extract(arrays(clips), sampling_rate=16000, return_tensors="pt", padding=True)
    found = tiny("conformer", family="wav2vec2-conformer").prepare(*clips)
    assert torch.equal(found.mask.long(), expected["attention_mask"].long())
    torch.testing.assert_close(found.values, expected["input_values"], atol=1e-4, rtol=0)


# --- refusals ---


def test_clip_longer_than_the_window_is_refused_with_its_length():
    with pytest.raises(SpeechPeftError, match=r"at most 30 s .* 31\.00 s long"):
        tiny("whisper").prepare(torch.zeros(1, 31 * 16000), torch.tensor([31 * 16000]))


def test_unknown_option_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match=r"no such option\. Did you mean 'context'"):
        open_backbone("whisper", tmp_path, contxt="fit")
    with pytest.raises(ConfigError, match="neither 'full' nor 'fit'"):
        tiny("whisper", context="half")


def test_renamed_module_is_refused_with_the_nearest_paths():
    stack = Stack("layers", (Row("attn.q", "linear", "{b}.attention.query"),))
    with pytest.raises(
        ConfigError, match=r"no module 'layers.0.attention.query'. Nearest: layers\.0\.attention"
    ):
        stack.sites(tiny("ast").module, depth=2, dim=32)


def test_site_of_another_width_is_refused():
    stack = Stack("layers", (Row("ffn", "ffn", "{b}.mlp.fc1"),))
    with pytest.raises(ConfigError, match=r"is 32 -> 64 wide, and the stream it belongs to is 32"):
        stack.sites(tiny("ast").module, depth=2, dim=32)


def test_linear_inside_a_fused_attention_is_refused():
    model = nn.Module()
    model.layers = nn.ModuleList([nn.TransformerEncoderLayer(32, 2, 64)])
    stack = Stack("layers", (Row("attn.o", "linear", "{b}.self_attn.out_proj"),))
    with pytest.raises(ConfigError, match=r"inside an nn.MultiheadAttention, which never calls it"):
        stack.sites(model, depth=1, dim=32)


# --- Whisper's text side ---


def test_tiny_whisper_spells_any_text():
    tokenizer = tiny("whisper").tokenizer
    text = "Bonjour, 世界!"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_english_only_whisper_refuses_other_languages():
    generation = tiny("whisper").generation
    assert generation.prompt("en") == (generation.sot, generation.no_timestamps)
    with pytest.raises(ConfigError, match="only transcribes English"):
        generation.prompt("de")


@pytest.mark.parametrize("layer", [None, 1])
def test_what_encode_never_reads_can_be_let_go(clips, layer):
    whisper = tiny("whisper", context="fit", layer=layer)
    features = whisper.prepare(*clips)
    states, counted = whisper.encode(features).states, sum(p.numel() for p in whisper.module.parameters())
    read = sum(p.numel() for p in whisper.encoder_parameters().values())
    whisper.let_go()
    assert torch.equal(whisper.encode(features).states, states)
    assert sum(p.numel() for p in whisper.module.parameters()) == counted
    held = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in whisper.module.parameters()}
    positions = whisper.module.model.encoder.embed_positions.weight
    assert sum(held.values()) < 4 * (read + positions.numel()) + 8 * len(held) < 4 * counted
