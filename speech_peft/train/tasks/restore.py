"""Speech restoration after Miipher-2 (arXiv:2505.04457): degraded states to clean ones, and these to sound.

    features   adapters are trained; what they make of degraded speech is to equal what the bare encoder makes
               of the clean recording
    decoder    a waveform decoder is trained on states of clean speech, without adapters
    finetune   that decoder is trained on cleaned states; adapters named in `train` go on learning with it

Each stage is a run of its own; stages.py runs them in order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import soxr
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...backbones.base import Backbone, Encoded
from ...backbones.frames import below
from ...core.lifecycle import Predicted
from ...core.saved import hub, save
from ...decoders.discriminators import Discriminators, feature_matching, judge_loss, maker_loss
from ...decoders.spectral import MultiResolutionStft, averaged
from ...decoders.waveform import WaveformDecoder, build_decoder
from ...errors import ConfigError
from ...recipe.recipe import Recipe
from ...recipe.tasks import RestoreConfig
from ...registry import TASKS
from ..data.targets import Targets
from .base import Task
from .distance import WaveformDistance, feature_distance
from .scores import Loss, Scores
from .sites import encoder_sites

if TYPE_CHECKING:
    from ...core.model import AdaptedModel
    from ...core.site import Site
    from ..data.data import SpeechData
    from ..data.heard import Batch


@dataclass(frozen=True)
class Examined:
    """One validation batch, in sums over its clips or frames."""

    loss: float
    distance: float
    targets: int


@dataclass(frozen=True)
class Pieces:
    """What a decoder is given and what it is to give, all from the same moment on."""

    states: Float[Tensor, "b t d"]
    degraded: Float[Tensor, "b n"] | None
    clean: Float[Tensor, "b n"]
    lengths: Int[Tensor, " b"]
    """Samples of `clean` that hold sound."""


@TASKS.register("restore")
class Restore(Task):
    """Learns to clean speech; validated by the distance to the clean states or to the clean spectrum."""

    def __init__(self, recipe: Recipe, backbone: Backbone, model: AdaptedModel, data: SpeechData):
        super().__init__(recipe, backbone, model)
        assert isinstance(recipe.task, RestoreConfig)
        self.config, sample_rate = recipe.task, backbone.sample_rate
        self.judges: Discriminators | None = None
        if self.config.stage != "features":
            self.heads["decoder"] = decoder = self._decoder()
            sample_rate = decoder.sample_rate
            self.distance = WaveformDistance(self.config.waveform, sample_rate)
            self.score = MultiResolutionStft(sample_rate)
            if judges := self.config.discriminators:
                fields = judges.model_dump(exclude={"lr_times", "start"})
                self.judges = Discriminators(**fields)
        data.restore(Targets(backbone.sample_rate, sample_rate, recipe.seed, self.config.peak_db))

    def _decoder(self) -> WaveformDecoder:
        """A fresh one, or that of a saved adapter; where adapters are put into it, they alone learn."""
        backbone, fields = self.backbone, dict(self.config.decoder or {})
        if "from" not in fields:
            return build_decoder(backbone.dim, backbone.frame_rate, **fields)
        more = fields.get("adapters")
        saved = save.read(hub.locate(fields["from"]))
        if "decoder" not in saved.head_config:
            raise ConfigError(f"task.decoder.from: {saved.folder} holds no waveform decoder")
        saved.check_backbone(backbone.card())
        fields = saved.head_config["decoder"]
        decoder = saved.build_head(
            "decoder", partial(build_decoder, backbone.dim, backbone.frame_rate, **fields)
        )
        if more:
            decoder.adapt(more)
        return decoder

    @classmethod
    def sites(cls, recipe: Recipe, backbone: Backbone) -> list[Site]:
        return encoder_sites(backbone)

    @property
    def written(self) -> tuple[str, ...]:
        """In `finetune` the adapters that run, trained or not: a decoder is nothing without them."""
        return self.recipe.active if self.config.stage == "finetune" else self.recipe.train

    @property
    def decoder(self) -> WaveformDecoder:
        return cast("WaveformDecoder", self.heads["decoder"])

    def head_config(self) -> dict[str, Any]:
        return {"decoder": self.decoder.config()} if "decoder" in self.heads else {}

    def trained(self) -> list[torch.nn.Parameter]:
        return [*super().trained(), *(self.judges.parameters() if self.judges else ())]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimiser for makers and judges: neither's loss reaches the other's parameters."""
        optimizer = super().configure_optimizers()
        if self.judges is not None and self.config.discriminators is not None:
            times = self.config.discriminators.lr_times
            optimizer.add_param_group({"params": list(self.judges.parameters()), "times": times})
        return optimizer

    # ---- states -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def clean_states(self, batch: Batch) -> Encoded:
        """What the bare encoder makes of the clean recordings."""
        assert batch.targets is not None
        with self.model.using():
            return self.backbone.encode(self.prepare(replace(batch, audio=batch.targets)))

    # ---- training -----------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Loss:
        if self.config.stage == "features":
            return self._feature_loss(self.encode(batch), self.clean_states(batch))[0]
        clips = len(batch.lengths)
        encoded = self.clean_states(batch) if self.config.stage == "decoder" else self.encode(batch)
        pieces = self.pieces(batch, encoded.states)
        made = self._made(pieces)
        total = averaged(made, lambda one: self.distance(one, pieces.clean))
        if self.training:
            # Losses of a decoder's inner parts: nothing that a validation score should move with.
            total = total + sum(self.decoder.own_losses(pieces.states, pieces.clean).values())
            total = total + self._judged(made, pieces.clean)
        if self.config.stage == "finetune" and self.recipe.train and self.config.feature_weight:
            features = self._feature_loss(encoded, self.clean_states(batch))[0]
            total = total + self.config.feature_weight * features.total / max(features.targets, 1)
        return Loss(total * clips, clips)

    def _feature_loss(self, encoded: Encoded, clean: Encoded) -> tuple[Loss, float]:
        """Summed over frames, and the summed relative error."""
        frames = clean.mask.sum(1)
        # Adapters that add frames to a stack put them first.
        states = encoded.states[:, -clean.states.shape[1] :]
        each, relative = feature_distance(states, clean.states, clean.mask, self.config.features)
        loss = Loss((each * frames).sum(), int(frames.sum()), Predicted(states[clean.mask], "values"))
        return loss, float((relative.detach() * frames).sum())

    def _made(self, pieces: Pieces) -> list[Float[Tensor, "b n"]]:
        """The decoder's waveforms, silent where the clips have ended, as long as the clean ones."""
        generator = self.generator() if self.training else torch.Generator().manual_seed(0)
        made = self.decoder.estimates(pieces.states, pieces.degraded, generator=generator)
        samples = pieces.clean.shape[1]
        padded = (torch.nn.functional.pad(one, (0, max(0, samples - one.shape[1]))) for one in made)
        sound = below(pieces.lengths, samples)
        return [one[:, :samples].float() * sound for one in padded]

    def _judged(self, made: list[Float[Tensor, "b n"]], clean: Float[Tensor, "b n"]) -> Tensor | float:
        """What the decoder loses to the judges, and the judges to the decoder."""
        if self.judges is None or self.config.discriminators is None:
            return 0.0
        judges, weights, total = self.judges, self.config.waveform, clean.new_zeros(())
        if self.global_step >= self.config.discriminators.start:
            judges.requires_grad_(False)  # this half teaches the decoder alone
            real = judges(clean)
            for one in made:
                seen = judges(one)
                loss = weights.adversarial * maker_loss(seen) + weights.matching * feature_matching(
                    real, seen
                )
                total = total + loss / len(made)
            judges.requires_grad_(True)
        real = judges(clean)
        return total + averaged(made, lambda one: judge_loss(real, judges(one.detach())))

    # ---- waveforms beside states --------------------------------------------------------------------------

    def pieces(self, batch: Batch, states: Float[Tensor, "b t d"]) -> Pieces:
        """States, the waveform that is filtered and the clean one, in training cropped to `crop_seconds`."""
        assert batch.references is not None
        decoder, heard_rate = self.decoder, self.backbone.sample_rate
        clean, degraded = batch.references, None
        samples = clean.shape[1]
        if decoder.needs_waveform:
            degraded = _fitted(resampled(batch.audio, heard_rate, decoder.sample_rate), samples)
        lengths = (batch.lengths * decoder.sample_rate + heard_rate // 2) // heard_rate
        pieces = Pieces(states, degraded, clean, lengths.clamp(max=samples))
        seconds = self.config.crop_seconds
        return self._cropped(pieces, seconds) if self.training and seconds else pieces

    def _cropped(self, pieces: Pieces, seconds: float) -> Pieces:
        """A stretch of each clip from a random frame on, inside what holds sound."""
        hop, (clips, frames, _) = self.decoder.hop, pieces.states.shape
        wanted = max(1, round(seconds * self.backbone.frame_rate))
        if wanted >= frames:
            return pieces
        device = pieces.states.device
        drawn = torch.rand(clips, generator=self.generator()).to(device)
        heard = -(-pieces.lengths // hop)
        first = (drawn * ((heard - wanted).clamp(min=0) + 1)).long()
        rows = torch.arange(clips, device=device)[:, None]
        states = pieces.states[rows, first[:, None] + torch.arange(wanted, device=device)]
        places = (first * hop)[:, None] + torch.arange(wanted * hop, device=device)

        def cut(waveform: Tensor) -> Tensor:
            return _fitted(waveform, frames * hop)[rows, places]

        degraded = None if pieces.degraded is None else cut(pieces.degraded)
        lengths = (pieces.lengths - first * hop).clamp(0, wanted * hop)
        return Pieces(states, degraded, cut(pieces.clean), lengths)

    # ---- validation ---------------------------------------------------------------------------------------

    def examine(self, batch: Batch) -> Examined:
        if self.config.stage == "features":
            loss, relative = self._feature_loss(self.encode(batch), self.clean_states(batch))
            return Examined(float(loss.total), relative, loss.targets)
        clips = len(batch.lengths)
        states = (self.clean_states(batch) if self.config.stage == "decoder" else self.encode(batch)).states
        pieces = self.pieces(batch, states)
        made = self._made(pieces)
        loss = float(averaged(made, lambda one: self.distance(one, pieces.clean)))
        distance = float(sum(self.score(made[-1], pieces.clean).values()))
        return Examined(loss * clips, distance * clips, clips)

    def validate(self, batches: list[Examined]) -> Scores:
        """States: |made - clean| / |clean|; waveforms: spectral convergence plus log-magnitude distance."""
        targets = max(1, sum(batch.targets for batch in batches))
        loss = sum(batch.loss for batch in batches) / targets
        name = "feature_error" if self.config.stage == "features" else "stft_distance"
        return Scores(name, sum(batch.distance for batch in batches) / targets, loss)


def resampled(audio: Float[Tensor, "b s"], source: int, wanted: int) -> Float[Tensor, "b n"]:
    """The same sound at another rate, without delay."""
    if source == wanted:
        return audio
    made = soxr.resample(audio.T.cpu().numpy(), source, wanted)  # clips are its channels
    return torch.from_numpy(made.T.copy()).to(audio.device)


def _fitted(audio: Float[Tensor, "b s"], samples: int) -> Float[Tensor, "b n"]:
    """Cut, or followed by silence."""
    return torch.nn.functional.pad(audio[:, :samples], (0, max(0, samples - audio.shape[1])))
