"""LTE: what its paper says and the contract does not know."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

from speech_peft.compose.peft_lora import export_peft, import_peft
from speech_peft.core import workers
from speech_peft.core.context import Context
from speech_peft.core.model import AdaptedModel
from speech_peft.errors import ConfigError
from speech_peft.methods.hd_pissa import HdPissa
from speech_peft.methods.lora import Lora
from speech_peft.methods.lte import Lte
from tests import toy
from tests.workers import CLIPS, Loop, in_two

SITE = next(site for site in toy.sites() if site.kind == "linear")
QV = ("*.attn.[qv]",)


def part(seed: int = 0, **settings):
    """One site's heads in double precision, in training."""
    torch.manual_seed(seed)
    return Lte(rank=3, **settings).build(SITE, torch.nn.Identity(), None).double().train()


def hear(adapter, weight: Tensor, x: Tensor) -> Tensor:
    return adapter(x, F.linear(x, weight), Context())


def speech(seed: int, clips: int = CLIPS) -> Tensor:
    return toy.speech(clips, seed=seed).double()


def change(adapter) -> Tensor:
    """What evaluation adds to W."""
    zero = torch.zeros(SITE.dim_out, SITE.dim_in, dtype=torch.double)
    return adapter.merged(zero, None)[0].detach()


def test_heads_begin_with_orthogonal_rows_and_zero():
    adapter = part()
    for head in adapter.workers:
        gram = (SITE.dim_in / 3) * torch.eye(3, dtype=torch.double)
        torch.testing.assert_close(head.a @ head.a.T, gram, atol=1e-5, rtol=0)
        assert not head.b.any()
    assert not torch.equal(adapter.workers[0].a, adapter.workers[1].a)
    torch.testing.assert_close(part(init_length=2.0).workers[0].a.norm(dim=1).max().item(), 2.0)


def test_one_head_that_merges_in_every_step_is_plain_lora():
    loops = [Loop(Lte(workers=1, rank=3, alpha=6, every=1, sites=QV), base=toy.toy().double()).begin()]
    lora = AdaptedModel(toy.toy().double(), toy.sites(), {"a": Lora(rank=3, alpha=6, sites=QV)}).double()
    loops[0].model.double()
    loops[0].begin()  # the snapshots in double precision
    with torch.no_grad():
        for site in lora.sites["a"]:
            lora.at("a", site).a.copy_(loops[0].model.at("a", site).workers[0].a)
    optimizer = AdamW(lora.trainable("a"), lr=1e-2)
    for step in range(10):
        x = speech(step)
        wanted = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x).flip(-1)
        torch.testing.assert_close(loops[0].model(x), lora(x), atol=1e-12, rtol=0)
        (lora(x) - wanted).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        loops[0].backward(x)
        loops[0].optimizer.step()
        loops[0].optimizer.zero_grad()
        loops[0].life.after_step(step)


def test_one_batch_for_all_heads_merged_in_every_step_is_lora_with_many_heads():
    adapter, weight = part(workers=2, alpha=3.0), torch.eye(SITE.dim_in, dtype=torch.double)
    many, x = copy.deepcopy(adapter).eval(), speech(0, clips=1)  # evaluation: W + s/N of all heads
    steps = {adapter: SGD(adapter.parameters(), lr=0.05), many: SGD(many.parameters(), lr=0.05 * 2)}
    for _ in range(5):
        adapter.merge()
        every = {adapter: x.repeat(2, 1, 1), many: x}
        for heads, optimizer in steps.items():
            optimizer.zero_grad()
            (hear(heads, weight, every[heads]) - 1).square().mean().backward()
        for p in adapter.parameters():
            p.grad *= 2  # a worker's loss is the mean over its own clips
        for optimizer in steps.values():
            optimizer.step()
    for own, other in zip(adapter.parameters(), many.parameters(), strict=True):
        torch.testing.assert_close(own, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("every", [1, 5, 10])
def test_merges_telescope_as_in_the_published_procedure(every):
    """W itself is changed here, head by head, by a loop that shares no code with the adapter."""
    adapter, start = part(workers=2, alpha=6.0), torch.randn(16, 16, dtype=torch.double)
    adapter.merge()
    heads = [[p.detach().clone().requires_grad_() for p in (h.a, h.b)] for h in adapter.workers]
    merged = [[p.detach().clone() for p in head] for head in heads]
    weight, scale = start.clone(), 2.0
    own = Adam(adapter.parameters(), lr=0.02)
    theirs = [Adam(head, lr=0.02) for head in heads]
    for step in range(10):
        x = speech(step)
        own.zero_grad()
        (hear(adapter, start, x) - 1).square().mean().backward()
        for p in adapter.parameters():
            p.grad *= 2  # a worker's loss is the mean over its own clips
        own.step()
        for (a, b), (a0, b0), optimizer, share in zip(heads, merged, theirs, x.tensor_split(2), strict=True):
            optimizer.zero_grad()
            y = share @ weight.T + scale * share @ (b @ a - b0 @ a0).T
            (y - 1).square().mean().backward()
            optimizer.step()
        if (step + 1) % every == 0:
            adapter.merge()
            with torch.no_grad():
                pairs = zip(heads, merged, strict=True)
                weight += scale / 2 * sum(b @ a - b0 @ a0 for (a, b), (a0, b0) in pairs)
            merged = [[p.detach().clone() for p in head] for head in heads]
    torch.testing.assert_close(change(adapter), weight - start, atol=1e-12, rtol=0)
    assert torch.linalg.matrix_rank(change(adapter)) <= 2 * 3


def test_a_merge_leaves_the_mean_over_workers_as_it_was():
    adapter, weight, x = part(workers=2), torch.eye(16, dtype=torch.double), speech(0, clips=1)
    for head in adapter.workers:
        torch.nn.init.normal_(head.b, std=0.1)
    before = hear(adapter, weight, x.repeat(2, 1, 1)).mean(0)
    adapter.merge()
    torch.testing.assert_close(before, hear(adapter.eval(), weight, x)[0])
    torch.testing.assert_close(hear(adapter.train(), weight, x.repeat(2, 1, 1))[0], before)


def test_evaluation_merges_first_and_leaves_training_as_it_was():
    settings = {"workers": 2, "rank": 3, "every": 5, "sites": QV}
    loop, watched = Loop(Lte(**settings)).begin(), Loop(Lte(**settings)).begin()
    x = toy.speech(seed=99)
    for _ in range(7):  # ends between two merges
        loop.run(1)
        watched.run(1)
        watched.life.before_eval()
        heard = watched.model.eval()(x)
        watched.model.train()
    for own, other in zip(loop.parts, watched.parts, strict=True):
        assert all(map(torch.equal, own.state_dict().values(), other.state_dict().values()))
        assert not torch.equal(own.merged_b, own.heads()[1])
    for each in watched.parts:
        each.merge()
    assert torch.equal(heard, watched.model.eval()(x))


def test_a_run_is_one_lora_of_rank_n_r_exactly(tmp_path):
    loop = Loop(Lte(workers=2, rank=3, every=4, sites=QV)).begin().run(6)
    export_peft(loop.model, "a", tmp_path, "toy")
    lora = import_peft(tmp_path, toy.toy(), toy.sites(), "a").eval()
    assert [lora.at("a", site).a.shape[0] for site in lora.sites["a"]] == [6] * 4
    for site in lora.sites["a"]:
        a, b = loop.model.at("a", site).heads()
        assert torch.equal(lora.at("a", site).a, a)
        assert torch.equal(lora.at("a", site).b, b)
    torch.testing.assert_close(lora(toy.speech()), loop.model.eval()(toy.speech()))


@pytest.mark.parametrize("clips", [3, 1])
def test_clips_are_never_cut(clips):
    loop = Loop(Lte(workers=2, rank=3, sites=QV)).begin()
    loop.backward(toy.speech(clips))
    first, second = ([p.grad.any() for p in group] for group in loop.life.own())
    assert any(first)
    assert any(second) == (clips > 1)  # with one clip the second has nothing to hear


@pytest.mark.parametrize("method", [Lte(workers=2, rank=3, sites=QV), HdPissa(workers=2, rank=2, sites=QV)])
def test_a_worker_hears_its_own_clips_in_every_stream(method):
    loop = Loop(method).begin()
    part, x = loop.parts[0], toy.speech(4)
    for worker in part.workers:
        torch.nn.init.normal_(worker.b, std=0.1)
    streams = torch.cat((x, x.flip(-1)))
    y = torch.zeros_like(streams)
    heard = part(streams, y, Context(streams=2))
    once = [part(rows, torch.zeros_like(rows), Context()) for rows in streams.chunk(2)]
    torch.testing.assert_close(heard, torch.cat(once))
    for clip, own in enumerate((0, 0, 1, 1)):
        loop.optimizer.zero_grad()
        both = part(streams, y, Context(streams=2))[[clip, clip + 4]]
        both.square().sum().backward() if both.any() else both.sum().backward()
        learned = [any(p.grad is not None and p.grad.any() for p in w.parameters()) for w in part.workers]
        assert learned == [own == 0, own == 1], f"clip {clip}"


def test_what_tells_no_clips_apart_is_refused():
    with pytest.raises(ConfigError, match="2 dimensions, where 3 were expected"):
        part(workers=2)(torch.ones(4, 16).double(), torch.ones(4, 16).double(), Context())


def test_heads_that_are_not_trained_are_as_in_evaluation():
    loop = Loop(Lte(workers=2, rank=3, every=4, sites=QV)).begin().run(6)
    heard = loop.model.eval()(toy.speech())
    loop.model.trainable()
    assert torch.equal(loop.model.train()(toy.speech()), heard)


def test_workers_that_cannot_be_spread_evenly_are_refused(monkeypatch):
    monkeypatch.setattr(workers, "place", lambda: (0, 2))
    assert workers.hosted(4) == range(2)
    with pytest.raises(ConfigError, match="3 workers cannot be spread evenly over 2 processes"):
        workers.hosted(3)


def test_a_run_goes_on_between_two_merges_as_if_it_had_not_ended():
    method = Lte(workers=2, rank=3, every=4, sites=QV)
    whole, first, second = Loop(method).begin().run(9), Loop(method).begin().run(6), Loop(method)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.life.load_state_dict(first.life.state_dict())
    second.step = first.step
    second.run(3)
    for own, other in zip(whole.parts, second.parts, strict=True):
        assert all(map(torch.equal, own.state_dict().values(), other.state_dict().values()))


def test_two_gloo_processes_equal_the_simulation(tmp_path):
    def work() -> dict[str, Tensor]:
        loop = Loop(Lte(workers=2, rank=3, every=3, sites=QV)).begin().run(7)
        apart = {f"own.{k}": v for k, v in loop.model.adapters.state_dict().items()}
        loop.life.before_save(loop.optimizer)
        moments = [loop.optimizer.state[p]["exp_avg"] for group in loop.life.own() for p in group]
        return {
            **{k: v.clone() for k, v in apart.items()},
            **{f"all.{k}": v.clone() for k, v in loop.model.adapters.state_dict().items()},
            **{f"moment.{i}": m.clone() for i, m in enumerate(moments)},
        }

    first, second = in_two(work, tmp_path)
    alone = work()
    shared = [key for key in alone if not key.startswith("own.")]
    assert all(torch.equal(first[key], second[key]) for key in shared)
    for key in shared:
        torch.testing.assert_close(first[key], alone[key], atol=1e-5, rtol=1e-4)
