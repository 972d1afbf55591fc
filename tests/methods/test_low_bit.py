"""Facts of the paper on one-bit adapters: codes, gradient, file sizes; and what is easily got wrong."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from speech_peft.compose.merge import merge
from speech_peft.core.model import AdaptedModel
from speech_peft.core.packing import pack_digits, places, unpack_digits
from speech_peft.core.saved import save
from speech_peft.core.saved.save import BackboneCard
from speech_peft.core.site import Site
from speech_peft.methods.low_bit import LowBit, Quantised, codes, thresholds
from tests import toy

HOST = {"method": "bottleneck", "width": 8, "bias": False}
BLOCKS, DIM = 12, 768


def method(bits: int = 1, **host) -> LowBit:
    return LowBit.model_validate({"bits": bits, "of": {**HOST, **host}})


def model(settings: LowBit, seed: int = 0) -> AdaptedModel:
    torch.manual_seed(seed)
    return AdaptedModel(toy.toy(), toy.sites(), {"a": settings}).eval()


def latents(adapted: AdaptedModel) -> list[nn.Parameter]:
    return adapted.parameters_of("a")


def payload(file) -> int:
    """Bytes of the tensors in a safetensors file: all of it but its header and that one's length."""
    content = file.read_bytes()
    return len(content) - 8 - int.from_bytes(content[:8], "little")


def wide(**methods) -> AdaptedModel:
    """Adapters on twelve blocks of 768, which is all that file sizes depend on."""
    base = nn.Module()
    base.layers = nn.ModuleList(nn.Identity() for _ in range(BLOCKS))
    places = [("ffn", "ffn"), ("attn.q", "linear"), ("attn.v", "linear")]
    found = [
        Site(f"layers.{i}.{n}", k, *[f"layers.{i}"] * 2, DIM, DIM) for i in range(BLOCKS) for n, k in places
    ]
    return AdaptedModel(base, found, methods)


def test_codes_are_medians_of_their_bins_not_means():
    assert codes(1) == pytest.approx((-0.6745, 0.6745), abs=1e-4)  # the means would be 0.798
    assert codes(2) == pytest.approx((-1.266, -0.378, 0.378, 1.266), abs=1e-3)
    assert thresholds(2) == pytest.approx((-0.822, 0, 0.822), abs=1e-3)


LORA = {"method": "lora", "rank": 32, "sites": ["layers.*.attn.[qv]"]}


@pytest.mark.parametrize(
    ("of", "published", "with_head"),
    [({"method": "bottleneck", "width": 32, "bias": False}, 73_920, 83_528), (LORA, 147_840, 157_448)],
    ids=["bottleneck", "lora"],
)
def test_a_file_has_the_published_size_to_the_byte(tmp_path, of, published, with_head):
    settings = LowBit.model_validate({"of": of})
    head = nn.Linear(DIM, 100, bias=False)  # the paper's head for 100 classes, quantised as well
    settings.constrain(head, "head")
    card = BackboneCard(name="vit", id="vit", dim=DIM, layers=BLOCKS)
    folder = save.write(tmp_path / "a", wide(a=settings), "a", card, heads={"classify": head})
    assert payload(folder / "adapter.safetensors") == published
    assert payload(folder / "adapter.safetensors") + payload(folder / "head.safetensors") == with_head


def test_a_float_head_makes_the_published_381_520_bytes_and_a_float_adapter_31_92_times_as_many(tmp_path):
    host = {"method": "bottleneck", "width": 32, "bias": False}
    card = BackboneCard(name="vit", id="vit", dim=DIM, layers=BLOCKS)
    sizes = []
    low = LowBit.model_validate({"of": host})
    for name, settings in (("low", low), ("float", low.of)):
        heads = {"classify": nn.Linear(DIM, 100)}
        folder = save.write(tmp_path / name, wide(a=settings), "a", card, heads=heads)
        sizes.append(payload(folder / "adapter.safetensors"))
    assert sizes[0] + payload(tmp_path / "low" / "head.safetensors") == 381_520
    assert sizes[1] / sizes[0] == pytest.approx(31.92, abs=0.01)


@pytest.mark.parametrize("bits", [1, 2])
def test_a_matrix_has_as_many_values_as_there_are_codes_and_statistics_of_its_own(bits):
    adapted = model(method(bits))
    branch = adapted.at("a", adapted.sites["a"][0]).branch
    for layer in (branch.down, branch.up):
        assert len(layer.weight.unique()) == 2**bits
        w = layer.parametrizations.weight.original
        levels = (layer.weight.unique() - w.mean()) / w.std()
        assert levels.tolist() == pytest.approx(codes(bits), abs=1e-3)


def test_a_weight_at_the_mean_makes_no_third_value():
    made = Quantised(1)(torch.tensor([[-1.0, 0.0, 1.0]]))
    assert made.unique().tolist() == pytest.approx([-0.6745, 0.6745], abs=1e-4)


@pytest.mark.parametrize("bits", [1, 2])
def test_the_gradient_is_straight_through_and_through_the_statistics(bits):
    torch.manual_seed(0)
    w, g = torch.randn(7, 9, requires_grad=True), torch.randn(7, 9)
    quantised = Quantised(bits)
    (quantised(w) * g).sum().backward()
    z = (w - w.mean()) / w.std()
    q = (quantised(w) - w.mean()) / w.std()
    expected = g + (g * (q - z)).sum() * z / (w.numel() - 1)
    assert torch.allclose(w.grad, expected, atol=2e-3)
    assert not torch.allclose(w.grad, g, atol=5e-3)  # what a detached sigma would give


def test_it_is_quantised_in_float32_under_autocast():
    w = torch.randn(7, 9)
    with torch.autocast("cpu", torch.bfloat16):
        inside = Quantised(2)(w)
    assert torch.equal(inside, Quantised(2)(w))


def test_zero_matrices_of_the_host_start_small_and_pass_a_gradient_on():
    adapted = model(method(), seed=1)
    branch = adapted.at("a", adapted.sites["a"][0]).branch
    up = branch.up.parametrizations.weight.original
    assert 0 < up.abs().max() <= 2e-3
    adapted(toy.speech()).sum().backward()
    assert branch.down.parametrizations.weight.original.grad.any()


def test_weight_decay_shrinks_what_the_adapter_gives():
    w = torch.randn(7, 9)
    assert torch.allclose(Quantised(1)(0.9 * w), 0.9 * Quantised(1)(w), atol=1e-4)


def test_a_step_between_two_passes_is_seen_by_the_second():
    adapted = model(method())
    before = adapted(toy.speech())
    with torch.no_grad():
        for latent in latents(adapted):
            latent.neg_()
    assert not torch.equal(adapted(toy.speech()), before)


def test_what_is_averaged_is_latent_and_quantised_afterwards():
    one, two = model(method(), seed=0), model(method(), seed=1)
    with torch.no_grad():
        for a, b in zip(latents(one), latents(two), strict=True):
            a.lerp_(b, 0.5)
    branch = one.at("a", one.sites["a"][0]).branch
    assert len(branch.down.weight.unique()) == 2  # the mean of two quantised matrices would have up to four


@torch.no_grad()
def test_what_is_merged_is_quantised():
    settings = LowBit.model_validate({"of": {"method": "lora", "rank": 4, "sites": ["*.attn.q"]}})
    adapted = model(settings)
    site = adapted.sites["a"][0]
    part = adapted.at("a", site)
    change = merge(adapted).layers[0].attn.q.weight - adapted.base.layers[0].attn.q.weight
    assert torch.allclose(change, part.scale * part.b @ part.a, atol=1e-6)
    assert len(part.a.unique()) == 2


@pytest.mark.parametrize("bits", [1, 2])
def test_packed_digits_begin_with_the_lowest_bits_and_lose_no_rest(bits):
    digits = torch.tensor([1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1])  # no multiple of what a byte holds
    packed = pack_digits(digits, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-13 * bits // 8)
    assert packed[0] == (0b10001101 if bits == 1 else 0b01010001)
    assert torch.equal(unpack_digits(packed, bits, 13), digits)


@pytest.mark.parametrize("bits", [1, 2])
def test_a_loaded_adapter_is_exact_and_learns_on_from_there(tmp_path, bits):
    trained = model(method(bits, width=5))
    with torch.no_grad():
        for latent in latents(trained):
            latent.mul_(3).add_(0.1)
    save.write(tmp_path / "a", trained, "a", toy.CARD)
    loaded = model(method(bits, width=5), seed=1)
    save.read(tmp_path / "a").load_into(loaded, "a")
    x = toy.speech()
    assert torch.equal(loaded(x), trained(x))
    loaded.methods["a"].lifecycle(loaded, "a").on_fit_start(lambda batch: x.sum(), [])
    # From here the statistics follow what is trained, and do not jump: the codes' own sigma is a third less.
    for mine, theirs in zip(
        *(places(m.at("a", m.sites["a"][0])).values() for m in (loaded, trained)), strict=True
    ):
        assert torch.equal(mine.packed.pack(*mine.trained)[0], theirs.packed.pack(*theirs.trained)[0])
        torch.testing.assert_close(
            mine.packed(*mine.trained), theirs.packed(*theirs.trained), rtol=1e-2, atol=1e-4
        )


def test_a_file_of_other_bits_is_refused_by_name(tmp_path):
    save.write(tmp_path / "a", model(method(1)), "a", toy.CARD)
    message = r"\.weight holds 16 bytes, expected 32: 128 times 2 bits"
    with pytest.raises(ValueError, match=message):
        save.read(tmp_path / "a").load_into(model(method(2)), "a")


def test_at_equal_bytes_wide_and_one_bit_fits_better_than_narrow_and_float():
    """32 channels of a bit each against one of float32, at a change of full rank."""
    torch.manual_seed(0)
    x, wanted = torch.randn(64, 16), torch.randn(16, 16) / 4
    y = torch.tanh(x) @ wanted
    left = {}
    for name, width in (("bit", 32), ("float", 1)):
        torch.manual_seed(1)
        branch = nn.Sequential(nn.Linear(16, width, bias=False), nn.ReLU(), nn.Linear(width, 16, bias=False))
        if name == "bit":
            method().constrain(branch, "branch")
        optimiser = torch.optim.Adam(branch.parameters(), lr=0.02)
        for _ in range(120):
            optimiser.zero_grad()
            loss = F.mse_loss(branch(x), y)
            loss.backward()
            optimiser.step()
        left[name] = float(loss.detach() / y.var())
    assert left["bit"] < left["float"] - 0.1
