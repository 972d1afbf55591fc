"""This kind of sound, at these moments: samples from a mel diffusion and the adapters in it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..audio.io import Samples
from ..backbones.families import open_backbone
from ..backbones.mel_diffusion import MelDiffusion
from ..core.context import Context
from ..core.listening.moments import Interval, moments_of
from ..core.model import AdaptedModel
from ..decoders.mel_diffusion.sample import Sampling, sample
from ..decoders.mel_diffusion.waveform import waveform
from ..errors import ConfigError
from ..opening.loading import Opened, load
from .listener import Listener


class Generator:
    """A mel diffusion, alone or with adapters that know what a sound is like and when it sounds.

    `adapter` is a folder that the recipe generate/foley made, `weights` the folder of the diffusion
    where that is another by now, or is to be used alone. Raises ConfigError for another model.

    >>> dogs = Generator("runs/foley/kind")                                              # doctest: +SKIP
    >>> wave = dogs("dog_bark", intervals=[(0.5, 0.7), (2.0, 2.3)], seconds=5)           # doctest: +SKIP
    """

    def __init__(
        self,
        adapter: str | Path | None = None,
        weights: str | Path | None = None,
        device: str | torch.device = "cpu",
        offline: bool = False,
    ):
        if adapter is not None:
            opened = load(adapter, weights, device, offline)
        elif weights is not None:
            backbone = open_backbone("mel_diffusion", weights, offline=offline)
            opened = Opened(backbone, AdaptedModel(backbone.module, backbone.sites(), {}))
            opened.model.to(device).eval()
        else:
            raise ConfigError("a generator needs the folder of an adapter, or weights of a mel diffusion")
        if not isinstance(opened.backbone, MelDiffusion):
            raise ConfigError(
                f"{adapter}: an adapter of {opened.backbone.name}; expected one of mel_diffusion"
            )
        self.backbone, self.model, self.device = opened.backbone, opened.model, torch.device(device)
        given = opened.saved.head_config.get("generate", {}) if opened.saved else {}
        self.listener = Listener(given["listener"]) if "listener" in given else None
        self.sample_rate = self.backbone.sample_rate

    def __call__(
        self,
        kind: str | None = None,
        *,
        like: Samples | None = None,
        intervals: Sequence[Interval] | None = None,
        seconds: float = 5.0,
        seed: int = 0,
        how: Sampling | None = None,
    ) -> Samples:
        """One sound, at `sample_rate`.

        `kind` is a class of the model, `like` a recording at `sample_rate` of what it is to sound like,
        `intervals` the seconds in which it sounds: each may be left out. The same seed gives the same sound.
        Raises ConfigError for a class that is not known, and for what no adapter listens to.
        """
        noise = self.noise(seconds, [seed])
        memory = None if like is None else self.heard([like])
        moments = None if intervals is None else [list(intervals)]
        return self.waveforms(self.spectrograms(noise, [kind], memory, moments, how))[0]

    def noise(self, seconds: float, seeds: Sequence[int]) -> Float[Tensor, "b t w"]:
        """What sounds begin as, each from a seed of its own: in a batch it is the same as alone."""
        if not 0 < seconds < float("inf"):
            raise ConfigError(f"seconds: {seconds:g}; a sound lasts longer than 0")
        wide = self.backbone.module.config.num_mel_bins * self.backbone.stacked_frames
        shape = self.backbone.frames_of(seconds), wide
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn).to(self.device)

    def heard(self, recordings: Sequence[Samples]) -> Float[Tensor, "b 1 d"]:
        """What the adapter attends to of recordings; raises ConfigError where none attends to any."""
        if self.listener is None:
            raise ConfigError(
                "like: no adapter here listens to a recording; recipe generate/foley trains one"
            )
        lengths = torch.tensor([len(one) for one in recordings], device=self.device)
        waves = [torch.from_numpy(np.asarray(one, np.float32)) for one in recordings]
        audio = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True).to(self.device)
        return self.listener(audio, lengths)

    @torch.no_grad()
    def spectrograms(
        self,
        noise: Float[Tensor, "b t w"],
        kinds: Sequence[str | None],
        memory: Float[Tensor, "b m d"] | None = None,
        intervals: Sequence[Sequence[Interval]] | None = None,
        how: Sampling | None = None,
    ) -> Float[Tensor, "b t w"]:
        """Features of a batch of sounds."""
        if intervals is not None and not any("moments" in m.hears for m in self.model.methods.values()):
            raise ConfigError("intervals: no adapter here knows moments; recipe generate/foley trains one")
        how, rate = how or Sampling(), self.backbone.frame_rate
        classes = self.backbone.numbers_of(kinds).to(self.device)
        moments = None if intervals is None else moments_of(intervals, noise.shape[1], rate).to(self.device)
        told, untold = Context(memory=memory, moments=moments), Context()

        def said(state: Tensor, time: float) -> Tensor:
            at = torch.full((len(state),), time, device=self.device)
            with self.model.context(told):
                found = [self.model.base(state, at, classes)]
            if how.compares:
                with self.model.context(untold):
                    found.append(self.model.base(state, at, torch.full_like(classes, -1)))
            return torch.stack(found)

        return sample(said, noise, how)

    def waveforms(self, values: Float[Tensor, "b t w"]) -> list[Samples]:
        """Samples of spectrograms, by Griffin and Lim's phases."""
        return [waveform(one, self.backbone.filters) for one in self.backbone.power_of(values)]
