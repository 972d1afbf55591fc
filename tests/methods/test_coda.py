"""Facts of CoDA: the router's weights, who is selected, what is left out, and what that saves."""

from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from speech_peft.backbones.base import Backbone
from speech_peft.backbones.families import tiny
from speech_peft.backbones.whisper import STACKS
from speech_peft.core.context import Context
from speech_peft.core.model import AdaptedModel
from speech_peft.errors import ConfigError
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.coda import Coda, soft_top_k
from tests import toy

AUDIO = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))


def adapted(name: str, method: Coda, **options: Any) -> tuple[Backbone, AdaptedModel]:
    """A tiny backbone and trained-looking adapters on it."""
    backbone = tiny(name, **options)
    torch.manual_seed(0)
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": method}).eval()
    with torch.no_grad():
        for parameter in model.parameters_of("a"):
            parameter.add_(0.2 * torch.randn_like(parameter))
    return backbone, model


def parts(model: AdaptedModel) -> list[Any]:
    return [model.at("a", site) for site in model.sites["a"]]


def widths(modules: list[Any]) -> list[tuple[int, ...]]:
    """The batch and frames of what passes each module, one entry a call."""
    seen: list[tuple[int, ...]] = []

    def note(module: nn.Module, args: tuple, kwargs: dict) -> None:
        seen.append(tuple((args[0] if args else kwargs["hidden_states"]).shape[:2]))

    for module in modules:
        module.register_forward_pre_hook(note, with_kwargs=True)
    return seen


# --- the router's weights ---


def iterated(s: Tensor, k: int, epsilon: float, steps: int, anneal: bool) -> Tensor:
    """The published way to lambda."""
    a, b = torch.zeros(len(s), 1), torch.zeros_like(s)
    for t in range(steps):
        now = max(4 * 0.7**t, epsilon) if anneal else epsilon
        a = now * (torch.tensor(k).log() - ((s + b) / now).logsumexp(-1, keepdim=True))
        b = (-s - a).clamp(max=0)
    return ((s + a + b) / epsilon).exp()


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.03, 0.01])
def test_weights_lie_in_the_unit_interval_sum_to_k_and_follow_the_score(epsilon):
    score = torch.randn(3, 200)
    score[1, 150:] = score[2, 20:] = -torch.inf
    k = torch.tensor([60, 50, 20])
    weights = soft_top_k(score, k, epsilon)
    torch.testing.assert_close(weights.sum(-1), k.float(), atol=1e-3, rtol=0)
    assert weights.min() >= 0
    assert weights.max() <= 1
    in_order = weights.gather(1, score.argsort(-1))
    assert (in_order.diff(dim=-1) >= 0).all()
    assert not weights[score.isinf()].any()
    assert torch.equal(weights[2, :20], torch.ones(20)), "k of k frames weigh one each"


def test_a_small_epsilon_gives_the_top_k():
    score = torch.randn(4, 100).double()
    weights = soft_top_k(score, torch.full((4,), 30), 1e-4)
    hard = torch.zeros_like(score).scatter(1, score.topk(30).indices, 1.0)
    torch.testing.assert_close(weights, hard, atol=1e-2, rtol=0)


def test_weights_are_the_fixed_point_of_the_published_iteration_which_20_steps_miss():
    score = torch.randn(1, 180, generator=torch.Generator().manual_seed(1))
    for epsilon, steps in ((1.0, 20), (0.1, 4000)):
        found = soft_top_k(score, torch.tensor([60]), epsilon)
        torch.testing.assert_close(found, iterated(score, 60, epsilon, steps, anneal=True), atol=2e-3, rtol=0)
    short = iterated(score, 60, 0.03, 20, anneal=False)
    assert abs(float(short.sum()) - 60) > 10
    assert float(soft_top_k(score, torch.tensor([60]), 0.03).sum()) == pytest.approx(60, abs=1e-3)


def test_the_gradient_of_the_weights_is_that_of_the_numbers():
    score = torch.randn(2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: soft_top_k(s, torch.tensor([3, 5]), 0.7), (score,))


# --- at k = n ---


@torch.no_grad()
@pytest.mark.parametrize("name", ["whisper", "ast"])
def test_with_all_frames_it_is_the_parallel_adapter(name):
    backbone, model = adapted(name, Coda(width=4), context="fit")
    twin = tiny(name, context="fit")
    method = Bottleneck(form="parallel", sites=("layers.*.block",), width=4, norm=True)
    dense = AdaptedModel(twin.module, twin.sites(), {"a": method}).eval()
    for part, other in zip(parts(model), parts(dense), strict=True):
        cast(Any, other).branch.load_state_dict(
            {key: value for key, value in part.state_dict().items() if key != "router"}
        )
    features = backbone.prepare(AUDIO, torch.tensor([16000, 16000]))
    expected = twin.encode(features).states
    for ratio, off in ((1.0, 0.0), (1 + 1e-9, 1e-5)):  # left out of the way, and all n of n selected
        for part in parts(model):
            part.ratio = ratio
        torch.testing.assert_close(backbone.encode(features).states, expected, atol=off, rtol=off)


# --- who is selected ---


@torch.no_grad()
@pytest.mark.parametrize("attend", ["k_to_k", "k_to_all"])
def test_padding_is_never_selected_nor_attended_to(attend):
    backbone, _ = adapted("whisper", Coda(width=4, attend=attend), context="fit")
    short, long = AUDIO[:1, :6400], AUDIO[1:]
    alone = backbone.encode(backbone.prepare(short, torch.tensor([6400]))).states[0, :20]
    both = torch.cat((torch.nn.functional.pad(short, (0, 9600)), long))
    together = backbone.encode(backbone.prepare(both, torch.tensor([6400, 16000])))
    torch.testing.assert_close(together.states[0, :20], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_each_clip_gets_its_share_of_its_own_frames_in_the_order_of_time():
    part = parts(adapted("whisper", Coda(width=4))[1])[0]
    sound = torch.arange(50) < torch.tensor([[50], [20], [0]])
    selection = part.select(torch.randn(3, 50, 32), Context(sound=sound))
    assert selection.frames.shape == (3, 17)
    assert selection.taken.sum(1).tolist() == [17, 7, 17], "n / 3, rounded up; of a silent clip any"
    assert (selection.frames.diff(dim=-1) > 0).all()
    assert sound[1].gather(0, selection.frames[1][selection.taken[1]]).all()
    assert not selection.weights[~selection.taken].any()
    short = part.select(torch.randn(1, 50, 32), Context(sound=sound[1:2]))
    assert short.frames.shape == (1, 7), "and no more places than the longest clip needs"


@torch.no_grad()
def test_a_clip_padded_to_the_window_costs_what_its_own_frames_cost():
    backbone, _ = adapted("whisper", Coda(width=4), seconds=4.0)
    seen = widths([block.fc1 for block in backbone.blocks])
    backbone.encode(backbone.prepare(AUDIO[:1, :9600], torch.tensor([9600])))
    assert seen == [(1, 10)] * 2, "a third of 30 frames, of 200"


@torch.no_grad()
def test_tokens_that_sum_up_a_clip_are_always_selected_with_full_weight():
    backbone, model = adapted("ast", Coda(width=4, ratio=8))
    part = parts(model)[0]
    features = backbone.prepare(AUDIO, torch.tensor([16000, 8000]))
    states = backbone.prefix(features, 0)
    normal = torch.nn.functional.layer_norm(states, states.shape[-1:])
    part.router.copy_(-(normal[0, 0] + normal[0, 1]))  # least of all these two
    selection = part.select(states, backbone._known(features, states))
    assert selection.frames[:, :2].tolist() == [[0, 1]] * 2
    assert selection.weights[:, :2].tolist() == [[1.0, 1.0]] * 2
    columns = features.lengths.tolist()
    assert selection.taken.sum(1).tolist() == [2 + -(-n * backbone.bands // 8) for n in columns]
    sound = backbone._known(features, states).sound
    assert sound.gather(1, selection.frames)[selection.taken].all()


@torch.no_grad()
def test_the_router_reads_in_float32_under_autocast():
    part = parts(adapted("whisper", Coda(width=4, epsilon=0.02))[1])[0]
    x = torch.randn(2, 40, 32)
    with torch.autocast("cpu", torch.bfloat16):
        found = part.select(x, Context())
    assert torch.equal(found.weights, part.select(x, Context()).weights)
    assert found.weights.dtype == torch.float32


def test_a_router_that_learned_is_better_than_one_at_random():
    torch.manual_seed(0)
    site = next(site for site in toy.sites() if site.name == "layers.0.ffn")
    part: Any = Coda(width=4, preset="ffn").build(site, nn.Identity(), None)
    loud = torch.randn(toy.DIM)

    def off() -> Tensor:
        x = torch.randn(8, 30, toy.DIM)
        update = x * (x @ loud > 1.5)[..., None]  # a span that does much to few frames
        selection = part.select(x, Context())
        return (selection.put_back(x, selection.take(update)) - update).square().mean()

    with torch.no_grad():
        at_random = torch.stack([off() for _ in range(5)]).mean()
    optimiser = torch.optim.Adam([part.router], lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        off().backward()
        optimiser.step()
    with torch.no_grad():
        assert torch.stack([off() for _ in range(5)]).mean() < 0.7 * at_random


# --- what it saves ---


def flops(dim: int, heads: int, method: Coda | None) -> int:
    """Operations of one block of Whisper on 1500 frames, counted without computing any."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH):  # fused, a CPU's attention would count as nothing
        config = WhisperConfig(
            d_model=dim, encoder_layers=1, encoder_attention_heads=heads, encoder_ffn_dim=4 * dim
        )
        encoder = WhisperEncoder(config)
        stack = STACKS[0]
        rows = type(stack)("layers", stack.rows, stack.free)
        AdaptedModel(encoder, rows.sites(encoder, 1, dim), {} if method is None else {"a": method})
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            encoder.layers[0](torch.empty(1, 1500, dim), attention_mask=None)
    return counter.get_total_flops()


@pytest.mark.parametrize(("dim", "heads"), [(384, 6), (512, 8), (768, 12)])
def test_a_third_of_the_frames_takes_a_third_of_the_operations_and_less(dim, heads):
    stock = flops(dim, heads, None)
    assert stock / flops(dim, heads, Coda()) >= 3.4
    assert stock / flops(dim, heads, Coda(attend="k_to_all")) >= 2.3
    assert stock / flops(dim, heads, Coda(ratio=5)) >= 5.4


@torch.no_grad()
def test_in_a_conformer_attention_and_filters_stay_dense():
    backbone, model = adapted("conformer", Coda(width=4, preset="ffn"), family="wav2vec2-bert")
    block = backbone.blocks[0]
    features = backbone.prepare(AUDIO, torch.tensor([16000, 9600]))
    dense, sparse = widths([block.self_attn, block.conv_module]), widths([block.ffn2])
    states = backbone.encode(features).states
    assert dense == [states.shape[:2]] * 2
    assert sparse == [(2, -(-int(features.lengths.max()) // 3))]
    site = model.sites["a"][0]
    assert site.fixed_length, "frames are left out and put back inside it alone"


@pytest.mark.parametrize("family", ["wav2vec2-bert", "wav2vec2-conformer", "parakeet"])
def test_blocks_that_need_contiguous_frames_are_refused(family):
    backbone = tiny("conformer", family=family)
    with pytest.raises(ConfigError, match=r"layers\.0\.block is a site of fixed length.*Use preset: ffn"):
        AdaptedModel(backbone.module, backbone.sites(), {"a": Coda()})


def test_other_refusals_name_the_site():
    backbone = tiny("whisper")
    for settings, why in (
        ({"sites": ("decoder.layers.*.ffn",)}, r"decoder\.layers\.0\.ffn, in a decoder"),
        ({"preset": "ffn", "attend": "k_to_all"}, r"that layers\.0\.ffn does not work on"),
    ):
        with pytest.raises(ConfigError, match=why):
            AdaptedModel(backbone.module, backbone.sites(), {"a": Coda(**settings)})
    sites = [replace(site, fixed_length=False) for site in toy.sites()]
    with pytest.raises(ConfigError, match=r"layers\.0\.block: Block has an attention 'of no name'"):
        AdaptedModel(toy.toy(), sites, {"a": Coda()})


# --- the procedure ---


def test_frames_fall_from_all_to_the_target_and_evaluation_is_at_the_target():
    _, model = adapted("whisper", Coda(width=4, ratio=4, ramp_steps=30))
    life = cast(Any, model.methods["a"].lifecycle(model, "a"))
    part, shares = parts(model)[0], []
    for step in range(40):
        life.before_forward(step)
        shares.append(1 / part.ratio)
    assert shares[0] == pytest.approx(1 - 0.75 / 30)
    assert shares[29:] == pytest.approx([0.25] * 11)
    assert all(b < a for a, b in pairwise(shares[:30]))
    life.before_forward(3)
    life.before_eval()
    assert part.ratio == 4


def test_the_first_router_selects_frames_that_the_block_changes_most():
    backbone, model = adapted("whisper", Coda(width=4), context="fit")
    life = cast(Any, model.methods["a"].lifecycle(model, "a"))
    batches = [backbone.prepare(AUDIO, torch.tensor([16000, 9600]))]
    life.on_fit_start(lambda features: backbone.encode(features).states.mean(), batches)
    life.before_eval()
    with torch.no_grad(), model.using():
        states = backbone.prefix(batches[0], 0)
        sizes = (backbone.prefix(batches[0], 1) - states).norm(dim=-1)
    known = backbone._known(batches[0], states)
    with torch.no_grad():
        selection = parts(model)[0].select(states, known)
    chosen = sizes.gather(1, selection.frames)[selection.taken].log().mean()
    every = sizes[known.sound].log()
    assert chosen > every.mean() + 0.5 * every.std()
    assert all(part.guess is None for part in parts(model))
