"""Facts of MoSA: experts share no weight, the merge is their mean, only what was drawn is stepped."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from speech_peft.backbones.families import tiny
from speech_peft.core.context import Context
from speech_peft.core.lifecycle import Outcome, Predicted
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved import save
from speech_peft.core.wrapping import constraints
from speech_peft.errors import ConfigError, SpeechPeftError
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.mosa import Mosa, Split, disagreement
from tests import toy

HOST = {"method": "bottleneck", "width": 5, "zero_up": False}
X = toy.speech()


def method(**settings) -> Mosa:
    return Mosa.model_validate({"of": HOST, **settings})


def model(settings, seed: int = 0) -> AdaptedModel:
    torch.manual_seed(seed)
    return AdaptedModel(toy.toy(), toy.sites(), {"a": settings})


def trained(settings: Mosa, seed: int = 0) -> AdaptedModel:
    adapted = model(settings, seed)
    with torch.no_grad():
        for p in adapted.parameters_of("a"):
            p.add_(0.3 * torch.randn_like(p))
    return adapted


def splits(adapted: AdaptedModel, name: str = "a") -> list[tuple[Split, list[Tensor]]]:
    found = constraints(adapted.adapters[name], Split)
    return [(split, list(steps.parameters(recurse=False))) for steps, split in found]


def outputs_of_all_experts(adapted: AdaptedModel, monkeypatch) -> list[Tensor]:
    """What the first adapter makes of x as each of its experts by itself, the same for all its matrices."""
    part, found = adapted.at("a", adapted.sites["a"][0]), []
    adapted.methods["a"].lifecycle(adapted, "a").before_forward(0)
    adapted.train()
    for expert in range(adapted.methods["a"].experts):
        monkeypatch.setattr(Split, "expert", lambda self, draw, expert=expert: expert)
        found.append(part(X, X, Context()))
    adapted.eval()
    return found


@pytest.mark.parametrize("experts", [2, 4, 7])
def test_masks_are_a_partition_into_equal_parts(experts):
    for split, vectors in splits(model(method(experts=experts, share="none"))):
        masks = [split.mask(e) for e in range(experts)]
        assert torch.equal(torch.stack(masks).sum(0), torch.ones_like(masks[0], dtype=torch.long))
        sizes = [int(mask.sum()) for mask in masks]
        assert sizes == [len(vector) for vector in vectors]
        assert max(sizes) - min(sizes) <= 1


def test_an_expert_is_the_start_but_for_its_own_weights():
    adapted = trained(method())
    split, _ = splits(adapted)[0]
    up = adapted.at("a", adapted.sites["a"][0]).branch.up
    adapted.methods["a"].lifecycle(adapted, "a").before_forward(3)
    own = split.mask(split.expert(6))
    adapted.train()
    assert torch.equal(up.weight != split.start, own)


@torch.no_grad()
def test_the_merged_adapter_is_the_mean_of_all_experts_where_they_share_the_way_down(monkeypatch):
    adapted = trained(method(share="down"))
    part = adapted.at("a", adapted.sites["a"][0])
    mean = torch.stack(outputs_of_all_experts(adapted, monkeypatch)).mean(0)
    torch.testing.assert_close(part(X, X, Context()), mean, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_it_is_not_where_they_share_nothing(monkeypatch):
    adapted = trained(method(share="none"))
    part = adapted.at("a", adapted.sites["a"][0])
    mean = torch.stack(outputs_of_all_experts(adapted, monkeypatch)).mean(0)
    assert (part(X, X, Context()) - mean).abs().max() > 0.01


@pytest.mark.parametrize(("share", "split"), [("down", ["up"]), ("up", ["down"]), ("none", ["down", "up"])])
def test_share_names_the_matrices_that_all_experts_have(share, split):
    branch = model(method(share=share)).at("a", toy.sites()[8]).branch
    assert [name for name in ("down", "up") if hasattr(getattr(branch, name), "parametrizations")] == split


def test_one_expert_learns_bit_for_bit_what_its_host_learns():
    learned = []
    for settings in (method(experts=1, agreement=0.0), Bottleneck(width=5, zero_up=False)):
        adapted = model(settings).train()
        life = settings.lifecycle(adapted, "a")
        optimiser = torch.optim.AdamW(adapted.trainable("a"), lr=0.01, weight_decay=0.1)
        for step in range(3):
            optimiser.zero_grad()
            if life:
                life.before_forward(step)
            adapted(X).square().mean().backward()
            if life:
                life.after_backward()
            optimiser.step()
        learned.append(adapted.eval()(X))
    assert torch.equal(*learned)


def test_it_has_the_parameters_of_its_host():
    host = Bottleneck(width=5)
    count = [sum(p.numel() for p in model(one).parameters_of("a")) for one in (method(experts=4), host)]
    assert count[0] == count[1]


def test_what_was_not_drawn_is_neither_moved_nor_decayed():
    adapted = trained(method()).train()
    life = adapted.methods["a"].lifecycle(adapted, "a")
    optimiser = torch.optim.AdamW(adapted.trainable("a"), lr=0.1, weight_decay=0.5)
    for step in (0, 1):
        before = [[v.clone() for v in vectors] for _, vectors in splits(adapted)]
        optimiser.zero_grad()
        life.before_forward(step)
        adapted(X).square().mean().backward()
        assert all(v.grad is not None for _, vectors in splits(adapted) for v in vectors)  # as DDP asks for
        life.after_backward()
        optimiser.step()
        for (split, vectors), old in zip(splits(adapted), before, strict=True):
            moved = [not torch.equal(v, o) for v, o in zip(vectors, old, strict=True)]
            assert moved == [e == split.expert(2 * step) for e in range(4)]


def test_draws_follow_from_seed_step_and_matrix_alone():
    one, two = (splits(model(method(share="none"), seed=seed)) for seed in (0, 1))
    drawn = [[split.expert(draw) for draw in range(40)] for split, _ in one]
    assert drawn == [[split.expert(draw) for draw in range(40)] for split, _ in two]
    assert len({tuple(row) for row in drawn}) == len(drawn)  # each matrix has draws of its own
    assert all(set(row) == set(range(4)) for row in drawn)
    other = splits(model(method(share="none", seed=1)))
    assert [[split.expert(draw) for draw in range(40)] for split, _ in other] != drawn


def test_evaluation_sees_the_newest_weights():
    adapted = trained(method()).eval()
    before = adapted(X)
    with torch.no_grad():
        splits(adapted)[0][1][2].add_(1.0)
    assert not torch.equal(adapted(X), before)


def test_from_zero_the_merge_is_a_mean_and_not_a_sum():
    settings = Mosa.model_validate({"of": {"method": "bottleneck", "width": 5}})
    adapted = trained(settings)
    (_, vectors), site = splits(adapted)[0], adapted.sites["a"][0]
    union = torch.cat(vectors).sum()
    assert torch.allclose(adapted.at("a", site).branch.up.weight.sum(), union / 4, atol=1e-6)


def test_a_file_is_that_of_the_host(tmp_path):
    adapted, host = trained(method()).eval(), model(Bottleneck(width=5), seed=1).eval()
    folder = save.write(tmp_path / "a", adapted, "a", toy.CARD)
    save.read(folder).load_into(host, "a")
    assert torch.equal(host(X), adapted(X))
    again = model(method(), seed=1)
    save.read(folder).load_into(again, "a")
    assert torch.equal(again.eval()(X), adapted(X))


def test_a_pass_that_is_recomputed_uses_the_experts_of_its_own_draw():
    gradients = []
    for checkpointed in (False, True):
        adapted = trained(method(sites=("*.ffn",))).train()
        if checkpointed:
            adapted.recompute()
        life = adapted.methods["a"].lifecycle(adapted, "a")
        life.before_forward(0)
        loss = adapted(X).square().mean()
        life.before_forward(5)  # the second pass, say
        adapted(X)
        loss.backward()
        gradients.append(torch.cat([v.grad for _, vectors in splits(adapted) for v in vectors]))
    torch.testing.assert_close(*gradients)
    assert gradients[0].any()


def passes(adapted: AdaptedModel, kind: str = "class"):
    life = adapted.methods["a"].lifecycle(adapted.train(), "a")
    life.before_forward(0)

    def forward() -> Outcome:
        logits = adapted(X).flatten(0, 1)
        return Outcome(logits.square().mean(), Predicted(logits, kind))

    return life, forward(), forward


def test_two_passes_of_different_experts_are_drawn_together():
    adapted = trained(method())
    life, first, again = passes(adapted)
    terms = life.extra_losses(0, first, again)
    assert terms.keys() == {"agreement"}
    assert terms["agreement"] > 1e-4
    torch.autograd.grad(terms["agreement"], adapted.parameters_of("a"))
    assert adapted.current.draws == {"a": 0}
    life.after_backward()


def test_a_context_of_the_caller_s_does_not_switch_experts_off():
    adapted = trained(method()).train()
    life = adapted.methods["a"].lifecycle(adapted, "a")
    life.before_forward(0)
    drawn = adapted(X)
    assert torch.equal(adapted(X, ctx=Context(mask=torch.ones(X.shape[:2], dtype=torch.bool))), drawn)
    life.before_eval()
    assert not torch.equal(adapted(X), drawn)


def test_two_adapters_draw_and_learn_apart():
    methods = {"a": method(sites=("*.ffn",)), "b": method(sites=("*.ffn",), seed=1)}
    adapted = AdaptedModel(toy.toy(), toy.sites(), methods).train()
    lives = {name: m.lifecycle(adapted, name) for name, m in adapted.methods.items()}
    with torch.no_grad():
        for p in adapted.adapters.parameters():
            p.add_(0.1 * torch.randn_like(p))
    found: dict[str, set[int]] = {name: set() for name in lives}
    for step in range(2):
        for life in lives.values():
            life.before_forward(step)

        def forward() -> Outcome:
            logits = adapted(X).flatten(0, 1)
            return Outcome(logits.square().mean(), Predicted(logits, "class"))

        first = forward()
        terms = [life.extra_losses(step, first, forward) for life in lives.values()]
        (first.loss + sum(term["agreement"] for term in terms)).backward()
        for name, life in lives.items():
            life.after_backward()
            for split, vectors in splits(adapted, name):
                drawn = {split.expert(2 * step), split.expert(2 * step + 1)}
                assert {e for e, v in enumerate(vectors) if v.grad is not None} == drawn
                assert all(vectors[e].grad.any() for e in drawn), f"{name} learned nothing of what it drew"
                found[name] |= drawn
        adapted.zero_grad()
    assert all(found.values())


def test_agreement_costs_nothing_where_the_experts_are_the_same(monkeypatch):
    monkeypatch.setattr(Split, "expert", lambda self, draw: 1)
    life, first, again = passes(trained(method()))
    assert life.extra_losses(0, first, again)["agreement"].abs() < 1e-6


def test_weights_of_zero_leave_the_second_pass_out():
    life, first, _ = passes(trained(method(agreement=0.0)))
    assert life.extra_losses(0, first, lambda: pytest.fail("it ran again")) == {}
    life, first, again = passes(trained(method(agreement=0.0, second=0.5)))
    seen: list[Outcome] = []
    terms = life.extra_losses(0, first, lambda: seen.append(again()) or seen[0])
    assert terms == {"second": 0.5 * seen[0].loss}
    assert not torch.equal(seen[0].loss, first.loss)


def test_disagreement_is_the_symmetric_divergence_and_each_target_stands_still():
    p, q = (torch.randn(6, 3, requires_grad=True) for _ in range(2))
    found = disagreement(Predicted(p, "class"), Predicted(q, "class"))
    a, b = p.softmax(-1), q.softmax(-1)
    symmetric = ((a * (a / b).log()).sum(-1) + (b * (b / a).log()).sum(-1)) / 2
    assert torch.allclose(found, symmetric.mean())
    (gradient,) = torch.autograd.grad(found, p)
    assert torch.allclose(gradient, (a - b) / 12, atol=1e-6)  # that of KL(stop q || p) alone


def test_labels_and_features_have_a_divergence_of_their_own():
    p, q = torch.randn(2, 6, 3)
    pairs = (torch.stack([v, torch.zeros_like(v)], -1).flatten(0, 1) for v in (p, q))
    two = disagreement(*(Predicted(v, "class") for v in pairs))
    assert torch.allclose(disagreement(Predicted(p, "labels"), Predicted(q, "labels")), two, atol=1e-6)
    assert torch.allclose(disagreement(Predicted(p, "values"), Predicted(q, "values")), F.mse_loss(p, q))
    empty = Predicted(p[:0], "values")
    assert disagreement(empty, empty) == 0


def test_a_task_without_predictions_is_refused_with_what_to_do():
    with pytest.raises(SpeechPeftError, match="give agreement=0"):
        disagreement(None, None)


def test_more_experts_than_weights_are_refused():
    with pytest.raises(ValueError, match=r"layers\.0\.ffn\.branch\.up\.weight has 80 weights, too few"):
        model(method(experts=100))


def test_a_host_whose_matrices_would_all_be_shared_is_told_how_they_are_not():
    backbone = tiny("whisper", context="fit")  # the toy's attention takes no added keys
    given = {"of": {"method": "prefix", "frames": 3}}
    with pytest.raises(ConfigError, match=r"prefix has no matrix .*; give share: none"):
        AdaptedModel(backbone.module, backbone.sites(), {"a": Mosa.model_validate(given)})
    apart = Mosa.model_validate({**given, "share": "none"})
    assert splits(AdaptedModel(backbone.module, backbone.sites(), {"a": apart}))
