#!/usr/bin/env python
"""ParaStep on texts: how far several steps at a time lead from one by one, and how many rounds they take.

    python scripts/measure_step_parallel.py --adapter runs/whisper_diffusion/diffusion --data valid.jsonl

A prediction is what the masked decoder says of every place, a step reveals the surest. Ranks are played by
one process (`tests/core/test_step_parallel.py` holds that two processes do the same). Prints, for each number
of ranks, rounds, the share of tokens that are those of one rank, and the error rate.
"""

import argparse
from functools import partial

import torch
from bench_decoders import Clips, interval, prompts, rate
from jaxtyping import Float, Int
from torch import Tensor

from speech_peft.backbones.whisper import Whisper
from speech_peft.core.sampling.step_parallel import StepParallelSampler
from speech_peft.decoders.diffusion.lengths import by_duration
from speech_peft.decoders.diffusion.masked import MaskedDecoder, Memory
from speech_peft.decoders.diffusion.reveal import POLICIES, Guess
from speech_peft.decoders.diffusion.sample import forbidden
from speech_peft.opening.loading import load

MASKED = -1


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    args = parser.parse_args()
    opened = load(args.adapter)
    backbone, decoder = opened.backbone, opened.diffusion
    assert isinstance(backbone, Whisper)
    assert decoder is not None
    clips = Clips(backbone, args.data, args.limit)
    alone: list[list[int]] = []
    for ranks in args.ranks:
        found, rounds = [], 0
        for i, states in enumerate(clips.states):
            memory = decoder.memory(states, None, prompts(backbone, 1))
            (places,) = by_duration([clips.seconds[i]], decoder.room)
            sampler = StepParallelSampler(
                partial(predict, decoder, memory),
                partial(reveal, decoder, args.steps),
                args.steps,
                ranks,
                args.warmup,
            )
            found.append(sampler(torch.full((1, places), MASKED))[0].tolist())
            rounds = sampler.rounds
        alone = alone or found
        same, of = agreement(decoder, alone, found)
        wrong = interval(rate(clips.texts, [decoder.decode(tokens) for tokens in found]))
        print(f"{ranks} ranks: {rounds} rounds, {same / of:.3f} of {of} tokens, WER {wrong}", flush=True)


def predict(
    decoder: MaskedDecoder, memory: Memory, text: Int[Tensor, "r n"], step: int
) -> Float[Tensor, "r n v"]:
    masked = text == MASKED
    scores = decoder(text.masked_fill(masked, decoder.end), masked, memory).float()
    never = forbidden(decoder, scores.device)
    return scores if never is None else scores + never


def reveal(
    decoder: MaskedDecoder, steps: int, text: Int[Tensor, "r n"], step: int, scores: Float[Tensor, "r n v"]
) -> Int[Tensor, "r n"]:
    """The surest places, so many that all are filled after the last step; nothing is changed again."""
    probability, guess = scores.softmax(-1).max(-1)
    told = Guess(
        probability, torch.zeros_like(probability), text == MASKED, guess == decoder.end, steps - step
    )
    return torch.where(POLICIES["confidence"](told), guess, text)


def agreement(decoder: MaskedDecoder, alone: list[list[int]], found: list[list[int]]) -> tuple[int, int]:
    """Tokens in the place of the same one, of those before the end."""
    counted = [(decoder.until_end(one), other) for one, other in zip(alone, found, strict=True)]
    same = sum(a == b for one, other in counted for a, b in zip(one, other, strict=False))
    return same, sum(len(one) for one, _ in counted)


if __name__ == "__main__":
    main()
