"""ParaStep: what is exact, what is sent, and that processes do what the simulation does."""

import math

import pytest
import torch

from speech_peft.core.sampling.step_parallel import LocalComm, StepParallelSampler, TorchDistComm
from speech_peft.errors import ConfigError
from tests.workers import in_two

STEPS = 40
CENTRES = torch.tensor([[-2.0, 1.0], [1.5, 1.5], [0.0, -2.0]])


def level(step: int) -> float:
    """Of the signal, before a step: from almost none to almost all."""
    return math.cos(0.5 * math.pi * (1 - (step + 0.5) / (STEPS + 1))) ** 2


def predict(x: torch.Tensor, step: int) -> torch.Tensor:
    """The noise in points that are drawn about three centres: exact, no network."""
    a = level(step)
    away = x[:, None] - a**0.5 * CENTRES
    variance = a * 0.05 + 1 - a
    weight = (-(away**2).sum(-1) / (2 * variance)).softmax(-1)
    return (1 - a) ** 0.5 * (weight[..., None] * away).sum(1) / variance


def ddim(x: torch.Tensor, step: int, noise: torch.Tensor) -> torch.Tensor:
    now, then = level(step), level(step + 1)
    clean = (x - (1 - now) ** 0.5 * noise) / now**0.5
    return then**0.5 * clean + (1 - then) ** 0.5 * noise


def start() -> torch.Tensor:
    return torch.randn(64, 2, generator=torch.Generator().manual_seed(0))


def by_hand() -> torch.Tensor:
    x = start()
    for step in range(STEPS):
        x = ddim(x, step, predict(x, step))
    return x


def astray(degree: int, warmup: int = 5) -> float:
    found = StepParallelSampler(predict, ddim, STEPS, degree, warmup)(start())
    return float((found - by_hand()).norm() / by_hand().norm())


def test_one_rank_is_bit_for_bit_what_steps_by_hand_give():
    assert torch.equal(StepParallelSampler(predict, ddim, STEPS)(start()), by_hand())


def test_more_ranks_stray_a_little_more_and_take_as_many_rounds_fewer():
    errors = [astray(degree) for degree in (2, 4, 8)]
    assert errors == sorted(errors)
    assert errors[0] < 0.01
    sampler = StepParallelSampler(predict, ddim, STEPS, 4, 5)
    sampler(start())
    assert sampler.rounds == 5 + math.ceil(35 / 4)


def test_a_warm_up_brings_it_nearer():
    assert astray(4, warmup=10) < astray(4, warmup=1)


def test_each_cycle_sends_one_prediction_less_than_ranks_and_one_state_back():
    comm = LocalComm(4)
    StepParallelSampler(predict, ddim, 5 + 8, 4, 5, comm)(start())
    assert (comm.sends, comm.broadcasts) == (2 * 3, 2)
    comm = LocalComm(4)
    StepParallelSampler(predict, ddim, 5 + 2, 4, 5, comm)(start())  # a cycle of two steps, for two ranks
    assert (comm.sends, comm.broadcasts) == (1, 1)


def test_ranks_of_one_process_may_be_one_batch():
    def together(states, steps):
        return [predict(x, step) for x, step in zip(states, steps, strict=True)]

    alone = StepParallelSampler(predict, ddim, STEPS, 4, 5)(start())
    assert torch.equal(StepParallelSampler(predict, ddim, STEPS, 4, 5, together=together)(start()), alone)


def test_a_second_call_knows_nothing_of_the_first():
    sampler = StepParallelSampler(predict, ddim, STEPS, 2, 5)
    assert torch.equal(sampler(start()), sampler(start()))


@pytest.mark.parametrize("given", [{"steps": 0}, {"degree": 0}, {"warmup": -1}, {"comm": LocalComm(3)}])
def test_wrong_numbers_are_told(given):
    with pytest.raises(ConfigError, match="StepParallelSampler"):
        StepParallelSampler(predict, ddim, **{"steps": 4, "degree": 2, **given})


def test_without_a_process_group_there_are_no_ranks():
    with pytest.raises(ConfigError, match="init_process_group"):
        TorchDistComm(lambda: (start(), start()))


def _rank() -> dict[str, torch.Tensor]:
    comm = TorchDistComm(lambda: (start(), start()))
    found = StepParallelSampler(predict, ddim, STEPS, 2, 5, comm)(start())
    return {"found": found, "sends": torch.tensor(comm.sends), "told": torch.tensor(comm.broadcasts)}


@pytest.mark.slow
def test_two_processes_give_what_the_simulation_gives(tmp_path):
    local = StepParallelSampler(predict, ddim, STEPS, 2, 5)(start())
    cycles = math.ceil(35 / 2)
    for rank, made in enumerate(in_two(_rank, tmp_path)):
        torch.testing.assert_close(made["found"], local, rtol=0, atol=1e-6)
        assert int(made["sends"]) == (35 - cycles if rank else 0)
        assert int(made["told"]) == (0 if rank else cycles)
