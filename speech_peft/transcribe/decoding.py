"""Which decoder writes: the frozen model's own, or one that came with the adapter and fills in parallel.

A draft that the frozen one verifies is filled in parallel, or spelled by a CTC layer."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import cast

import torch

from ..backbones.whisper import Whisper
from ..core.model import AdaptedModel
from ..decoders.diffusion import by_device
from ..decoders.diffusion.drafts import MaskedDrafter
from ..decoders.diffusion.engine import MaskedEngine
from ..decoders.diffusion.kinds.whisper_masked import WhisperMasked
from ..decoders.diffusion.reader import MaskedReader
from ..decoders.diffusion.sample import Sampling, falling
from ..decoders.words.spelled import SpelledDrafter
from ..decoders.words.verified import VerifiedEngine
from ..errors import ConfigError
from ..opening.loading import Opened
from .engines import Ready
from .result import TranscribeOptions


def chosen(opened: Opened, options: TranscribeOptions) -> str:
    """Its name. Raises ConfigError for one that the adapter did not bring, or that cannot be asked so."""
    if options.decoder == "auto":
        name = "autoregressive" if opened.diffusion is None else "diffusion"
    else:
        name = options.decoder
    if name == "autoregressive":
        if options.decoder != "auto" and opened.ctc is None and not isinstance(opened.backbone, Whisper):
            raise ConfigError(f"--decoder autoregressive: {opened.backbone.name} has no decoder of its own")
        if options.decoder == "auto" and (options.steps, options.candidates) != ("auto", "auto"):
            raise ConfigError("--steps and --candidates: of an adapter with a decoder by diffusion")
        return name
    if name == "verified":
        _check_drafts(opened)
    elif opened.diffusion is None:
        raise ConfigError(
            f"--decoder {name}: the adapter brings no decoder by diffusion; one that was trained with "
            "task.decoder={form: diffusion} does (asr/whisper_diffusion)"
        )
    wrong = {
        "--engine ct2": options.engine == "ct2",
        "--dtype int8": options.dtype == "int8",
        "--beam-size": options.beam_size > 1,
        "--task translate": options.task != "transcribe",
    }
    for asked in (asked for asked, is_so in wrong.items() if is_so):
        raise ConfigError(f"{asked}: --decoder {name} has none; give --decoder autoregressive")
    return name


def _check_drafts(opened: Opened) -> None:
    """Raises ConfigError where nobody drafts what Whisper's own decoder could read."""
    if not isinstance(opened.backbone, Whisper) or not (opened.diffusion or opened.ctc):
        raise ConfigError(
            "--decoder verified: Whisper's own decoder reads drafts of an adapter, by a CTC layer "
            "(asr/whisper_drafts) or a decoder by diffusion (asr/whisper_diffusion); here is neither"
        )
    if opened.diffusion is not None and not isinstance(opened.diffusion, WhisperMasked):
        raise ConfigError(
            "--decoder verified: drafts for Whisper's own decoder, by one that was trained with kind=whisper"
        )


def spells(opened: Opened, options: TranscribeOptions) -> bool:
    """Whether a CTC layer writes, and not a decoder that reads the same states."""
    own = options.decoder == "auto" or not isinstance(opened.backbone, Whisper)
    return opened.ctc is not None and own


def stock(opened: Opened, options: TranscribeOptions) -> Opened:
    """The same with only those adapters and heads at work that the stock decoder was not changed by."""
    if opened.diffusion is not None:
        opened.model.activate(*_of_the_encoder(opened))
    if opened.ctc is not None and not spells(opened, options):
        return replace(opened, heads={name: head for name, head in opened.heads.items() if name != "ctc"})
    return opened


def brought(opened: Opened, options: TranscribeOptions, device: str) -> Ready:
    """What came with the adapter to write or to draft, ready to hear."""
    heads = [head for head in (opened.diffusion, opened.ctc) if head is not None]
    if options.dtype == "bfloat16":
        for part in (opened.model, *heads):
            part.to(torch.bfloat16)
    dtype = "float32" if options.dtype == "auto" else options.dtype
    decoder = opened.diffusion
    if decoder is not None and not isinstance(decoder, WhisperMasked):
        return Ready(opened, None, dtype)
    backbone = cast(Whisper, opened.backbone)

    def alone() -> AbstractContextManager[AdaptedModel]:
        names = _of_the_encoder(opened)
        return nullcontext(opened.model) if names == opened.model.active else opened.model.using(*names)

    if decoder is None:
        assert opened.ctc is not None
        return Ready(opened, VerifiedEngine(backbone, SpelledDrafter(backbone, opened.ctc), alone), dtype)
    if chosen(opened, options) == "verified":
        drafts = Sampling(steps=by_device.drafting(options.steps))
        drafter = MaskedDrafter(MaskedEngine(backbone, decoder, alone, drafts))
        return Ready(opened, VerifiedEngine(backbone, drafter, alone), dtype)
    engine = MaskedEngine(backbone, decoder, alone, sampling(options, device), options.selection)
    return Ready(opened, engine, dtype)


def reader(opened: Opened, options: TranscribeOptions, device: str) -> MaskedReader | None:
    """What reads with tokens of its own; None where they are the backbone's, and an engine finds them."""
    if opened.diffusion is None or isinstance(opened.diffusion, WhisperMasked):
        return None
    return MaskedReader(opened.diffusion, sampling(options, device), options.selection)


def sampling(options: TranscribeOptions, device: str) -> Sampling:
    """How texts are filled: of several candidates at random, of one the surest places first."""
    candidates = by_device.texts(options.candidates)
    steps = by_device.passes(options.steps, candidates, device)
    if candidates == 1:
        return Sampling(steps=steps)
    return Sampling("random", candidates=candidates, ratios=falling(steps))


def _of_the_encoder(opened: Opened) -> tuple[str, ...]:
    """The adapters that run and do not sit in the decoder."""
    sites = opened.model.sites
    return tuple(
        name
        for name in opened.model.active
        if not any(site.name.startswith("decoder.") for site in sites[name])
    )
