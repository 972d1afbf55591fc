"""A recipe's masked-diffusion decoder: what it learns from a batch, and which numbers of it are kept."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...backbones.base import Encoded
from ...backbones.whisper import Whisper
from ...core.lifecycle import Predicted
from ...core.saved.save import read
from ...decoders.diffusion.kinds import forms
from ...decoders.diffusion.kinds.bridged import Bridged
from ...decoders.diffusion.kinds.checkpoints import load_checkpoint
from ...decoders.diffusion.kinds.texts import characters_of
from ...decoders.diffusion.kinds.whisper_masked import WhisperMasked
from ...decoders.diffusion.lengths import by_duration
from ...decoders.diffusion.masked import MaskedDecoder, Memory
from ...decoders.diffusion.sample import Sampling, fill
from ...decoders.diffusion.training.objective import Objective
from ...errors import ConfigError
from ...recipe.tasks import AsrConfig, DiffusionConfig
from .base import Task
from .scores import Loss

_VALIDATED = 17
"""Seed of the masks that validation is measured with: the same each time."""


class Filling:
    """Fills masked tokens; a frozen Whisper may teach it what it would write."""

    def __init__(self, task: Task, config: DiffusionConfig, texts: Iterable[str]):
        """`texts` are those that it is trained on, for a decoder that writes with their characters."""
        assert isinstance(task.recipe.task, AsrConfig)
        self.task, self.config, self.language = task, config, task.recipe.task.language
        self.head, self._config = decoder_of(task, config, texts)
        self.average = self._copy() if config.ema else None
        self._mixed = self._copy() if config.learned < 1 else None
        self.objective = Objective(
            config.high,
            config.high_share,
            config.left,
            config.own,
            config.ends,
            task.recipe.task.label_smoothing,
            config.distil,
        )

    @property
    def kept(self) -> MaskedDecoder:
        """What is validated and saved."""
        trained = self.head if self.average is None else self.average
        if self._mixed is None:
            return trained
        assert isinstance(self._mixed, WhisperMasked)
        self._mixed.to(self.task.device).load_state_dict(trained.state_dict())
        self._mixed.toward_stock(self.config.learned)
        return self._mixed

    def _copy(self) -> MaskedDecoder:
        one_base = {id(self.task.backbone): self.task.backbone}  # which it reads beside its own numbers
        return copy.deepcopy(self.head, one_base).requires_grad_(False)

    def head_config(self) -> dict[str, Any]:
        """What rebuilds it beside its backbone."""
        return self._config

    def step(self, number: int) -> None:
        """Brings the running mean up to date after an optimiser's step; young means forget faster."""
        if self.average is None:
            return
        keeps = min(self.config.ema, (1 + number) / (10 + number))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.head.parameters(), strict=True):
                mean.lerp_(now, 1 - keeps)

    def loss(self, encoded: Encoded, texts: list[str], languages: Sequence[str]) -> Loss:
        training = self.task.training
        decoder = self.head if training else self.kept
        generator = self.task.generator() if training else torch.Generator().manual_seed(_VALIDATED)
        states = encoded.states
        if training and self.config.frame_drop:
            kept = torch.rand(states.shape[:2], generator=generator) >= self.config.frame_drop
            states = states * kept.to(states.device)[..., None]
        memory = self._memory(decoder, encoded, languages, states)
        tokens = decoder.rows(texts, decoder.room - 1).to(states.device)
        teaches = training and self.config.distil > 0
        teacher = partial(self._taught, encoded.states, languages) if teaches else None
        total, weight, logits = self.objective.loss(decoder, tokens, memory, generator, teacher)
        targets = len(logits)
        return Loss(total * (targets / max(weight, 1e-6)), targets, Predicted(logits, "class"))

    def _memory(
        self,
        decoder: MaskedDecoder,
        encoded: Encoded,
        languages: Sequence[str],
        states: Tensor | None = None,
    ) -> Memory:
        """Whisper looks at the padding of every clip, as its own decoder does; others at what is heard."""
        states = encoded.states if states is None else states
        if self.config.kind == "whisper":
            return decoder.memory(states, None, self._prompt(languages, states.device))
        return decoder.memory(states, encoded.mask)

    def _prompt(self, languages: Sequence[str], device: torch.device) -> Tensor:
        """Of each clip's language: the recipe's, else the manifest's where this Whisper writes it."""
        backbone = self.task.backbone
        assert isinstance(backbone, Whisper)
        generation = backbone.generation
        known = generation.languages if generation.is_multilingual else {}
        chosen = [self.language or (one if one in known else None) for one in languages]
        return torch.tensor([generation.prompt(one) for one in chosen], device=device)

    @torch.no_grad()
    def _taught(self, states: Tensor, languages: Sequence[str], tokens: Tensor, wanted: Tensor) -> Tensor:
        """The logits of the frozen autoregressive decoder, which reads the text up to each wanted place."""
        backbone = self.task.backbone
        assert isinstance(backbone, Whisper)
        prompt = self._prompt(languages, tokens.device)
        with self.task.model.using():
            hidden = backbone.decoder(
                input_ids=torch.cat([prompt, tokens[:, :-1]], 1),
                encoder_hidden_states=states,
                use_cache=False,
            ).last_hidden_state
        return backbone.module.proj_out(hidden[:, prompt.shape[1] - 1 :][wanted])

    @torch.no_grad()
    def decode(self, encoded: Encoded, languages: Sequence[str]) -> list[str]:
        decoder = self.kept
        memory = self._memory(decoder, encoded, languages)
        seconds = (encoded.mask.sum(1) / self.task.backbone.frame_rate).tolist()
        filled = fill(decoder, memory, by_duration(seconds, decoder.room, decoder.per_second), Sampling())
        return [decoder.decode(row) for row in filled.tokens[:, 0].tolist()]


def decoder_of(
    task: Task, config: DiffusionConfig, texts: Iterable[str]
) -> tuple[MaskedDecoder, dict[str, Any]]:
    """The decoder that a recipe asks for, and what rebuilds it beside its backbone.

    Raises ConfigError where backbone, adapters or weights do not allow it.
    """
    if config.kind == "whisper":
        fields: dict[str, Any] = {"kind": "whisper", "own": config.train == "decoder"}
        fields |= {"corrects": True} if config.own else {}
        _check_sites(task, config)
        decoder = forms.build(task.backbone, **fields)
        _begin(decoder, config.weights)
        return decoder, fields
    fields = config.model_dump(include={"kind", "tokenizer", "width", "layers", "heads", "inner", "room"})
    fields |= {"corrects": True} if config.own else {}
    if config.tokenizer == "characters":
        fields["characters"] = characters_of(texts)
    decoder = forms.build(task.backbone, **fields)
    assert isinstance(decoder, Bridged)
    _begin(decoder, config.weights)
    if config.train == "bridge":
        decoder.requires_grad_(False)
        for parameter in decoder.bridge:
            parameter.requires_grad_(True)
    return decoder, fields


def _begin(decoder: MaskedDecoder, weights: str | None) -> None:
    """Loads a saved adapter's decoder, or a checkpoint of SMDM or Whisfusion into one of their kind."""
    if not weights:
        return
    if isinstance(decoder, Bridged) and not (Path(weights) / "adapter.json").is_file():
        load_checkpoint(decoder, weights)
    else:
        read(weights).load_head("diffusion", decoder)


def _check_sites(task: Task, config: DiffusionConfig) -> None:
    """Raises ConfigError where adapters would not be heard, or would be when the stock decoder writes."""
    here = {
        name: {site.name.startswith("decoder.") for site in task.model.sites[name]}
        for name in task.recipe.active
    }
    if mixed := [name for name, sides in here.items() if len(sides) == 2]:
        raise ConfigError(
            f"adapters.{mixed[0]}: sits in encoder and decoder, and the decoder's part would be at work when "
            "the stock decoder writes; give each side an adapter of its own"
        )
    inside = [name for name, sides in here.items() if True in sides]
    if inside and config.train == "decoder":
        raise ConfigError(
            f"adapters.{inside[0]}: sits at the frozen decoder, which task.decoder.train=decoder does not "
            "run; use train=adapters"
        )
    if not inside and config.train == "adapters":
        raise ConfigError(
            "task.decoder.train=adapters: no adapter sits in the decoder, so that it would not learn to see "
            'both sides. Give one sites: ["decoder.layers.*.attn.[qkvo]", ...]'
        )


def groups(decoder: MaskedDecoder, decay: float) -> list[tuple[list[nn.Parameter], float]]:
    """Parameters with what their learning rate is multiplied by: less, the lower their block."""
    trained = [p for p in decoder.parameters() if p.requires_grad]
    if decay == 1.0 or not isinstance(decoder, Bridged):
        return [(trained, 1.0)]
    depth, bridge = len(decoder.blocks), {id(p) for p in decoder.bridge}
    by_times: dict[float, list[nn.Parameter]] = {}
    for name, parameter in decoder.named_parameters():
        if not parameter.requires_grad:
            continue
        level = depth
        if name.startswith("blocks."):
            level = int(name.split(".")[1])
        elif name.startswith("embed."):
            level = -1
        times = 1.0 if id(parameter) in bridge else decay ** (depth - level)
        by_times.setdefault(times, []).append(parameter)
    return [(part, times) for times, part in by_times.items()]
