"""HD-PiSSA: what its paper says and the contract does not know."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Adam, AdamW

from speech_peft.compose.peft_lora import export_peft, import_peft, nearest_loras
from speech_peft.core.context import Context
from speech_peft.core.low_rank import nearest
from speech_peft.core.saved import save
from speech_peft.core.workers import place
from speech_peft.errors import ConfigError
from speech_peft.methods.hd_pissa import HdPissa
from speech_peft.train.step.apart import check_precision
from speech_peft.train.tasks.base import Task
from tests import toy
from tests.workers import CLIPS, Loop, in_two

SITE = next(site for site in toy.sites() if site.kind == "linear")
QV = ("*.attn.[qv]",)
K, R = 2, 2


def part(weight: Tensor, workers: int = K) -> Any:
    """One site's adapter in training, its slabs known."""
    adapter: Any = HdPissa(workers=workers, rank=R).build(SITE, torch.nn.Identity(), None)
    adapter.decompose(weight)
    return adapter.to(weight.dtype).train()


def matrix(dtype: torch.dtype = torch.double) -> Tensor:
    return torch.randn(16, 16, generator=torch.Generator().manual_seed(1)).to(dtype)


def speech(seed: int, dtype: torch.dtype = torch.double) -> Tensor:
    return toy.speech(CLIPS, seed=seed).to(dtype)


def rank_of(change: Tensor, tolerance: float = 1e-5) -> int:
    return int(torch.linalg.matrix_rank(change.double(), rtol=tolerance))


def loop(steps: int = 0, make=lambda p: AdamW(p, lr=1e-2), **settings) -> Loop:
    return Loop(HdPissa(**{"workers": K, "rank": R, "sites": QV, **settings}), make).begin().run(steps)


def test_slabs_are_orthogonal_and_make_up_the_largest_part_of_the_weight():
    weight = matrix()
    adapter = part(weight)
    rows, columns = adapter.slab_a, adapter.slab_b
    assert (rows[0] @ rows[1].T).abs().max() < 1e-5
    assert (columns[0].T @ columns[1]).abs().max() < 1e-5
    u, s, v = torch.linalg.svd(weight)
    largest = (u[:, : K * R] * s[: K * R]) @ v[: K * R]
    torch.testing.assert_close((columns @ rows).sum(0), largest, atol=1e-4, rtol=0)


def test_the_forward_with_taps_is_the_plain_one_bit_for_bit():
    trained = loop()
    heard = trained.model(toy.speech())
    assert all(part.slab_b.any() for part in trained.parts)
    with trained.model.using():
        assert torch.equal(trained.model(toy.speech()), heard)


def test_each_tap_gets_the_gradients_of_its_own_clips_and_gives_none_to_its_input():
    weight, x = matrix(), speech(0).requires_grad_()
    adapter, upstream = part(weight), torch.randn(CLIPS, 5, 16, dtype=torch.double)
    adapter(x, F.linear(x, weight), Context()).backward(upstream)
    for number, step in enumerate(adapter.workers):
        own = slice(2 * number, 2 * number + 2)
        g = upstream[own].flatten(0, 1).T @ x.detach()[own].flatten(0, 1)
        torch.testing.assert_close(step.a.grad, adapter.slab_b[number].T @ g)
        torch.testing.assert_close(step.b.grad, g @ adapter.slab_a[number].T)
    torch.testing.assert_close(x.grad, upstream @ weight)  # as of the plain layer, for the layers below


def test_taps_reach_half_precision():
    weight, x = matrix().half(), (1e-3 * speech(0)).half()
    adapter = part(weight.float()).half()
    adapter(x, F.linear(x, weight), Context()).backward(torch.full((CLIPS, 5, 16), 0.1).half())
    assert all(p.grad.isfinite().all() and p.grad.any() for p in adapter.parameters())


def test_steps_are_those_of_the_published_procedure():
    """W itself is changed here by an Adam per worker on its own slab, in a loop of its own."""
    start = matrix()
    adapter, weight = part(start), start.clone()
    slabs = [(a.clone(), b.clone()) for a, b in zip(adapter.slab_a, adapter.slab_b, strict=True)]
    rate = {"lr": 0.02, "betas": (0.9, 0.999)}
    own = AdamW(adapter.parameters(), weight_decay=0.1, **rate)  # which finds nothing to decay
    # As many copies as workers that Adam may move, so as to see where it would go from the slab itself.
    moved = [[p.clone().requires_grad_() for p in slab] for slab in slabs]
    theirs = [Adam(slab, **rate) for slab in moved]
    for seed in range(4):
        x = speech(seed)
        own.zero_grad()
        (adapter(x, F.linear(x, start), Context()) - 1).square().mean().backward()
        for p in adapter.parameters():
            p.grad *= K  # a worker's loss is the mean over its own clips
        own.step()
        adapter.fold()
        assert not any(p.any() for p in adapter.parameters())
        change = torch.zeros_like(weight)
        for (a, b), copied, optimizer, share in zip(slabs, moved, theirs, x.tensor_split(K), strict=True):
            dense = weight.clone().requires_grad_()
            (F.linear(share, dense) - 1).square().mean().backward()
            for p, slab, gradient in zip(copied, (a, b), (b.T @ dense.grad, dense.grad @ a.T), strict=True):
                p.data.copy_(slab)
                p.grad = gradient
            optimizer.step()
            da, db = a - copied[0].detach(), b - copied[1].detach()
            change -= db @ a + b @ da - db @ da
        weight += change
    torch.testing.assert_close(adapter.delta, weight - start, atol=1e-12, rtol=0)


@pytest.mark.parametrize("workers", [K, 1])
def test_a_step_has_rank_two_k_r(workers):
    trained = loop(1, workers=workers)  # Adam's first step is a sign alone, and signs may coincide
    before = [own.delta.clone() for own in trained.parts]
    trained.run(1)
    changes = [own.delta - delta for own, delta in zip(trained.parts, before, strict=True)]
    assert [rank_of(change) for change in changes] == [2 * workers * R] * 4


def test_more_rank_than_a_layer_has_is_refused_by_name():
    loop(workers=4, rank=4)
    with pytest.raises(ConfigError, match=r"5 workers of rank 4 need 20 .* layers\.0\.attn\.q, 16 wide"):
        loop(workers=5, rank=4)


@pytest.mark.parametrize("setting", ["alpha", "dropout"])
def test_what_would_mean_nothing_is_no_setting(setting):
    with pytest.raises(ValidationError, match=setting):
        HdPissa.model_validate({setting: 0.5})


def test_a_rate_of_zero_changes_nothing_but_moments():
    warming = loop()
    warming.optimizer.param_groups[0]["lr"] = 0.0
    warming.run(1)
    assert not any(part.delta.any() for part in warming.parts)
    assert all(state["exp_avg"].any() for state in warming.optimizer.state.values())
    warming.optimizer.param_groups[0]["lr"] = 1e-2
    assert all(part.delta.any() for part in warming.run(1).parts)


def test_small_steps_are_not_lost_on_a_base_in_bf16():
    base = toy.toy().to(torch.bfloat16)
    weights = [layer.attn.v.weight.clone() for layer in base.layers]
    method = HdPissa(workers=K, rank=R, sites=("*.attn.v",))
    trained = Loop(method, lambda p: AdamW(p, lr=2e-5), base).begin()
    trained.backward(toy.speech(CLIPS).bfloat16())
    trained.optimizer.step()
    trained.life.after_step(0)
    for weight, own in zip(weights, trained.parts, strict=True):
        assert own.delta.dtype == torch.float32
        assert (own.delta != 0).double().mean() > 0.99
        assert ((weight + own.delta.bfloat16()) != weight).double().mean() < 0.5


def test_the_base_is_what_it_was():
    trained = loop(3)
    base = toy.toy().state_dict()
    assert all(map(torch.equal, trained.model.base.state_dict().values(), base.values()))


def test_processes_that_scale_their_loss_have_no_parameters_of_their_own():
    """One whose gradients overflow would leave out a step that the others take."""
    trainer: Any = SimpleNamespace(world_size=2, precision="16-mixed")
    with pytest.raises(ConfigError, match=r"trainer\.precision: in 16-mixed .*Use bf16-mixed"):
        check_precision(trainer)
    for fine in ({"world_size": 1}, {"precision": "bf16-mixed"}):
        check_precision(SimpleNamespace(**{**vars(trainer), **fine}))  # type: ignore[arg-type]


def test_gradients_are_clipped_worker_by_worker_and_apart_from_what_is_shared():
    p, q, shared = (torch.nn.Parameter(torch.zeros(1)) for _ in range(3))
    p.grad, q.grad, shared.grad = torch.tensor([30.0]), torch.tensor([0.5]), torch.tensor([4.0])
    task: Any = SimpleNamespace(apart=[[p], [q]])
    Task.configure_gradient_clipping(task, AdamW([p, q, shared]), 1.0, "norm")
    clipped = [x.grad.item() for x in (p, q, shared)]
    assert clipped == pytest.approx([1.0, 0.5, 1.0], rel=1e-4)


def test_the_nearest_lora_says_how_near_it_is(tmp_path):
    trained = loop(3, lambda p: AdamW(p, lr=1e-3))
    for own, (change, error) in zip(trained.parts, nearest_loras(trained.model, "a", 2 * K * R), strict=True):
        missing = own.delta - change.onto(torch.zeros(16, 16), None)[0]
        assert error == pytest.approx((missing.norm() / own.delta.norm()).item(), abs=1e-5)
        assert error < 0.01  # beyond 2 K r there are only products of steps
        assert nearest(own.delta, 1)[1] > error
    with pytest.raises(ConfigError, match=r"is a hd_pissa, and at layers\.0\.attn\.q"):
        export_peft(trained.model, "a", tmp_path, "toy")
    changes = [change for change, _ in nearest_loras(trained.model, "a", 16)]
    lora = import_peft(export_peft(trained.model, "a", tmp_path, "toy", changes), toy.toy(), toy.sites(), "a")
    torch.testing.assert_close(lora.eval()(toy.speech()), trained.model.eval()(toy.speech()))


def test_a_file_holds_the_change_of_the_weights_and_no_byte_more(tmp_path):
    trained = loop(3)
    trained.backward()
    trained.optimizer.step()  # and not taken up yet
    file = save.write(tmp_path / "a", trained.model, "a", toy.CARD) / "adapter.safetensors"
    held = load_file(file)
    assert {key: tuple(value.shape) for key, value in held.items()} == {
        f"{site.name}.delta": (site.dim_out, site.dim_in) for site in trained.model.sites["a"]
    }
    other = loop(2)  # of which nothing stays
    for p in other.model.parameters_of("a"):
        p.data.fill_(1.0)
    save.read(tmp_path / "a").load_into(other.model, "a")
    for mine, theirs in zip(trained.parts, other.parts, strict=True):
        assert torch.equal(theirs.delta, mine.change())
        assert not any(p.any() for p in theirs.workers.parameters())


def test_a_file_of_before_that_holds_the_steps_loads_too(tmp_path):
    trained, other = loop(3), loop()
    folder = save.write(tmp_path / "a", trained.model, "a", toy.CARD)
    whole = {f"{s.name}.{k}": v for s, p in trained.life.parts.items() for k, v in p.state_dict().items()}
    save_file(whole, folder / "adapter.safetensors")
    save.read(folder).load_into(other.model, "a")
    for mine, theirs in zip(trained.parts, other.parts, strict=True):
        assert torch.equal(theirs.delta, mine.delta)


def test_a_run_goes_on_as_if_it_had_not_ended():
    whole, first, second = loop(5), loop(3), Loop(HdPissa(workers=K, rank=R, sites=QV))
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.life.load_state_dict(first.life.state_dict())
    second.step = first.step
    second.run(2)
    for own, other in zip(whole.parts, second.parts, strict=True):
        assert torch.equal(own.delta, other.delta)


def test_two_gloo_processes_hold_the_same_weight_and_equal_the_simulation(tmp_path, monkeypatch):
    svd = torch.linalg.svd

    def only_in_the_first(*args, **kwargs):
        assert place()[0] == 0, "two machines need not agree on singular vectors"
        return svd(*args, **kwargs)

    monkeypatch.setattr(torch.linalg, "svd", only_in_the_first)

    def work() -> dict[str, Tensor]:
        trained = loop(4)
        return {str(i): own.delta.clone() for i, own in enumerate(trained.parts)}

    first, second = in_two(work, tmp_path)
    alone = work()
    for key, delta in alone.items():
        assert torch.equal(first[key], second[key])
        torch.testing.assert_close(first[key], delta, atol=1e-5, rtol=1e-3)
