"""Sounds out of noise: a mel diffusion learns classes, or adapters in a frozen one learn kinds and moments.

With `backbone.train: true` the model itself learns, told the class of each clip and of some clips nothing.
Else adapters do, told what a frozen encoder hears in the clip (`task.listener`), and at which moments
something sounds, found by `metrics.onsets`. In some batches they are told nothing, so that with and without
can be compared when sounds are made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...backbones.base import Backbone
from ...backbones.mel_diffusion import MelDiffusion
from ...core.lifecycle import Predicted
from ...core.listening.moments import Interval, moments_of
from ...decoders.mel_diffusion.schedule import noised
from ...errors import ConfigError
from ...generate.listener import Listener
from ...metrics.onsets import intervals
from ...recipe.recipe import Recipe
from ...recipe.tasks import GenerateConfig
from ...registry import TASKS
from ..data.augment import rotated
from .base import Task
from .scores import Loss, Scores
from .sites import encoder_sites

if TYPE_CHECKING:
    from ...core.model import AdaptedModel
    from ...core.site import Site
    from ..data.data import SpeechData
    from ..data.heard import Batch

PEAK = 0.9
"""Of full scale: every clip is as loud as this when it is learned from."""
_VALIDATED = 17  # the seed of the noise that validation is measured with


@dataclass(frozen=True)
class Told:
    """A batch as it is learned from."""

    values: Float[Tensor, "b t w"]
    classes: Int[Tensor, " b"]
    memory: Float[Tensor, "b m d"] | None
    moments: Float[Tensor, "b t"] | None


@TASKS.register("generate")
class Generate(Task):
    """Learns to take noise out of spectrograms; validated by how much it leaves."""

    def __init__(self, recipe: Recipe, backbone: Backbone, model: AdaptedModel, data: SpeechData):
        super().__init__(recipe, backbone, model)
        assert isinstance(recipe.task, GenerateConfig)
        assert isinstance(backbone, MelDiffusion)
        self.config, self.diffusion = recipe.task, backbone
        backbone.numbers_of(sorted({row.label for row in data.train_clips.rows if row.label}))
        hears = {field for name in recipe.active for field in model.methods[name].hears}
        self.places = "moments" in hears
        self.listener = None if self.config.listener is None else Listener(self.config.listener.model_dump())
        self._check_listener(recipe, model)
        self._sounds: dict[str, list[Interval]] = {}
        self._heard: dict[str, Tensor] = {}
        self._kin: dict[str, list[str]] = {}
        """Of each class the training clips, by source."""
        self.data = data

    def _check_listener(self, recipe: Recipe, model: AdaptedModel) -> None:
        """Raises ConfigError where adapters attend to a summary that is not there, or to another width."""
        listen = [name for name in recipe.active if "memory" in model.methods[name].hears]
        if bool(listen) != bool(self.listener):
            raise ConfigError(
                f"task.listener: adapter {listen[0]!r} attends to what it hears; give one"
                if listen
                else "task.listener: no adapter attends to what it hears (method attention, keys new:tokens)"
            )
        for name in listen:
            wanted = getattr(model.methods[name], "dim", None) or self.backbone.dim
            if self.listener and wanted != self.listener.dim:
                raise ConfigError(f"adapters.{name}.dim: {wanted}, and the listener's is {self.listener.dim}")

    @classmethod
    def sites(cls, recipe: Recipe, backbone: Backbone) -> list[Site]:
        return encoder_sites(backbone)

    def head_config(self) -> dict[str, Any]:
        listener = self.config.listener
        if listener is None:
            return {}
        return {"generate": {"listener": listener.model_dump(mode="json", exclude_none=True)}}

    def on_train_start(self) -> None:
        if self.listener is not None and self.config.kin:
            self._listen_once(self.listener)
        super().on_train_start()

    def _listen_once(self, listener: Listener) -> None:
        """Hear every training clip, so that a batch can be told of others than its own."""
        for clips in self.data.once_through():
            batch = self.transfer_batch_to_device(clips, self.device, 0)
            self._memory(batch, listener)
            for label, source in zip(batch.labels, batch.sources, strict=True):
                self._kin.setdefault(label, []).append(source)

    # ---- what is told -------------------------------------------------------------------------------------

    @torch.no_grad()
    def told(self, batch: Batch, generator: torch.Generator) -> Told:
        """Features of a batch, and what the model and its adapters are told of it."""
        peak = batch.audio.abs().amax(1, keepdim=True).clamp(min=1e-5)
        features = self.prepare(replace(batch, audio=batch.audio * (PEAK / peak)))
        values, clips = features.values, len(batch.lengths)
        moments = self._moments(batch, values.shape[1]) if self.places else None
        memory = None if self.listener is None else self._memory(batch, self.listener)
        classes = self.diffusion.numbers_of([label or None for label in batch.labels])
        if self.training:
            classes[torch.rand(clips, generator=generator) < self.config.unlabelled] = -1
            if most := round(self.recipe.data.shift_seconds * self.backbone.frame_rate):
                by = torch.randint(-most, most + 1, (clips,), generator=generator).to(values.device)
                values = rotated(values, features.lengths, by)
                moments = None if moments is None else rotated(moments, features.lengths, by)
            if memory is not None and self._kin:
                memory = self._of_kin(batch, memory, generator)
            if torch.rand((), generator=generator) < self.config.alone and None not in (memory, moments):
                # Never neither: of the bare model, which is frozen, nobody learns.
                first = bool(torch.rand((), generator=generator) < 0.5)
                memory, moments = (memory, None) if first else (None, moments)
        return Told(values, classes.to(values.device), memory, moments)

    def _moments(self, batch: Batch, frames: int) -> Float[Tensor, "b t"]:
        """Found once for each clip."""
        for source, audio, length in zip(batch.sources, batch.audio, batch.lengths.tolist(), strict=True):
            if source not in self._sounds:
                found = intervals(audio[:length].float().cpu().numpy(), self.backbone.sample_rate)
                self._sounds[source] = found
        each = [self._sounds[source] for source in batch.sources]
        return moments_of(each, frames, self.backbone.frame_rate).to(batch.audio.device)

    def _memory(self, batch: Batch, listener: Listener) -> Float[Tensor, "b 1 d"]:
        """Heard once for each clip."""
        new = [i for i, source in enumerate(batch.sources) if source not in self._heard]
        if new:
            longest = int(batch.lengths[new].max())
            for i, summary in zip(new, listener(batch.audio[new, :longest], batch.lengths[new]), strict=True):
                self._heard[batch.sources[i]] = summary.cpu()
        return torch.stack([self._heard[source] for source in batch.sources]).to(batch.audio.device)

    def _of_kin(
        self, batch: Batch, memory: Float[Tensor, "b 1 d"], generator: torch.Generator
    ) -> Float[Tensor, "b 1 d"]:
        """What is heard in another clip of the same class, for a share of the clips."""
        drawn = torch.rand(2, len(memory), generator=generator)
        for row, label in enumerate(batch.labels):
            others = self._kin.get(label, [])
            if others and drawn[0, row] < self.config.kin:
                memory[row] = self._heard[others[int(drawn[1, row] * len(others))]].to(memory.device)
        return memory

    # ---- training and validation --------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Loss:
        generator = self.generator() if self.training else torch.Generator().manual_seed(_VALIDATED)
        told, clips = self.told(batch, generator), len(batch.lengths)
        # One time in each of as many equal parts: a batch says something of all of them.
        time = (torch.arange(clips) + torch.rand(clips, generator=generator)) / clips
        time = time[torch.randperm(clips, generator=generator)].to(told.values.device)
        noise = torch.randn(told.values.shape, generator=generator).to(told.values.device)
        noisy, wanted = noised(told.values, noise, time)
        ctx = replace(self.model.current.ctx, memory=told.memory, moments=told.moments)
        with self.model.context(ctx):
            said = self.model.base(noisy, time, told.classes)
        each = (said.float() - wanted).square().mean((1, 2))
        return Loss(each.sum(), clips, Predicted(said.flatten(0, 1), "values"))

    def examine(self, batch: Batch) -> tuple[float, int]:
        return float(self.loss(batch).total), len(batch.lengths)

    def validate(self, batches: list[tuple[float, int]]) -> Scores:
        """The mean square of what is left of noise and sound."""
        error = sum(total for total, _ in batches) / max(1, sum(clips for _, clips in batches))
        return Scores("noise_error", error, error)
