"""What each decoder costs as texts and candidates grow, and as published: the tables of docs/diffusion.md.

    python scripts/measure_decoder_cost.py grow --adapter runs/whisper_diffusion/diffusion
    python scripts/measure_decoder_cost.py published

`grow`: processor seconds of the parallel decoder beside the stock one, and beside CTranslate2's int8, which
is what faster-whisper runs, where `ctranslate2` is installed. `published`: Whisfusion's decoding as published
against ours, at equal K and S, in the shapes of version 1. Times are processor seconds of this process on one
thread, the least of two runs; texts are as long as they are told to be.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

import torch

from speech_peft.backbones.base import Features
from speech_peft.backbones.whisper import Whisper
from speech_peft.decoders.ctc import Characters
from speech_peft.decoders.diffusion import published
from speech_peft.decoders.diffusion.kinds.bridged import Bridged
from speech_peft.decoders.diffusion.kinds.texts import ByCharacter
from speech_peft.decoders.diffusion.masked import Memory
from speech_peft.decoders.diffusion.sample import PUBLISHED, Sampling, fill_bucket
from speech_peft.decoders.words import search
from speech_peft.decoders.words.whisper_reader import never_written
from speech_peft.opening.loading import load

RATE = 16_000


def _spent(work: Callable[[], Any], times: int = 2) -> float:
    found = []
    for _ in range(times):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)


@torch.inference_mode()
def grow(args: argparse.Namespace) -> None:
    opened = load(args.adapter, args.weights)
    backbone, decoder = opened.backbone, opened.diffusion
    assert isinstance(backbone, Whisper)
    assert decoder is not None
    sound = torch.randn(1, 30 * RATE) * 0.05
    features = backbone.prepare(sound, torch.tensor([30 * RATE]))
    encoding = _spent(lambda: backbone.encode(features))
    states, prompt = backbone.encode(features).states, torch.tensor([backbone.generation.prompt()])
    remember = _spent(lambda: decoder.memory(states, None, prompt))
    memory = decoder.memory(states, None, prompt)
    print(f"encoder, 30 s: {encoding:.3f} s; cross keys and values: {remember:.3f} s")
    by_ct2 = _ct2(backbone, features) if find_spec("ctranslate2") else None
    for tokens in args.tokens:
        limits = torch.tensor([tokens - 1])
        ours = _spent(lambda n=tokens: fill_bucket(decoder, memory, n, whole(4)))
        stock = _spent(lambda caps=limits: search.greedy(endless(backbone, states), prompt, caps))
        mine = encoding + remember + ours
        told = (
            f"4 passes {ours:.3f} s, stock {stock:.3f} s, with the encoder {(encoding + stock) / mine:.2f} x"
        )
        if by_ct2 is not None:
            theirs = by_ct2(tokens)
            told += f"; CTranslate2 int8 with its encoder {theirs:.3f} s, {theirs / mine:.2f} x"
        print(f"{tokens:4} tokens: {told}", flush=True)
    for k in args.candidates:
        how = Sampling("random", candidates=k)
        spent = _spent(lambda how=how: fill_bucket(decoder, memory, 64, how))
        print(f"K = {k:2}, 64 tokens, 4 passes: {spent:.3f} s", flush=True)


def whole(steps: int) -> Sampling:
    """Every place is filled, none before its turn: what a text of so many tokens costs."""
    return Sampling("random", ratios=(1.0, 0.7, 0.5, 0.3)[:steps])


def endless(backbone: Whisper, states: torch.Tensor) -> Any:
    """A stock reader that never writes the end: it stops at its limit."""
    from speech_peft.decoders.words.whisper_reader import Reader

    class Goes(Reader):
        def forbidden(self, first: bool) -> torch.Tensor:
            bias = super().forbidden(first)
            bias[self.generation.eot] = float("-inf")
            return bias

    return Goes(backbone, states, None)


def _ct2(backbone: Whisper, features: Features) -> Callable[[int], float]:
    """Seconds of CTranslate2 for a text of so many tokens, its encoder included."""
    from speech_peft.export.ct2 import write_ct2

    never = [*never_written(backbone.generation, backbone.module.config.vocab_size), backbone.generation.eot]
    prompt = list(backbone.generation.prompt())
    with TemporaryDirectory() as folder:
        write_ct2(backbone.module, backbone, folder, "int8")
        model = import_module("ctranslate2.models").Whisper(folder, compute_type="int8", intra_threads=1)
    view = import_module("ctranslate2").StorageView.from_array(features.values.numpy())

    def once(tokens: int) -> None:
        found = model.generate(view, [prompt], beam_size=1, max_length=2 * tokens, suppress_tokens=never)
        assert len(found[0].sequences_ids[0]) == tokens

    return lambda tokens: _spent(lambda: once(tokens))


@torch.inference_mode()
def as_published(args: argparse.Namespace) -> None:
    """Random weights: what is compared is the work, and that both fill the same texts."""
    torch.manual_seed(0)
    words = ByCharacter(Characters("".join(chr(0x4E00 + i) for i in range(args.vocabulary - 1))))
    decoder = Bridged(768, words, width=768, layers=args.layers, heads=12, inner=3072).eval()
    states = torch.randn(1, 1500, 768)
    how = Sampling("random", ratios=PUBLISHED, candidates=args.k)
    theirs = _spent(lambda: published.decode(decoder, states, args.k), 1)
    same = published.decode(decoder, states, args.k, places=64)[0]
    ours: dict[int, float] = {}
    for places in (256, 64):
        ours[places] = _spent(lambda n=places: fill_bucket(decoder, decoder.memory(states), n, how), 1)
    got: Memory = decoder.memory(states)
    equal = torch.equal(fill_bucket(decoder, got, 64, how).tokens[0], same)
    print(
        json.dumps(
            {
                "layers": args.layers,
                "K": args.k,
                "published, 256 places": round(theirs, 2),
                **{f"ours, {n} places": round(s, 2) for n, s in ours.items()},
                "times, 256 places": round(theirs / ours[256], 2),
                "times, bucket of 64": round(theirs / ours[64], 2),
                "same tokens at 64": equal,
            }
        )
    )


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(required=True)
    part = parts.add_parser("grow")
    part.add_argument("--adapter", required=True)
    part.add_argument("--weights")
    part.add_argument("--tokens", type=int, nargs="+", default=[16, 32, 64, 96, 128, 192])
    part.add_argument("--candidates", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    part.set_defaults(work=grow)
    part = parts.add_parser("published")
    part.add_argument("--layers", type=int, default=18)
    part.add_argument("--k", type=int, default=15)
    part.add_argument("--vocabulary", type=int, default=32_000)
    part.set_defaults(work=as_published)
    args = parser.parse_args()
    args.work(args)


if __name__ == "__main__":
    main()
