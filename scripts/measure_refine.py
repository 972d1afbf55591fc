#!/usr/bin/env python
"""Whether filling in doubtful words of a transcript, with both sides in view, makes it better.

    python scripts/measure_refine.py --adapter runs/whisper_diffusion/diffusion --data valid.jsonl

The stock decoder writes each clip greedily, as it is and as a noisy call. Tokens that it was less sure of
than a threshold are masked, and the decoder by diffusion fills them in, in as many places or one more for
each gap. Then the new text stands always, or where the stock decoder, reading it whole, finds it likelier
than its own, or where both decoders together do. Prints error rates and the difference to the stock text,
with intervals over utterances.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from bench_decoders import Clips, prompts
from torch import Tensor

from speech_peft.audio import manifest
from speech_peft.audio.degrade import parse
from speech_peft.backbones.whisper import Whisper
from speech_peft.bench.own_files import degraded
from speech_peft.decoders.diffusion.masked import MaskedDecoder, Memory, bucket
from speech_peft.decoders.diffusion.sample import forbidden
from speech_peft.decoders.words import search
from speech_peft.decoders.words.whisper_reader import Reader
from speech_peft.decoders.words.whisper_text import MAX_TOKENS, SPARE_TOKENS, TOKENS_PER_SECOND
from speech_peft.metrics.bootstrap import difference, interval
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import align_words, count
from speech_peft.opening.loading import load

THRESHOLDS = (0.3, 0.5, 0.7)
WAYS = ("always", "stock decoder", "both")
Text = tuple[int, ...]


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/measure_refine"), help="Where noisy clips are kept."
    )
    given = parser.parse_args()
    opened = load(given.adapter, context="full")
    backbone, decoder = opened.backbone, opened.diffusion
    assert isinstance(backbone, Whisper)
    assert decoder is not None
    rows = list(manifest.listed(given.data))[: given.limit]
    for name, steps in {"clean": [], "telephone": "telephone"}.items():
        heard = degraded(rows, parse(steps), 1, given.out) if steps else rows
        manifest.write(given.out / f"{name}.jsonl", heard)
        report(name, backbone, decoder, Clips(backbone, str(given.out / f"{name}.jsonl"), None))


@torch.inference_mode()
def report(name: str, backbone: Whisper, decoder: MaskedDecoder, clips: Clips) -> None:
    stock: list[str] = []
    refined: dict[tuple[float, str], list[str]] = {(t, way): [] for t in THRESHOLDS for way in WAYS}
    changed = dict.fromkeys(refined, 0)
    for states, seconds in zip(clips.states, clips.seconds, strict=True):
        prompt = prompts(backbone, 1)
        limit = min(MAX_TOKENS, int(TOKENS_PER_SECOND * seconds) + SPARE_TOKENS)
        own = search.by_reader(backbone, states, None, prompt, torch.tensor([limit]))[0]
        memory = decoder.memory(states, None, prompt)
        stock.append(decoder.decode(own.tokens))
        for threshold in THRESHOLDS:
            others = [*filled(decoder, memory, own.tokens, own.logprobs, threshold)]
            texts = [own.tokens, *others]
            by_stock = [likelihood(backbone, states, prompt, text) for text in texts]
            by_both = [
                one + evidence(decoder, memory, text) for one, text in zip(by_stock, texts, strict=True)
            ]
            picks = {
                "always": others[0] if others else own.tokens,
                "stock decoder": texts[by_stock.index(max(by_stock))],
                "both": texts[by_both.index(max(by_both))],
            }
            for way, text in picks.items():
                refined[threshold, way].append(decoder.decode(text))
                changed[threshold, way] += text != own.tokens
    normal = normaliser()
    said = [normal(text, "en") for text in clips.texts]

    def errors(texts: Sequence[str]) -> tuple[list[int], list[int]]:
        counts = [count(pair) for pair in align_words(said, [normal(text, "en") for text in texts])]
        return [one.errors for one in counts], [one.reference for one in counts]

    before, words = errors(stock)
    alone, total = range(len(stock)), sum(words)
    told = interval(before, words, alone)
    shown = f"({told.low:.4f} to {told.high:.4f})" if told else ""
    print(f"{name}: {len(stock)} clips, stock {sum(before) / total:.4f} {shown}")
    for (threshold, way), texts in refined.items():
        after, _ = errors(texts)
        rate, less = sum(after) / total, difference(before, after, words, alone)
        shown = f"{less.delta:+.4f} ({less.low:+.4f} to {less.high:+.4f})" if less else ""
        others = changed[threshold, way]
        print(f"  masked under {threshold}, taken {way}: {rate:.4f}, {shown}, {others} changed", flush=True)


def filled(
    decoder: MaskedDecoder, memory: Memory, tokens: Text, logs: Sequence[float], threshold: float
) -> Iterator[Text]:
    """The text with its doubtful tokens filled in anew, surest first; then with one more place a gap."""
    doubtful = [log < torch.tensor(threshold).log() for log in logs]
    if not any(doubtful):
        return
    for more in (0, 1):
        places: list[int | None] = []
        for i, token in enumerate(tokens):
            places.append(None if doubtful[i] else token)
            if more and doubtful[i] and not (i + 1 < len(tokens) and doubtful[i + 1]):
                places.append(None)
        if len(places) < decoder.room:
            yield _filled(decoder, memory, places)


def _filled(decoder: MaskedDecoder, memory: Memory, places: Sequence[int | None]) -> Text:
    width = min(bucket(len(places) + 1), decoder.room)
    tokens = torch.full((1, width), decoder.end)
    masked = torch.zeros(1, width, dtype=torch.bool)
    for i, token in enumerate(places):
        tokens[0, i], masked[0, i] = (decoder.end, True) if token is None else (token, False)
    never = forbidden(decoder, tokens.device)
    while bool(masked.any()):
        scores = decoder(tokens, masked, memory)[0].float()
        scores[:, decoder.end] = float("-inf")
        shares = (scores if never is None else scores + never).softmax(-1)
        best, which = shares.max(-1)
        place = int(best.masked_fill(~masked[0], -1).argmax())
        tokens[0, place], masked[0, place] = which[place], False
    return tuple(tokens[0, : len(places)].tolist())


def likelihood(backbone: Whisper, states: Tensor, prompt: Tensor, text: Text) -> float:
    """Of a text and its end, by the stock decoder: what it may write, as greedy search has it."""
    reader = Reader(backbone, states, None)
    hidden = reader.read(torch.cat([prompt, torch.tensor([text], dtype=torch.long)], 1))[0]
    scores = reader.scores(hidden[prompt.shape[1] - 1 :], reader.forbidden(first=False)).float()
    wanted = torch.tensor([*text, backbone.generation.eot])
    return float(scores.log_softmax(-1).gather(1, wanted[:, None]).sum())


def evidence(decoder: MaskedDecoder, memory: Memory, text: Text) -> float:
    """Of a text by the other: each token's log-probability while it alone is masked."""
    width = min(bucket(len(text) + 1), decoder.room)
    row = torch.tensor([*text, *[decoder.end] * (width - len(text))])
    tokens = row.repeat(len(text) + 1, 1)
    masked = torch.eye(len(text) + 1, width, dtype=torch.bool)
    scores = decoder(tokens, masked, memory).float().log_softmax(-1)
    places = torch.arange(len(text) + 1)
    return float(scores[places, places].gather(1, row[: len(text) + 1, None]).sum())


if __name__ == "__main__":
    main()
