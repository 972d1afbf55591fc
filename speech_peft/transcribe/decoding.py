"""Which decoder writes: the frozen model's own, or one that came with the adapter and fills in parallel."""

from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch

from ..backbones.whisper import Whisper
from ..core.model import AdaptedModel
from ..decoders.diffusion import by_device
from ..decoders.diffusion.engine import MaskedEngine
from ..decoders.diffusion.kinds.whisper_masked import WhisperMasked
from ..decoders.diffusion.reader import MaskedReader
from ..decoders.diffusion.sample import Sampling, falling
from ..decoders.diffusion.verified import VerifiedEngine
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
    if opened.diffusion is None:
        raise ConfigError(
            f"--decoder {name}: the adapter brings no decoder by diffusion; one that was trained with "
            "task.decoder={form: diffusion} does (asr/whisper_diffusion)"
        )
    if name == "verified" and not isinstance(opened.diffusion, WhisperMasked):
        raise ConfigError(
            "--decoder verified: drafts for Whisper's own decoder, by one that was trained with kind=whisper"
        )
    wrong = {
        "--engine ct2": options.engine == "ct2",
        "--dtype int8": options.dtype == "int8",
        "--beam-size": options.beam_size > 1,
        "--task translate": options.task != "transcribe",
    }
    for asked in (asked for asked, is_so in wrong.items() if is_so):
        raise ConfigError(f"{asked}: the decoder by diffusion has none; give --decoder autoregressive")
    return name


def stock(opened: Opened) -> Opened:
    """The same with only those adapters at work that the stock decoder was not changed by."""
    if opened.diffusion is not None:
        opened.model.activate(*_of_the_encoder(opened))
    return opened


def masked(opened: Opened, options: TranscribeOptions, device: str) -> Ready:
    """The decoder by diffusion that came with the adapter, ready to hear."""
    assert opened.diffusion is not None
    if options.dtype == "bfloat16":
        opened.model.to(torch.bfloat16)
        opened.diffusion.to(torch.bfloat16)
    dtype = "float32" if options.dtype == "auto" else options.dtype
    if not isinstance(opened.diffusion, WhisperMasked):
        return Ready(opened, None, dtype)
    backbone = cast(Whisper, opened.backbone)

    def alone() -> AbstractContextManager[AdaptedModel]:
        names = _of_the_encoder(opened)
        return nullcontext(opened.model) if names == opened.model.active else opened.model.using(*names)

    if chosen(opened, options) == "verified":
        engine = VerifiedEngine(backbone, opened.diffusion, alone, by_device.drafting(options.steps))
    else:
        engine = MaskedEngine(backbone, opened.diffusion, alone, sampling(options, device), options.selection)
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
