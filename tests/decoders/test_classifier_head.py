"""The head reads the layer it says, over the frames that hold sound, and standardises once."""

import pytest
import torch

from speech_peft.backbones.families import tiny
from speech_peft.decoders.classifier import ClassifierHead
from speech_peft.errors import ConfigError

LABELS = ("cat", "dog", "rain")


def states(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def mask(*lengths, width=9):
    return torch.arange(width)[None] < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_frames_without_sound_are_not_heard(pooling):
    head = ClassifierHead(8, LABELS, pooling=pooling)
    if head.attend is not None:
        torch.nn.init.normal_(head.attend.weight)
    whole = states(2, 9, 8)
    other = whole.clone()
    other[0, 4:] = 100.0
    assert torch.equal(head(whole, mask(4, 9)), head(other, mask(4, 9)))
    torch.testing.assert_close(head(whole, mask(4, 9))[:1], head(whole[:1, :4], mask(4, width=4)))


def test_attention_starts_as_the_mean_and_learns():
    head, mean = ClassifierHead(8, LABELS, pooling="attention"), ClassifierHead(8, LABELS)
    mean.read = head.read
    torch.testing.assert_close(head(states(2, 9, 8), mask(4, 9)), mean(states(2, 9, 8), mask(4, 9)))
    head(states(2, 9, 8), mask(4, 9)).square().sum().backward()
    assert head.attend.weight.grad.any()


@pytest.mark.parametrize("layer", ["last", "mix", 1, 2])
@pytest.mark.parametrize("name", ["whisper", "ast", "conformer", "usm"])
def test_logits_are_the_same_from_any_block_on(name, layer):
    backbone = tiny(name)
    head = ClassifierHead(32, LABELS, layer=layer, depth=backbone.depth)
    audio = states(2, 12000)
    features = backbone.prepare(audio, torch.tensor([12000, 9000]))
    with torch.no_grad():
        whole = head.logits(backbone, features)
        every = backbone.encode_layers(features)
        hidden = every if layer == "mix" else every[-1 if layer == "last" else layer - 1]
        torch.testing.assert_close(head(hidden, backbone.mask_of(features, every[-1])), whole)
        for k in range(1, head.top + 1):
            entering = backbone.prefix(features, k)
            resumed = head.logits_from(backbone, k, entering, features, every[:k])
            torch.testing.assert_close(resumed, whole)


def test_native_pooling_is_the_mean_of_the_two_summary_tokens():
    backbone = tiny("ast")
    features = backbone.prepare(states(1, 12000), torch.tensor([12000]))
    head = ClassifierHead(32, LABELS, pooling="native", depth=2)
    with torch.no_grad():
        expected = head.read(backbone.encode(features).pooled)
        torch.testing.assert_close(head.logits(backbone, features), expected)
    whisper = tiny("whisper", context="fit")
    features = whisper.prepare(states(1, 12000), torch.tensor([12000]))
    with pytest.raises(ConfigError, match="whisper has no summary of its own"):
        head.logits(whisper, features)


@pytest.mark.parametrize("layer", ["last", "mix"])
def test_standardised_features_have_mean_0_and_deviation_1_over_the_training_set(layer):
    head = ClassifierHead(8, LABELS, layer=layer, depth=2, standardise=True)
    pooled = 3 + 7 * states(50, len(head.mean), 8)
    pooled[..., 0] = 5.0  # a channel that says nothing
    head.fit_standard(pooled)
    found = (pooled - head.mean) / head.std
    torch.testing.assert_close(found.mean(0), torch.zeros_like(head.mean), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[..., 1:].std(0, correction=0), torch.ones_like(head.std[:, 1:]))
    assert not found[..., 0].any()


def test_a_mix_is_of_normalised_layers_and_starts_even():
    head = ClassifierHead(8, LABELS, layer="mix", depth=2)
    quiet, loud = states(1, 9, 8), 1000 * states(1, 9, 8).flip(-1)
    torch.testing.assert_close(
        head([quiet, quiet, loud], mask(9)),
        head([5 * quiet, quiet, loud / 50], mask(9)),
        atol=1e-3,
        rtol=1e-3,
    )
    with pytest.raises(ConfigError, match="mixes 3 layers, got 2"):
        head([quiet, loud], mask(9))


def test_a_head_is_built_again_from_its_config():
    head = ClassifierHead(8, LABELS, head="mlp", layer="mix", depth=3, standardise=True, multi_label=True)
    again = ClassifierHead(8, **head.config())
    assert again.config() == head.config()
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in head.state_dict().items()
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer": 3, "depth": 2}, r"task\.layer: 3 is not one of the 2 blocks"),
        ({"pooling": "native", "layer": 1, "depth": 2}, r"task\.pooling: native is the summary of the last"),
        ({"pooling": "attention", "standardise": True}, r"task\.standardise: .*no fixed mean"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        ClassifierHead(8, LABELS, **fields)


def test_several_labels_have_probabilities_of_their_own():
    logits = torch.tensor([[0.0, 2.0, 2.0]])
    several, one = ClassifierHead(8, LABELS, multi_label=True), ClassifierHead(8, LABELS)
    assert several.probabilities(logits)[0, 0] == 0.5
    assert one.probabilities(logits).sum() == pytest.approx(1)
