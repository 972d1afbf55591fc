"""A teacher for clips in another language: the frozen decoder, hearing the same said in its own.

    native      -log p(w)                                           no such recording: learned from the text
    parallel    kl KL(p_teacher || p_student) + features sum_l |h_l - t_l|^2 / |t_l|^2

Both decoders read the same tokens, so that their places align however long the two recordings are. After
PEA-Diffusion (arXiv:2311.17086); its squared distance is relative here, since a few channels of a text
decoder are hundreds of times as loud as the others. Nothing is dropped from what either of them is told.

The teacher is frozen and its text does not change, so what it makes of a clip is computed once and kept:
about 6 KB a token with Whisper base.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...audio.batch import Example, collate
from ...core.lifecycle import Predicted
from .scores import Loss

if TYPE_CHECKING:
    from ...backbones.base import Encoded
    from ...backbones.whisper import Whisper
    from ...core.model import AdaptedModel
    from ...recipe.tasks import ParallelConfig
    from ..data.heard import Batch


class Parallel:
    """The loss of a batch in which some clips have a recording of the same in the decoder's language."""

    def __init__(self, backbone: Whisper, model: AdaptedModel, config: ParallelConfig, smoothing: float):
        self.backbone, self.model, self.config, self.smoothing = backbone, model, config, smoothing
        self._kept: dict[str, Float[Tensor, "l n d"]] = {}

    def loss(
        self, encoded: Encoded, batch: Batch, inputs: Int[Tensor, "b n"], labels: Int[Tensor, "b n"]
    ) -> Loss:
        """`labels` are negative where a token is given and not learned."""
        wanted = labels >= 0
        states = self._through(encoded.states, inputs)[:, wanted]
        logits = self._logits(states[-1])
        taught = [i for i, heard in enumerate(batch.parallel) if heard is not None]
        has_teacher = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
        has_teacher[taught] = True
        theirs = has_teacher[wanted.nonzero()[:, 0]]
        total = F.cross_entropy(
            logits[~theirs], labels[wanted][~theirs], reduction="sum", label_smoothing=self.smoothing
        )
        if taught:
            teacher = self._taught(batch, taught, inputs, wanted).to(states)
            total = total + self._distance(states[:, theirs], logits[theirs], teacher)
        return Loss(total, int(wanted.sum()), Predicted(logits, "class"))

    def _distance(
        self, states: Float[Tensor, "l n d"], logits: Float[Tensor, "n v"], teacher: Float[Tensor, "l n d"]
    ) -> Tensor:
        """From the teacher, summed over the tokens."""
        with torch.no_grad():
            wanted = self._logits(teacher[-1]).log_softmax(-1)
        kl = F.kl_div(logits.log_softmax(-1), wanted, reduction="sum", log_target=True)
        apart, size = (x.float().square().sum(-1) for x in (states - teacher, teacher))
        return self.config.kl * kl + self.config.features * (apart / size.clamp(min=1e-6)).sum()

    def _through(
        self, states: Float[Tensor, "b t d"], inputs: Int[Tensor, "b n"]
    ) -> Float[Tensor, "l b n d"]:
        """What leaves each block of the decoder, the last one behind the final norm."""
        made = self.backbone.decoder(
            input_ids=inputs, encoder_hidden_states=states, use_cache=False, output_hidden_states=True
        )
        return torch.stack((*made.hidden_states[1:-1], made.last_hidden_state))

    def _logits(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        return self.backbone.module.proj_out(hidden).float()

    @torch.no_grad()
    def _taught(
        self, batch: Batch, taught: Sequence[int], inputs: Int[Tensor, "b n"], wanted: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "l n d"]:
        """What the frozen decoder makes of the wanted tokens of these clips, clip by clip."""
        keys = {i: f"{batch.sources[i]}|{batch.texts[i]}" for i in taught}
        # Of one padded length: Whisper attends to padding, and a clip should know nothing of its neighbours.
        alike: dict[int, list[int]] = defaultdict(list)
        for i in taught:
            if keys[i] not in self._kept:
                alike[self.backbone.padded_samples(len(_heard(batch, i)))].append(i)
        for clips in alike.values():
            made = self._frozen([_heard(batch, i) for i in clips], inputs[clips])
            for row, i in enumerate(clips):
                self._kept[keys[i]] = made[:, row, wanted[i]].half().cpu()
        # Each to float32 before they meet: autocast to bfloat16 joins no float16.
        return torch.cat([self._kept[keys[i]].float() for i in taught], 1)

    def _frozen(self, heard: Sequence[np.ndarray], inputs: Int[Tensor, "b n"]) -> Float[Tensor, "l b n d"]:
        """The decoder on what the encoder makes of these recordings, without any adapter."""
        clips = collate([Example("", samples) for samples in heard])
        with torch.autocast(inputs.device.type, enabled=False):
            features = self.backbone.prepare(clips.audio.to(inputs.device), clips.lengths.to(inputs.device))
        with self.model.using():
            return self._through(self.backbone.encode(features).states, inputs)


def _heard(batch: Batch, clip: int) -> np.ndarray:
    heard = batch.parallel[clip]
    assert heard is not None
    return heard
