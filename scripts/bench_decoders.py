"""How often each decoder is wrong, and how many passes it takes: the tables of docs/diffusion.md.

    wer       error rates of samplers and selections over a manifest, encoder states made once
    verified  draft and verify: the stock greedy text on every clip, passes a token, time against greedy;
              drafts by diffusion or by letters, as the adapter has it

Times are processor seconds of this process on one thread, the encoder included where it says so; texts are
counted without their padding.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch

from speech_peft.audio import io, manifest
from speech_peft.backbones.whisper import Whisper
from speech_peft.decoders.diffusion.drafts import MaskedDrafter
from speech_peft.decoders.diffusion.engine import MaskedEngine
from speech_peft.decoders.diffusion.lengths import by_duration
from speech_peft.decoders.diffusion.masked import MaskedDecoder
from speech_peft.decoders.diffusion.sample import PUBLISHED, Filled, Sampling, fill
from speech_peft.decoders.diffusion.select import SELECTIONS, Selection, candidates_of, chosen
from speech_peft.decoders.words import search
from speech_peft.decoders.words.spelled import SpelledDrafter
from speech_peft.decoders.words.verified import Drafter, VerifiedEngine
from speech_peft.decoders.words.whisper_text import MAX_TOKENS, SPARE_TOKENS, TOKENS_PER_SECOND
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import align_words, count
from speech_peft.opening.loading import Opened, load

RATE = 16_000
SAMPLERS = {
    **{f"confidence, {steps}": Sampling("confidence", steps, bias=0.0) for steps in (1, 2, 4, 8)},
    "confidence with bias, 8": Sampling("confidence", 8),
    "entropy, 8": Sampling("entropy", 8, bias=0.0),
    "entropy with bias, 8": Sampling("entropy", 8),
    "entropy with bias, 8, correcting": Sampling("entropy", 8, corrects=True),
    "as published, K=8": Sampling("random", ratios=PUBLISHED, candidates=8),
    "falling, K=8": Sampling("random", candidates=8),
}


class Clips:
    """Clips of a manifest with the states of each, encoded alone."""

    def __init__(self, backbone: Whisper, path: str, limit: int | None, join: float = 0.0):
        rows = list(manifest.listed(path))[:limit]
        self.texts = [row.text or "" for row in rows]
        sounds = [io.load(row.audio, RATE, row.start, row.duration).samples for row in rows]
        if join:
            sounds, self.texts = _joined(sounds, self.texts, join)
        self.seconds = [len(sound) / RATE for sound in sounds]
        self.states = []
        started = time.process_time()
        with torch.inference_mode():
            for sound in sounds:
                features = backbone.prepare(torch.from_numpy(sound)[None], torch.tensor([len(sound)]))
                self.states.append(backbone.encode(features).states)
        self.encoding = time.process_time() - started

    def batches(self, size: int) -> Iterator[list[int]]:
        """Clips of one length together."""
        lengths: dict[int, list[int]] = {}
        for i, states in enumerate(self.states):
            lengths.setdefault(states.shape[1], []).append(i)
        for rows in lengths.values():
            yield from (rows[i : i + size] for i in range(0, len(rows), size))


def _joined(
    sounds: Sequence[np.ndarray], texts: Sequence[str], seconds: float
) -> tuple[list[np.ndarray], list[str]]:
    """Dense windows: neighbours behind each other with 0.1 s between, up to so many seconds."""
    windows, said = [], []
    parts, words, length = [], [], 0
    for sound, text in zip(sounds, texts, strict=True):
        if parts and length + len(sound) > seconds * RATE:
            windows.append(np.concatenate(parts)[: 30 * RATE])
            said.append(" ".join(words))
            parts, words, length = [], [], 0
        parts += [sound, np.zeros(RATE // 10, np.float32)]
        words.append(text)
        length += len(sound) + RATE // 10
    return windows, said


def rate(said: Sequence[str], heard: Sequence[str]) -> tuple[float, float, float]:
    """The corpus word error rate in percent, and its 95 % interval over utterances."""
    write = normaliser()
    pairs = align_words([write(t, "en") for t in said], [write(t, "en") for t in heard])
    counts = [count(one) for one in pairs]
    errors = np.array([c.errors for c in counts], float)
    words = np.array([c.reference for c in counts], float)
    draws = np.random.default_rng(0).integers(0, len(counts), (2000, len(counts)))
    rates = errors[draws].sum(1) / words[draws].sum(1)
    low, high = np.percentile(rates, [2.5, 97.5])
    return 100 * float(errors.sum() / words.sum()), 100 * float(low), 100 * float(high)


def interval(found: tuple[float, float, float]) -> str:
    middle, low, high = found
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def prompts(backbone: Whisper, count: int) -> torch.Tensor:
    return torch.tensor([backbone.generation.prompt()] * count)


@torch.inference_mode()
def filled(
    decoder: MaskedDecoder, backbone: Whisper, clips: Clips, rows: list[int], how: Sampling, shift: int = 0
) -> Filled:
    states = [clips.states[i] for i in rows]
    if shift:  # those of another clip
        states = [clips.states[(i + shift) % len(clips.states)][:, : states[0].shape[1]] for i in rows]
        longest = max(s.shape[1] for s in states)
        states = [torch.nn.functional.pad(s, (0, 0, 0, longest - s.shape[1])) for s in states]
    memory = decoder.memory(torch.cat(states), None, prompts(backbone, len(rows)))
    return fill(decoder, memory, by_duration([clips.seconds[i] for i in rows], decoder.room), how)


def wer(args: argparse.Namespace) -> None:
    opened = load(args.adapter, args.weights)
    backbone, decoder = opened.backbone, opened.diffusion
    assert isinstance(backbone, Whisper)
    assert decoder is not None
    clips = Clips(backbone, args.data, args.limit)
    print(f"{len(clips.texts)} clips, {sum(clips.seconds):.0f} s, encoded in {clips.encoding:.1f} s")
    wanted = [name for name in SAMPLERS if not args.only or any(part in name for part in args.only)]
    for name in wanted:
        how, started = SAMPLERS[name], time.process_time()
        passes: list[int] = []
        pool: list[tuple[int, list[str]]] = []
        kinds: tuple[Selection, ...] = SELECTIONS if how.candidates > 1 else ("sum",)
        texts: dict[Selection, list[str]] = {kind: [""] * len(clips.texts) for kind in kinds}
        for rows in clips.batches(16):
            got = filled(decoder, backbone, clips, rows, how)
            passes += got.passes.tolist()
            for kind, found in texts.items():
                for i, (tokens, _) in zip(rows, chosen(decoder, got, kind), strict=True):
                    found[i] = decoder.decode(tokens)
            if how.candidates > 1:
                for i, tokens, sure in zip(rows, got.tokens.tolist(), got.probability.tolist(), strict=True):
                    pool.append((i, [" ".join(c.words) for c in candidates_of(decoder, tokens, sure)]))
        seconds = time.process_time() - started
        for kind, found in texts.items():
            shown = f"{interval(rate(clips.texts, found)):22} passes {np.mean(passes):.1f}, {seconds:.1f} s"
            print(f"{name:34} {kind:11} {shown}", flush=True)
        if pool:
            _pool(clips, pool, texts)
    if args.deaf:
        heard = [""] * len(clips.texts)
        for rows in clips.batches(16):
            got = filled(decoder, backbone, clips, rows, Sampling(), shift=len(clips.texts) // 2)
            for i, row in zip(rows, got.tokens[:, 0].tolist(), strict=True):
                heard[i] = decoder.decode(row)
        print("with the states of other clips:", interval(rate(clips.texts, heard)))


def _pool(clips: Clips, pool: list[tuple[int, list[str]]], texts: dict[Selection, list[str]]) -> None:
    """One candidate, the best of all, and how often each selection finds a best one."""
    write = normaliser()

    def errors(i: int, text: str) -> int:
        pair = align_words([write(clips.texts[i], "en")], [write(text, "en")])
        return count(next(iter(pair))).errors

    first, best, hits = [""] * len(clips.texts), [""] * len(clips.texts), dict.fromkeys(texts, 0)
    for i, candidates in pool:
        wrong = [errors(i, text) for text in candidates]
        first[i], best[i] = candidates[0], candidates[int(np.argmin(wrong))]
        for kind in texts:
            hits[kind] += errors(i, texts[kind][i]) <= min(wrong)
    print(f"    one candidate {interval(rate(clips.texts, first))}")
    print(f"    oracle        {interval(rate(clips.texts, best))}")
    print("    hit rate     ", {kind: round(100 * n / len(pool), 1) for kind, n in hits.items()})


@torch.inference_mode()
def verified(args: argparse.Namespace) -> None:
    opened = load(args.adapter, args.weights, **({"context": args.context} if args.context else {}))
    backbone = opened.backbone
    assert isinstance(backbone, Whisper)
    clips = Clips(backbone, args.data, args.limit, args.join)
    print(f"{len(clips.texts)} clips of {np.mean(clips.seconds):.1f} s")
    for name, drafter in drafters(opened, backbone, args.steps).items():
        engine = VerifiedEngine(backbone, drafter, nullcontext)
        for size in args.batch:
            spent = {"greedy": 0.0, "verified": 0.0}
            tokens, passes, other = 0, [], []
            heard = [""] * len(clips.texts)
            for rows in clips.batches(size):
                states, prompt = torch.cat([clips.states[i] for i in rows]), prompts(backbone, len(rows))
                caps = [
                    min(MAX_TOKENS, int(TOKENS_PER_SECOND * clips.seconds[i]) + SPARE_TOKENS) for i in rows
                ]
                limits = torch.tensor(caps)
                started = time.process_time()
                stock = search.by_reader(backbone, states, None, prompt, limits)
                middle = time.process_time()
                found = engine.find(states, None, prompt, limits)
                spent["verified"] += time.process_time() - middle
                spent["greedy"] += middle - started
                passes += engine.passes
                tokens += sum(len(one.tokens) + 1 for one in stock)
                for i, one in zip(rows, found, strict=True):
                    heard[i] = backbone.tokenizer.decode(one.tokens, skip_special_tokens=True)
                other += [
                    i for i, one, two in zip(rows, stock, found, strict=True) if one.tokens != two.tokens
                ]
            share = f"{sum(passes) / tokens:.3f} passes a token ({sum(passes)} for {tokens})"
            each = f"{np.mean(passes):.1f} a clip, at most 8 for {np.mean(np.array(passes) <= 8):.0%}"
            times = f"greedy {spent['greedy']:.1f} s, verified {spent['verified']:.1f} s"
            told = f"other texts: {other or 'none'}"
            print(f"{name}, batch {size}: {share}, {each}; {times}; {told}", flush=True)
            print(f"    WER {interval(rate(clips.texts, heard))}", flush=True)


def drafters(opened: Opened, backbone: Whisper, steps: Sequence[int]) -> dict[str, Drafter]:
    """Who drafts: the CTC layer that the adapter brought, or its decoder by diffusion in so many passes."""
    if opened.ctc is not None:
        return {"letters": SpelledDrafter(backbone, opened.ctc)}
    decoder = opened.diffusion
    assert decoder is not None
    engines = {n: MaskedEngine(backbone, decoder, nullcontext, Sampling(steps=n)) for n in steps}
    return {f"draft of {n}": MaskedDrafter(engine) for n, engine in engines.items()}


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(required=True)
    for name, work in (("wer", wer), ("verified", verified)):
        part = parts.add_parser(name)
        part.add_argument("--adapter", required=True)
        part.add_argument("--weights")
        part.add_argument("--data", required=True)
        part.add_argument("--limit", type=int)
        part.set_defaults(work=work)
        if name == "wer":
            part.add_argument("--only", nargs="*", help="parts of samplers' names")
            part.add_argument("--deaf", action="store_true", help="also with the states of other clips")
        if name == "verified":
            part.add_argument("--context", choices=("full", "fit"))
            part.add_argument("--join", type=float, default=0.0, help="seconds of dense windows")
            part.add_argument("--steps", type=int, nargs="+", default=[1])
            part.add_argument("--batch", type=int, nargs="+", default=[1])
    args = parser.parse_args()
    args.work(args)


if __name__ == "__main__":
    main()
