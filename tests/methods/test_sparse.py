"""Facts of SparseAdapter: how many weights stay, which ones each score keeps, and what hosts it needs."""

import pytest
import torch
from torch import Tensor, nn

from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved import save
from speech_peft.core.wrapping import constraints
from speech_peft.errors import ConfigError, SpeechPeftError
from speech_peft.methods.pruning.counts import erdos_renyi
from speech_peft.methods.pruning.scores import Scores
from speech_peft.methods.sparse import Masked, Sparse
from tests import toy

HOST = {"method": "bottleneck", "width": 8, "zero_up": False}
ALL = ("random", "magnitude", "snip", "grasp", "synflow", "er")
BATCHES = [toy.speech(seed=seed) for seed in (1, 2)]


def method(of: dict | None = None, **settings) -> Sparse:
    return Sparse.model_validate({"of": {**HOST, **(of or {})}, **settings})


def model(settings: Sparse, seed: int = 0) -> AdaptedModel:
    torch.manual_seed(seed)
    return AdaptedModel(toy.toy(), toy.sites(), {"a": settings})


def loss_of(adapted: AdaptedModel):
    """Twice differentiable in the adapter, and nowhere flat."""
    return lambda states: adapted(states).square().mean()


def pruned(settings: Sparse, batches=BATCHES, seed: int = 0) -> AdaptedModel:
    adapted = model(settings, seed)
    settings.lifecycle(adapted, "a").on_fit_start(loss_of(adapted), batches)
    return adapted


def masks(adapted: AdaptedModel) -> list[Tensor]:
    return [masked.mask for _, masked in constraints(adapted.adapters["a"], Masked)]


def weights(adapted: AdaptedModel) -> list[nn.Parameter]:
    return [steps.original for steps, _ in constraints(adapted.adapters["a"], Masked)]


def highest(scores: list[Tensor], density: float) -> list[Tensor]:
    flat = torch.cat([score.flatten() for score in scores])
    threshold = flat.sort(descending=True).values[round(density * len(flat)) - 1]
    return [score >= threshold for score in scores]


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("score", ALL)
def test_as_many_stay_as_density_says(score, scope):
    found = masks(pruned(method(score=score, scope=scope, density=0.3)))
    kept, size = sum(int(m.sum()) for m in found), sum(m.numel() for m in found)
    assert abs(kept - 0.3 * size) <= (0.5 if scope == "global" or score == "er" else len(found) / 2)
    if scope == "local":
        assert all(abs(int(m.sum()) - 0.3 * m.numel()) <= 1 for m in found)


def test_density_is_what_stays_not_what_goes():
    assert method().share == 0.6
    found = masks(pruned(method(score="magnitude", density=0.125)))
    assert sum(int(m.sum()) for m in found) == sum(m.numel() for m in found) / 8


def test_snip_keeps_the_largest_weight_times_gradient_summed_over_batches():
    adapted = model(method(score="snip", density=0.25)).eval()
    summed = [torch.zeros_like(w) for w in weights(adapted)]
    for batch in BATCHES:
        for total, g in zip(
            summed, torch.autograd.grad(loss_of(adapted)(batch), weights(adapted)), strict=True
        ):
            total += g
    expected = highest([(w * g).abs() for w, g in zip(weights(adapted), summed, strict=True)], 0.25)
    adapted.methods["a"].lifecycle(adapted, "a").on_fit_start(loss_of(adapted), BATCHES)
    assert all(torch.equal(a, b) for a, b in zip(masks(adapted), expected, strict=True))
    assert all(w.grad is None for w in weights(adapted))  # nothing is left for the first step


def test_gradients_are_summed_before_they_are_made_positive():
    adapted = model(method(score="snip"))
    life = adapted.methods["a"].lifecycle(adapted, "a")
    with pytest.raises(SpeechPeftError, match="scores are all zero"):  # they cancel
        life.on_fit_start(lambda sign: sign * adapted(toy.speech()).square().mean(), [1.0, -1.0])


def test_it_is_scored_without_dropout_and_goes_on_in_training_mode():
    one, two = (pruned(method({"dropout": 0.5}, score="snip"), seed=0).train() for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(masks(one), masks(two), strict=True))
    adapted = model(method(score="random")).train()
    adapted.methods["a"].lifecycle(adapted, "a").on_fit_start(loss_of(adapted), [])
    assert adapted.training
    assert not adapted.base.training


def test_grasp_keeps_the_largest_weight_times_hessian_times_gradient():
    adapted = model(method(score="grasp", density=0.5))
    curvature = torch.linspace(-1, 3, 128).view(8, 16)
    first = weights(adapted)[0]
    others = weights(adapted)[1:]

    def quadratic(batch) -> Tensor:  # H = diag(c) for the first matrix, and no gradient elsewhere
        return (curvature * first.square()).sum() / 2 + sum((0 * w).sum() for w in others)

    scores = Scores(adapted, "a", weights(adapted)).by("grasp", 0, quadratic, [None])
    torch.testing.assert_close(scores[0], (first * curvature).square())
    assert not scores[1].any()


def test_grasp_says_so_where_a_loss_has_no_second_derivative():
    adapted = model(method(score="grasp"))

    def ctc(states: Tensor) -> Tensor:
        log_probs, labels = adapted(states).log_softmax(-1).transpose(0, 1), torch.tensor([[1, 2], [3, 4]])
        return nn.functional.ctc_loss(log_probs, labels, torch.tensor([5, 5]), torch.tensor([2, 2]))

    with pytest.raises(SpeechPeftError, match=r"grasp needs second derivatives.*use score=snip"):
        adapted.methods["a"].lifecycle(adapted, "a").on_fit_start(ctc, BATCHES)


def test_synflow_is_the_flow_of_ones_through_positive_weights():
    adapted = model(method({"bias": False, "norm": True, "sites": ["layers.0.ffn"]}, score="synflow"))
    before = [w.clone() for w in weights(adapted)]
    scores = Scores(adapted, "a", weights(adapted)).by("synflow", 0, loss_of(adapted), [])
    down, up = (w.abs() for w in before)
    into, out = down.sum(1), up.sum(0)  # what reaches a hidden channel, and what it reaches
    torch.testing.assert_close(scores[0], 4 * down * out[:, None])  # of four frames
    torch.testing.assert_close(scores[1], 4 * up * into)
    assert all(torch.equal(a, b) for a, b in zip(weights(adapted), before, strict=True))  # signs are back


def test_er_gives_small_matrices_a_larger_share_and_fills_none_beyond_it():
    shapes = [(64, 64), (64, 16, 3), (4, 4)]
    counts = erdos_renyi(shapes, 0.3)
    assert sum(counts) == round(0.3 * (4096 + 3072 + 16))
    assert counts[2] == 16
    assert counts[0] / counts[1] == pytest.approx(128 / 83, rel=0.01)
    assert erdos_renyi([(8, 16), (16, 8)], 0.25) == [32, 32]  # of one shape: random, in each
    assert erdos_renyi(shapes, 1.0) == [4096, 3072, 16]


def test_rounds_end_at_the_same_density_and_bring_nothing_back():
    found = masks(pruned(method(score="snip", density=0.2, rounds=3)))
    assert sum(int(m.sum()) for m in found) == round(0.2 * sum(m.numel() for m in found))
    once, thrice = (masks(pruned(method(score="magnitude", rounds=rounds))) for rounds in (1, 3))
    assert all(torch.equal(a, b) for a, b in zip(once, thrice, strict=True))  # nothing changed in between


def test_what_is_masked_has_no_gradient_and_no_influence():
    adapted = pruned(method(score="snip", density=0.4)).train()
    x, away = toy.speech(), [~mask for mask in masks(adapted)]
    adapted(x).square().mean().backward()
    assert not any(w.grad[m].any() for w, m in zip(weights(adapted), away, strict=True))
    before = adapted(x)
    with torch.no_grad():
        for weight, m in zip(weights(adapted), away, strict=True):
            weight[m] = torch.inf
    assert torch.equal(adapted(x), before)


@pytest.mark.parametrize("score", ["snip", "magnitude", "grasp", "synflow"])
def test_a_host_that_starts_at_zero_is_refused_with_the_reason(score):
    with pytest.raises(
        ConfigError, match=rf"up\.weight starts at zero, so by {score} its scores.*init_std=0\.02"
    ):
        model(method({"zero_up": True}, score=score))


def test_a_host_that_starts_at_zero_is_welcome_to_chance_or_with_a_start():
    assert method({"zero_up": True}, score="random").identity_at_init
    pruned(method({"zero_up": True}, score="random"))
    settings = method({"zero_up": True}, score="snip", init_std=0.02)
    assert not settings.identity_at_init
    assert all(0 < w.abs().max() <= 0.5 for w in weights(pruned(settings)))


def test_scores_that_are_no_numbers_are_refused():
    adapted = model(method(score="snip"))
    with pytest.raises(SpeechPeftError, match="scores are not finite"):
        adapted.methods["a"].lifecycle(adapted, "a").on_fit_start(
            lambda states: adapted(states).sum() * torch.inf, BATCHES
        )


def test_matrices_of_one_shape_keep_their_own_masks(tmp_path):
    square = method({"width": toy.DIM}, score="snip", density=0.5)
    adapted = pruned(square)
    assert len({m.shape for m in masks(adapted)}) == 1
    assert not torch.equal(*masks(adapted)[:2])
    save.write(tmp_path / "a", adapted, "a", toy.CARD)
    loaded = model(square, seed=1)
    save.read(tmp_path / "a").load_into(loaded, "a")
    assert all(torch.equal(a, b) for a, b in zip(masks(loaded), masks(adapted), strict=True))


def test_a_file_holds_what_stays_and_a_bit_for_each_weight(tmp_path):
    adapted = pruned(method(score="snip", density=0.3))
    folder = save.write(tmp_path / "a", adapted, "a", toy.CARD)
    content = (folder / "adapter.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    sparse = sum(4 * int(m.sum()) + -(-m.numel() // 8) for m in masks(adapted))
    biases = 4 * toy.DEPTH * (8 + toy.DIM)
    assert len(content) == header + sparse + biases


def test_masks_stay_through_decay_and_what_they_leave_out_is_saved_as_nothing(tmp_path):
    adapted = pruned(method(score="snip", density=0.3)).train()
    before = [m.clone() for m in masks(adapted)]
    optimiser = torch.optim.AdamW(adapted.trainable("a"), lr=0.1, weight_decay=0.5)
    adapted(toy.speech()).square().mean().backward()
    optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(masks(adapted), before, strict=True))
    save.write(tmp_path / "a", adapted, "a", toy.CARD)
    loaded = model(adapted.methods["a"], seed=1)
    save.read(tmp_path / "a").load_into(loaded, "a")
    assert all(torch.equal(w != 0, m) for w, m in zip(weights(loaded), before, strict=True))
    # Learning on from a file scores nothing anew.
    loaded.methods["a"].lifecycle(loaded, "a").on_fit_start(loss_of(loaded), BATCHES[:1])
    assert all(torch.equal(a, b) for a, b in zip(masks(loaded), before, strict=True))


@pytest.mark.parametrize(
    "of",
    [
        {"method": "bottleneck", "width": 4},
        {"method": "bottleneck", "reduction": 4},
        {"method": "lora", "rank": 2, "sites": ["*.ffn.up"]},
    ],
    ids=["width", "reduction", "rank"],
)
def test_large_sparse_has_the_weights_of_a_host_that_is_not(of):
    sparse = Sparse.model_validate({"of": of, "large": 4, "score": "random"})
    kept = sum(int(m.sum()) for m in masks(pruned(sparse)))
    dense = AdaptedModel(toy.toy(), toy.sites(), {"a": sparse.of})
    assert kept == sum(p.numel() for p in dense.parameters_of("a") if p.dim() > 1)
    assert len(weights(pruned(sparse))[0]) == 4 * 4 if of.get("method") == "bottleneck" else 8


def test_large_sparse_leaves_a_loras_scale():
    wide = Sparse.model_validate({"of": {"method": "lora", "rank": 2, "alpha": 6}, "large": 4, "score": "er"})
    assert wide.host.alpha / wide.host.rank == 3
    assert Sparse.model_validate(wide.model_dump(mode="json")) == wide


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"large": 2, "density": 0.5}, "give one of the two"),
        ({"rounds": 2, "score": "random"}, "random learns nothing from one round"),
        ({"large": 2, "of": {"method": "prefix"}}, "prefix has neither width nor rank"),
        ({"density": 0.0}, "greater than 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Sparse.model_validate({"of": HOST, **settings})
