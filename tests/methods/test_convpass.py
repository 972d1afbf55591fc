"""Facts of the Conformer adapter: the figure's order, padding, and statistics that belong to the adapter."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speech_peft.backbones.families import tiny
from speech_peft.core.context import Context
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved import save
from speech_peft.errors import SpeechPeftError
from speech_peft.methods.convpass import Convpass, _Convpass
from tests import toy

SITE = next(site for site in toy.sites() if site.name == "layers.0.ffn")


def part(**settings) -> _Convpass:
    """An adapter with random numbers in every parameter."""
    made = Convpass(**{"width": 4, "kernel": 5, **settings}).build(SITE, nn.Identity(), None)
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    assert isinstance(made, _Convpass)
    return made


def clips() -> tuple[Tensor, Tensor]:
    """Two clips in one batch, the second of six frames and then whatever was left in memory."""
    mask = torch.arange(9)[None] < torch.tensor([9, 6])[:, None]
    return torch.randn(2, 9, toy.DIM).masked_fill(~mask[..., None], 1e3), mask


def test_it_is_the_conformers_convolution_module():
    made = part().eval()
    h = torch.randn(2, 9, toy.DIM)
    reference = nn.Sequential(
        nn.Conv1d(toy.DIM, 8, 1),
        nn.GLU(dim=1),
        nn.Conv1d(4, 4, 5, groups=4, padding="same"),
        nn.BatchNorm1d(4),
        nn.SiLU(),
        nn.Conv1d(4, toy.DIM, 1),
    ).eval()
    for ours, theirs in zip(
        (made.expand, made.depthwise, made.batch_norm, made.project),
        (reference[0], reference[2], reference[3], reference[5]),
        strict=True,
    ):
        theirs.weight.data.copy_(ours.weight.data.reshape(theirs.weight.shape))
        theirs.bias.data.copy_(ours.bias.data)
    expected = reference(made.norm(h).transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(made.change(h, Context()), expected)


def test_parallel_reads_what_enters_and_series_what_leaves():
    x, y = torch.randn(2, 9, toy.DIM), torch.randn(2, 9, toy.DIM)
    for form, seen in (("parallel", x), ("series", y)):
        made = part(form=form).eval()
        assert torch.equal(made(x, y, Context()), y + made.change(seen, Context()))


@pytest.mark.parametrize("kernel", [1, 5, 8])
def test_padding_reaches_no_frame_that_holds_signal(kernel):
    made = part(kernel=kernel).eval()
    h, mask = clips()
    together = made.change(h, Context(mask=mask))
    alone = made.change(h[1:, :6], Context())
    torch.testing.assert_close(together[1:, :6], alone)
    if kernel > 1:
        assert not torch.allclose(made.change(h, Context())[1:, :6], alone), "the mask made no difference"


def test_padding_has_no_part_in_the_statistics():
    batched, alone = part().train(), part().train()
    alone.load_state_dict(batched.state_dict())
    h, mask = clips()
    batched.change(h[1:], Context(mask=mask[1:]))
    alone.change(h[1:, :6], Context())
    torch.testing.assert_close(batched.batch_norm.running_mean, alone.batch_norm.running_mean)
    torch.testing.assert_close(batched.batch_norm.running_var, alone.batch_norm.running_var)


def test_without_padding_its_norm_is_batch_norm():
    ours, theirs = part().batch_norm.train(), nn.BatchNorm1d(4).train()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    h = torch.randn(2, 9, 4)
    torch.testing.assert_close(ours(h, None, count=True), theirs(h.transpose(1, 2)).transpose(1, 2))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def adapted() -> AdaptedModel:
    torch.manual_seed(0)
    return AdaptedModel(toy.toy(), toy.sites(), {"a": Convpass(width=4)})


def test_statistics_are_saved_with_the_adapter(tmp_path):
    model = adapted().train()
    model(toy.speech())
    save.write(tmp_path / "saved", model, "a", toy.CARD)
    fresh = adapted()
    save.read(tmp_path / "saved").load_into(fresh, "a")
    part = fresh.at("a", fresh.sites["a"][0])
    assert part.get_buffer("batch_norm.running_mean").any()
    model.eval(), fresh.eval()
    assert torch.equal(fresh(toy.speech(seed=1)), model(toy.speech(seed=1)))


def test_gradient_checkpointing_counts_a_batch_once():
    statistics = []
    for checkpointed in (False, True):
        model = adapted().train()
        if checkpointed:
            model.recompute()
        model.trainable("a")
        model(toy.speech()).sum().backward()
        statistics.append([b.clone() for b in model.adapters.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*statistics, strict=True))


def test_mask_of_another_length_is_refused_with_the_sites_name():
    with pytest.raises(SpeechPeftError, match=r"layers\.0\.ffn: .* mask is \(2, 4\) .* \(2, 9\)"):
        part().change(clips()[0], Context(mask=torch.ones(2, 4, dtype=torch.bool)))


@torch.no_grad()
@pytest.mark.parametrize("family", ["wav2vec2-bert", "parakeet"])
def test_encoders_that_mask_padding_let_it_know(family):
    backbone = tiny("conformer", family=family)
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": Convpass(width=4)}).eval()
    for parameter in model.parameters_of("a"):
        nn.init.normal_(parameter)
    audio, lengths = 0.1 * torch.randn(2, 16000), torch.tensor([16000, 9600])
    together = backbone.encode(backbone.prepare(audio, lengths))
    alone = backbone.encode(backbone.prepare(audio[1:, :9600], lengths[1:]))
    frames = int(alone.mask.sum())
    torch.testing.assert_close(together.states[1, :frames], alone.states[0, :frames], atol=1e-4, rtol=1e-4)
    with model.context(Context(mask=torch.ones_like(together.mask))):
        leaking = backbone.encode(backbone.prepare(audio, lengths)).states
    assert not torch.allclose(leaking[1, :frames], alone.states[0, :frames], atol=1e-3), "no padding was near"


def test_width_and_reduction_exclude_each_other():
    assert Convpass().reduction == 96
    assert Convpass(width=8).reduction is None
    with pytest.raises(ValueError, match="width or reduction"):
        Convpass(width=8, reduction=4)


def test_glu_halves_its_input_and_a_fresh_adapter_adds_nothing():
    made = Convpass(width=4).build(SITE, nn.Identity(), None)
    assert isinstance(made, _Convpass)
    assert F.glu(made.expand(torch.randn(1, 2, toy.DIM)), -1).shape == (1, 2, 4)
    assert not made.change(torch.randn(1, 2, toy.DIM), Context()).any()
