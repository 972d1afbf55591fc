"""Whisfusion in its shapes (18 blocks of 768 behind Whisper small) compared with Whisper small by itself.

Random weights: what is compared is the work, and texts are as long as dense speech makes them. Audio seconds
a second, encoder included, bf16; the least time of two.
"""

import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from place import Place

SCRIPTS = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SCRIPTS))

from measure_decoder_cost import endless, whole  # noqa: E402

from speech_peft.backbones.whisper import Whisper  # noqa: E402
from speech_peft.decoders.ctc import Characters  # noqa: E402
from speech_peft.decoders.diffusion import published  # noqa: E402
from speech_peft.decoders.diffusion.kinds.bridged import Bridged  # noqa: E402
from speech_peft.decoders.diffusion.kinds.texts import ByCharacter  # noqa: E402
from speech_peft.decoders.diffusion.masked import bucket  # noqa: E402
from speech_peft.decoders.diffusion.sample import Sampling, fill_bucket  # noqa: E402
from speech_peft.decoders.words import search  # noqa: E402
from speech_peft.opening.loading import load  # noqa: E402

RATE = 16_000
SMALL = {"d_model": 768, "encoder_layers": 12, "decoder_layers": 12, "encoder_ffn_dim": 3072}
SMALL |= {"decoder_ffn_dim": 3072, "encoder_attention_heads": 12, "decoder_attention_heads": 12}
TOKENS_A_SECOND = 3.2
CANDIDATES = 15


@torch.inference_mode()
def main() -> None:
    place = Place.from_arguments()
    place.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    kind = torch.float32 if place.device == "cpu" else torch.bfloat16
    whisper = small(place, {} if not place.tiny else {"encoder_layers": 1, "decoder_layers": 1})
    whisper.module.to(place.device, kind)
    words = ByCharacter(Characters("".join(chr(0x4E00 + i) for i in range(31_999))))
    decoder = Bridged(768, words, width=768, layers=1 if place.tiny else 18, heads=12, inner=3072).eval()
    decoder.to(place.device, kind)
    result: dict[str, Any] = {"dtype": str(kind), "K": CANDIDATES, "tokens a second": TOKENS_A_SECOND}
    for seconds in (5,) if place.tiny else (5, 10, 30):
        for batch in (1,) if place.tiny else (1, 4, 16, 32):
            result[f"{seconds} s, batch {batch}"] = speeds(place, whisper, decoder, seconds, batch)
            place.result(**result)


def small(place: Place, less: dict[str, int]) -> Whisper:
    """Whisper small with random numbers, and the tokenizer of what is packed."""
    from transformers import WhisperForConditionalGeneration

    known = load(None, str(place.weights("tiny.en")), context="full").backbone
    assert isinstance(known, Whisper)
    config = copy.deepcopy(known.module.config)
    for name, value in (SMALL | less).items():
        setattr(config, name, value)
    module = WhisperForConditionalGeneration(config).eval()
    return Whisper(module, known.tokenizer, known.generation, known.origin)


def speeds(place: Place, whisper: Whisper, decoder: Bridged, seconds: int, batch: int) -> dict[str, float]:
    audio = 0.05 * torch.randn(batch, seconds * RATE, device=place.device)
    lengths = torch.full((batch,), seconds * RATE, device=place.device)
    count = int(TOKENS_A_SECOND * seconds)
    prompt = torch.tensor([whisper.generation.prompt()] * batch, device=place.device)
    limits = torch.full((batch,), count - 1, device=place.device)

    def states() -> torch.Tensor:
        return whisper.encode(whisper.prepare(audio, lengths)).states

    def parallel(how: Sampling) -> Callable[[], object]:
        return lambda: fill_bucket(decoder, decoder.memory(states()), bucket(count + 1), how)

    ways: dict[str, Callable[[], object]] = {
        "encoder alone": states,
        "autoregressive": lambda: search.greedy(endless(whisper, states()), prompt, limits),
        "parallel, one candidate": parallel(whole(4)),
        f"parallel, K={CANDIDATES}": parallel(Sampling("random", candidates=CANDIDATES)),
    }
    if batch == 1:
        ways["as published"] = lambda: published.decode(decoder, states(), CANDIDATES)
    return {name: round(batch * seconds / least(work, place.device), 1) for name, work in ways.items()}


def least(work: Callable[[], object], device: str) -> float:
    found = []
    for _ in range(3):  # the first warms up
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return min(found[1:])


if __name__ == "__main__":
    main()
