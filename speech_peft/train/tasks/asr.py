"""Speech to text: Whisper's own decoder by teacher forcing, or a CTC layer on any encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.base import Backbone, Encoded
from ...backbones.whisper import Whisper
from ...core.lifecycle import Predicted
from ...decoders.ctc import Characters, CtcHead
from ...decoders.words.whisper_text import greedy
from ...errors import ConfigError
from ...metrics.normalise import normaliser
from ...metrics.wer import align_words, corpus, count, count_characters
from ...metrics.writing import unspaced
from ...recipe.recipe import Recipe
from ...recipe.tasks import AsrConfig, DiffusionConfig
from ...registry import TASKS
from ..step.seeds import chance
from .base import Task
from .filling import Filling, groups
from .parallel import Parallel
from .scores import Loss, Scores
from .sites import encoder_sites

if TYPE_CHECKING:
    from ...core.model import AdaptedModel
    from ...core.site import Site
    from ..data.data import SpeechData
    from ..data.heard import Batch

IGNORED = -100
FILLED = 0.5
"""Batches of this share of the native length, or more, are distilled: padding others would cost too much. Of
longer ones than that the frozen encoder has heard nothing, and is no teacher."""


@dataclass(frozen=True)
class Examined:
    """One validation batch: its loss, and what was said and heard."""

    loss: float
    targets: int
    said: list[str]
    heard: list[str]


@runtime_checkable
class Decoder(Protocol):
    """Encoder states to a loss and to text."""

    def loss(self, encoded: Encoded, texts: list[str], languages: Sequence[str]) -> Loss: ...
    def decode(self, encoded: Encoded, languages: Sequence[str]) -> list[str]: ...


class TeacherForcing:
    """Whisper's frozen decoder predicts each token from those before it; adapters may sit in it."""

    def __init__(self, backbone: Backbone, config: AsrConfig):
        if not isinstance(backbone, Whisper):
            raise ConfigError(
                f"task.decoder: {backbone.name} has no text decoder of its own; use task.decoder=ctc"
            )
        if backbone.layer:
            raise ConfigError(
                "backbone.layer: Whisper's decoder was trained on the last block; use task.decoder=ctc"
            )
        self.backbone, self.smoothing, self.language = backbone, config.label_smoothing, config.language
        self.prompt = list(backbone.generation.prompt(config.language))

    def of(self, languages: Sequence[str]) -> list[str | None]:
        """The language of each clip: the recipe's, else the manifest's where this Whisper writes it."""
        known = self.backbone.generation.languages if self.backbone.generation.is_multilingual else {}
        return [self.language or (one if one in known else None) for one in languages]

    def loss(self, encoded: Encoded, texts: list[str], languages: Sequence[str]) -> Loss:
        """Cross entropy over the text and its end; the prompt is given, not learned."""
        inputs, labels = self.tokens(texts, encoded.states.device, languages)
        whisper = self.backbone.module
        hidden = whisper.model.decoder(
            input_ids=inputs, encoder_hidden_states=encoded.states, use_cache=False
        ).last_hidden_state
        wanted = labels != IGNORED  # the projection to 50,000 tokens is the costly part: only where it counts
        logits = whisper.proj_out(hidden[wanted]).float()
        total = F.cross_entropy(logits, labels[wanted], reduction="sum", label_smoothing=self.smoothing)
        return Loss(total, int(wanted.sum()), Predicted(logits, "class"))

    def tokens(
        self, texts: list[str], device: torch.device, languages: Sequence[str] = ()
    ) -> tuple[Tensor, Tensor]:
        """Decoder inputs and, one token on, labels: prompt, " text", end; only text and end are labelled."""
        end = self.backbone.generation.eot
        room = self.backbone.module.config.max_target_positions - len(self.prompt) - 1
        encode = self.backbone.tokenizer.encode
        prompts = map(self.backbone.generation.prompt, self.of(languages or [""] * len(texts)))
        rows = [
            [*prompt, *encode(" " + text.strip(), add_special_tokens=False)[:room], end]
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        width = max(map(len, rows))
        full = torch.full((len(rows), width), end)
        labels = torch.full((len(rows), width), IGNORED)
        for i, row in enumerate(rows):
            full[i, : len(row)] = torch.tensor(row)
            labels[i, len(self.prompt) : len(row)] = full[i, len(self.prompt) : len(row)]
        return full[:, :-1].to(device), labels[:, 1:].to(device)

    def decode(self, encoded: Encoded, languages: Sequence[str]) -> list[str]:
        return [row.text for row in greedy(self.backbone, encoded.states, language=self.of(languages))]


class CtcLayer:
    """A trained linear layer over characters, alignment-free."""

    def __init__(self, head: CtcHead):
        self.head = head

    def loss(self, encoded: Encoded, texts: list[str], languages: Sequence[str]) -> Loss:
        log_probs = self.head(encoded.states)
        total, targets = self.head.score(log_probs, encoded.mask, texts)
        return Loss(total, targets, Predicted(log_probs[encoded.mask], "class"))

    def decode(self, encoded: Encoded, languages: Sequence[str]) -> list[str]:
        return self.head.decode(encoded.states, encoded.mask)


@TASKS.register("asr")
class Asr(Task):
    """Learns to write down what is said; validated by the corpus word error rate, or by that of characters
    where most of what is said is written without spaces."""

    def __init__(self, recipe: Recipe, backbone: Backbone, model: AdaptedModel, data: SpeechData):
        super().__init__(recipe, backbone, model)
        assert isinstance(recipe.task, AsrConfig)
        self.config = recipe.task
        self.parallel: Parallel | None = None
        self.decoder: Decoder
        if isinstance(self.config.decoder, DiffusionConfig):
            self.decoder = filling = Filling(self, self.config.decoder, data.texts)
            self.heads["diffusion"] = filling.head
            if filling.average is not None:
                self.average = filling.average  # a part of the state
        elif (ctc := self.config.ctc) is not None:
            characters = self.config.vocabulary or Characters.of(data.texts, ctc.cased).characters
            head = self.heads["ctc"] = CtcHead(backbone.dim, characters, ctc.blocks)
            self.decoder = CtcLayer(head)
        else:
            self.decoder = forcing = TeacherForcing(backbone, self.config)
            if self.config.parallel:
                self.parallel = Parallel(forcing.backbone, model, self.config.parallel, forcing.smoothing)
                data.train_clips.parallel = True
        if self.config.distil:
            data.beside()

    def head_config(self) -> dict[str, Any]:
        if isinstance(self.decoder, Filling):
            return {"diffusion": self.decoder.head_config()}
        return {name: head.config for name, head in self._ctc().items()}

    @property
    def kept_heads(self) -> dict[str, nn.Module]:
        return {"diffusion": self.decoder.kept} if isinstance(self.decoder, Filling) else super().kept_heads

    def head_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        if isinstance(self.decoder, Filling):
            return groups(self.decoder.head, self.decoder.config.layer_decay)
        return super().head_groups()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if isinstance(self.decoder, Filling):
            self.decoder.step(self.global_step)

    def _ctc(self) -> dict[str, CtcHead]:
        return {name: head for name, head in self.heads.items() if isinstance(head, CtcHead)}

    @property
    def _natively(self) -> bool:
        """Whether this batch is one of the share that is heard at native length."""
        share = self.recipe.data.native_share
        return bool(share) and self.training and chance(self.recipe.seed, self.batches_seen) < share

    def heard(self, batch: Batch) -> Batch:
        """At native length as many clips as then fit, so that what goes with the others is never encoded."""
        if not self._natively:
            return batch
        room = int(self.recipe.data.seconds_per_batch // (self.backbone.native_seconds or math.inf))
        return batch.first(max(1, room))

    def loss(self, batch: Batch) -> Loss:
        if not self._natively:
            return self._learned(self.encode(batch), batch)
        features = self.prepare(batch, pad_to=self._native())
        return self._learned(self.backbone.encode(features), batch)

    def _learned(self, encoded: Encoded, batch: Batch) -> Loss:
        loss = self._of_text(encoded, batch)
        native = self._native()
        if self.training and self.config.distil and FILLED * native <= batch.audio.shape[1] <= native:
            strayed = self._strayed(encoded, batch)
            return replace(loss, total=loss.total + self.config.distil * strayed * loss.targets)
        return loss

    def _of_text(self, encoded: Encoded, batch: Batch) -> Loss:
        if self.parallel is None or not self.training:
            encoded, rows = _there(encoded, batch)
            return self.decoder.loss(
                encoded, [batch.texts[row] for row in rows], [batch.languages[row] for row in rows]
            )
        assert isinstance(self.decoder, TeacherForcing)
        tokens = self.decoder.tokens(batch.texts, encoded.states.device, batch.languages)
        return self.parallel.loss(encoded, batch, *tokens)

    def _native(self) -> int:
        """Samples of the native length; 0 of an encoder that has none."""
        return round((self.backbone.native_seconds or 0.0) * self.backbone.sample_rate)

    def _strayed(self, encoded: Encoded, batch: Batch) -> Tensor:
        """How far the states are from those that the frozen encoder makes of the clips as they were recorded.

        |heard - frozen|^2 / |frozen|^2 over the frames that hold sound.
        """
        assert batch.targets is not None
        with torch.no_grad(), self.model.using():
            before = self.prepare(replace(batch, audio=batch.targets), pad_to=self._native())
            frozen = self.backbone.encode(before).states[:, : encoded.states.shape[1]].float()
        heard = encoded.states[:, -frozen.shape[1] :].float()  # adapters that add frames put them first
        sound = encoded.mask[:, -frozen.shape[1] :, None]
        wrong, wanted = ((x * sound).square().sum() for x in (heard - frozen, frozen))
        return wrong / wanted.clamp(min=1e-6)

    def examine(self, batch: Batch) -> Examined:
        encoded, rows = _there(self.encode(batch), batch)
        texts, languages = [batch.texts[row] for row in rows], [batch.languages[row] for row in rows]
        loss = self.decoder.loss(encoded, texts, languages)
        heard = self.decoder.decode(encoded, languages)
        return Examined(float(loss.total), loss.targets, texts, heard)

    def validate(self, batches: list[Examined]) -> Scores:
        own_decoder = self.config.ctc is None  # which, unless told otherwise, writes English
        write, language = normaliser(), self.config.language or ("en" if own_decoder else "")
        said = [write(text, language) for batch in batches for text in batch.said]
        heard = [write(text, language) for batch in batches for text in batch.heard]
        if unspaced(said):
            name, counts = "cer", [count_characters(*pair) for pair in zip(said, heard, strict=True)]
        else:
            name, counts = "wer", [count(pairs) for pairs in align_words(said, heard)]
        rate = corpus(counts).rate
        loss = sum(b.loss for b in batches) / max(1, sum(b.targets for b in batches))
        return Scores(name, 0.0 if rate is None else rate, loss)

    @classmethod
    def sites(cls, recipe: Recipe, backbone: Backbone) -> list[Site]:
        assert isinstance(recipe.task, AsrConfig)
        decoder = recipe.task.decoder
        of_whisper = (
            decoder.kind == "whisper" if isinstance(decoder, DiffusionConfig) else decoder == "whisper"
        )
        return list(backbone.sites()) if of_whisper else encoder_sites(backbone)


def _there(encoded: Encoded, batch: Batch) -> tuple[Encoded, Sequence[int]]:
    """The states of all rows but those of microphones that recorded nothing, and which rows they are."""
    rows: Sequence[int] = range(len(batch.lengths))
    there = batch.lengths.nonzero()[:, 0]
    if batch.views == 1 or len(there) in (0, len(rows)):
        return encoded, rows
    return Encoded(encoded.states[there], encoded.mask[there]), there.tolist()
