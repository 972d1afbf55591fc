"""Audio classification: a head on a backbone's states, one label a clip or several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ...backbones.base import Backbone, Features
from ...core.lifecycle import Predicted
from ...decoders.classifier import ClassifierHead
from ...errors import ConfigError
from ...metrics.classification import accuracy, macro_f1
from ...recipe.recipe import Recipe
from ...recipe.tasks import ClassifyConfig
from ...registry import TASKS
from ..data import augment, labels
from .base import Task
from .scores import Loss, Scores
from .sites import encoder_sites

if TYPE_CHECKING:
    from ...core.model import AdaptedModel
    from ...core.site import Site
    from ..data.data import SpeechData
    from ..data.heard import Batch


@dataclass(frozen=True)
class Examined:
    """One validation batch: its summed loss, the true classes and the probabilities given."""

    loss: float
    target: Float[np.ndarray, "b c"]
    probabilities: Float[np.ndarray, "b c"]


@TASKS.register("classify")
class Classify(Task):
    """Learns to name the sound of a clip; validated by the share of clips that are named wrongly."""

    def __init__(self, recipe: Recipe, backbone: Backbone, model: AdaptedModel, data: SpeechData):
        super().__init__(recipe, backbone, model)
        assert isinstance(recipe.task, ClassifyConfig)
        self.config, self.data = recipe.task, data
        self.heads["classify"] = ClassifierHead(
            backbone.dim,
            data.labels,
            head=self.config.head,
            pooling=self.config.pooling,
            layer=self.config.layer,
            depth=backbone.depth,
            multi_label=self.config.multi_label,
            standardise=self.config.standardise,
        )
        self._weights = labels.weights(data.train_clips.rows, data.labels, self.config)
        if recipe.data.spec_augment and backbone.feature_axes is None:
            raise ConfigError(
                f"data.spec_augment: {backbone.name} hears the waveform itself, not a spectrogram with "
                "stripes from; set data.spec_augment=null"
            )
        if recipe.task.pooling == "native" and not backbone.summarises:
            raise ConfigError(
                f"task.pooling: {backbone.name} has no summary of its own; use mean or attention"
            )

    @classmethod
    def sites(cls, recipe: Recipe, backbone: Backbone) -> list[Site]:
        """None above the block that is read, where an adapter would never be heard."""
        assert isinstance(recipe.task, ClassifyConfig)
        layer = recipe.task.layer
        return encoder_sites(backbone, layer if isinstance(layer, int) else None)

    @property
    def head(self) -> ClassifierHead:
        return cast("ClassifierHead", self.heads["classify"])

    def head_config(self) -> dict[str, Any]:
        return {"classify": self.head.config()}

    # ---- training -----------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Loss:
        target = labels.targets(batch.labels, self.head.labels).to(batch.audio.device)
        features = None
        if self.training and self._augments:
            batch, target, features = self._augmented(batch, target)
        logits = self.head.logits_of(self.pooled(batch, features))
        predicted = Predicted(logits, "labels" if self.config.multi_label else "class")
        return Loss(self._criterion(logits, target), len(batch.labels), predicted)

    @property
    def _augments(self) -> bool:
        data = self.recipe.data
        return bool(self.config.mixup or data.shift_seconds or data.spec_augment)

    def _augmented(self, batch: Batch, target: Tensor) -> tuple[Batch, Tensor, Features | None]:
        """The batch, its target and, where stripes are taken from them, its features."""
        data, generator = self.recipe.data, self.generator()
        audio, lengths = batch.audio, batch.lengths
        if data.shift_seconds:
            most = round(data.shift_seconds * self.backbone.sample_rate)
            audio = augment.shift(audio, lengths, most, generator)
        if self.config.mixup:
            audio, lengths, target = augment.mixup(audio, lengths, target, self.config.mixup, generator)
        batch = replace(batch, audio=audio, lengths=lengths)
        if data.spec_augment is None:
            return batch, target, None
        heard = lengths / self.backbone.padded_samples(audio.shape[1])
        shape = augment.Spectrogram(self.backbone.feature_axes, self.backbone.stacked_frames)
        features = augment.spec_augment(self.prepare(batch), heard, shape, data.spec_augment, generator)
        return batch, target, features

    def pooled(self, batch: Batch, features: Features | None = None) -> Float[Tensor, "b l d"]:
        """Pooled states of a batch, through the prefix cache when there is one."""
        if self.cache is not None:
            return self.head.pooled_from(self.backbone, self.cache.k, *self.cache.states(batch))
        features = features or self.prepare(batch)
        return self.head.pooled_from(self.backbone, 0, self.backbone.prefix(features, 0), features)

    def _criterion(self, logits: Float[Tensor, "b c"], target: Float[Tensor, "b c"]) -> Tensor:
        smoothing = self.config.label_smoothing
        weights = None if self._weights is None else self._weights.to(logits)
        if not self.config.multi_label:
            return F.cross_entropy(logits, target, weight=weights, label_smoothing=smoothing, reduction="sum")
        target = target * (1 - smoothing) + 0.5 * smoothing
        each = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weights, reduction="none")
        return each.mean(1).sum()

    def on_train_start(self) -> None:
        if self.config.standardise and self.global_step == 0:
            self._standardise()
        super().on_train_start()

    @torch.no_grad()
    def _standardise(self) -> None:
        """Mean and deviation of the pooled states of every training clip, as the untrained model has them."""
        self.eval()
        pooled = [
            self.pooled(self.transfer_batch_to_device(batch, self.device, 0))
            for batch in self.data.once_through()
            if len(batch.lengths)
        ]
        self.head.fit_standard(torch.cat(pooled))
        self.train()

    # ---- validation ---------------------------------------------------------------------------------------

    def examine(self, batch: Batch) -> Examined:
        target = labels.targets(batch.labels, self.head.labels).to(batch.audio.device)
        logits = self.head.logits_of(self.pooled(batch))
        found = self.head.probabilities(logits)
        if self.config.multi_label:
            loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1).sum()
        else:
            loss = F.cross_entropy(logits, target, reduction="sum")
        return Examined(float(loss), target.cpu().numpy(), found.cpu().double().numpy())

    def validate(self, batches: list[Examined]) -> Scores:
        """One less the score that is asked for, since lower is better."""
        target = np.concatenate([batch.target for batch in batches])
        probabilities = np.concatenate([batch.probabilities for batch in batches])
        loss = sum(batch.loss for batch in batches) / len(target)
        if self.config.multi_label:
            return Scores("macro_f1_error", 1 - macro_f1(target.astype(bool), probabilities), loss)
        truth = target.argmax(1)
        if self.config.score == "macro_f1":
            return Scores("macro_f1_error", 1 - macro_f1(truth, probabilities), loss)
        return Scores("error_rate", 1 - accuracy(truth, probabilities), loss)
