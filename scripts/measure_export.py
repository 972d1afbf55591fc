#!/usr/bin/env python
"""What a smaller number type costs in words: WER by torch, and by CTranslate2 on what `export` writes.

    python scripts/measure_export.py ADAPTER --data corpora/asterisk-en/test.jsonl [--dtype int8]

ADAPTER may be weights too. Both engines get the same features of one clip after another and choose greedily,
with the same tokens forbidden and the same limit; torch runs base and adapter unmerged. Prints a line each,
with seconds of the processor.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import torch

from speech_peft.audio import io, manifest
from speech_peft.backbones.base import Features
from speech_peft.decoders.words.whisper_text import MAX_TOKENS, SPARE_TOKENS, TOKENS_PER_SECOND, greedy
from speech_peft.export.ct2 import DTYPES, write_ct2
from speech_peft.export.merged import merged, open_any, whisper_of
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import Counts, corpus, count_words

RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("adapter", help="An adapter or weights, by their address.")
    parser.add_argument(
        "--data", type=Path, required=True, help="A manifest of English clips of at most 30 s."
    )
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="May be repeated; int8.")
    given = parser.parse_args()
    from ctranslate2.models import Whisper  # an extra: the options are explained without it

    opened = open_any(given.adapter)
    whisper = whisper_of(opened, "ct2")
    rows = manifest.read(given.data)
    clips = [io.load(row.audio, RATE, duration=30.0).samples for row in rows]
    seconds = [len(clip) / RATE for clip in clips]

    def features() -> Iterator[Features]:
        for clip in clips:
            yield whisper.prepare(torch.from_numpy(clip)[None], torch.tensor([len(clip)]))

    def by_torch() -> Iterator[str]:
        with opened.model.using(*opened.runs), torch.inference_mode():
            for heard, length in zip(features(), seconds, strict=True):
                yield greedy(whisper, whisper.encode(heard).states, seconds=[length])[0].text

    texts = [row.text or "" for row in rows]
    wanted = measured("torch", by_torch, texts)
    for dtype in given.dtype or ["int8"]:
        with TemporaryDirectory() as folder:
            out = write_ct2(merged(opened), whisper, Path(folder) / "ct2", dtype)
            model = Whisper(str(out), compute_type=computed(dtype), intra_threads=1)
        found = measured(f"ct2 {dtype}", lambda: by_ct2(model, whisper, features(), seconds), texts)  # noqa: B023
        same = sum(one.strip() == other.strip() for one, other in zip(wanted, found, strict=True))
        print(f"  {same} of {len(rows)} texts are those of torch")


def computed(dtype: str) -> str:
    """What a CPU computes in: it has no float16."""
    return "float32" if dtype == "float16" else dtype


def by_ct2(model: Any, whisper: Any, features: Iterator[Features], seconds: Sequence[float]) -> Iterator[str]:
    from ctranslate2 import StorageView

    prompt = list(whisper.generation.prompt())
    for heard, length in zip(features, seconds, strict=True):
        limit = min(MAX_TOKENS, int(TOKENS_PER_SECOND * length) + SPARE_TOKENS)
        sound = StorageView.from_array(heard.values.numpy())
        (result,) = model.generate(
            sound, [prompt], beam_size=1, max_length=2 * limit
        )  # half of it is written
        yield whisper.tokenizer.decode(result.sequences_ids[0], skip_special_tokens=True)


def measured(name: str, hear: Callable[[], Iterator[str]], texts: Sequence[str]) -> list[str]:
    clean, start = normaliser("english"), process_time()
    heard = list(hear())
    cost = process_time() - start
    pairs = zip(texts, heard, strict=True)
    errors: Counts = corpus(count_words(clean(said, "en"), clean(found, "en")) for said, found in pairs)
    print(f"{name}: WER {errors.rate:.4f} over {len(texts)} clips, {cost:.1f} s of the processor", flush=True)
    return heard


if __name__ == "__main__":
    main()
