"""The parts of a recipe: which fields each has, and what they mean."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

_FOLDER_NAME = re.compile(r"[\w+-][\w.+-]{0,99}")
FOLDER_NAME_RULE = "give letters, digits and any of _ . + -, at most 100, and no dot first"


def is_folder_name(name: str) -> bool:
    """Whether a name in a file may name a folder of ours: it leads neither up, down, nor out of sight."""
    return _FOLDER_NAME.fullmatch(name) is not None


Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """A frozen piece of a recipe; a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BackboneConfig(Part):
    """The frozen model."""

    name: str
    """The family: whisper, ast, conformer (Wav2Vec2-BERT, Wav2Vec2-Conformer, Parakeet), usm, or
    mel_diffusion for task.name=generate."""
    weights: str
    """A folder, a hub id, or `pkg:PACKAGE/path`."""
    revision: str | None = None
    """Of a hub id: a branch, tag or commit."""
    context: Literal["full", "fit"] | None = None
    """Whisper, AST: encode the native length (30 s, 10.24 s), or only the audio there is."""
    positions: Literal["cut", "extended", "interpolated"] | None = None
    """Whisper, fit: the first rows of its positions, these and more beyond 30 s, or all of them squeezed."""
    longest: Positive | None = None
    """Whisper, fit: seconds that it hears at most at once, where that is more than 30."""
    layer: PositiveInt | None = None
    """Run only the first so many blocks; their states come out raw, before any final norm."""
    train: bool = False
    """Full fine-tuning: the encoder trains too. A baseline; what trains is saved beside the adapter."""

    def options(self) -> dict[str, Any]:
        """What `open_backbone` takes besides name and weights: only what the recipe says."""
        return self.model_dump(exclude={"name", "weights", "train"}, exclude_none=True)


class SpecAugmentConfig(Part):
    """Stripes of a spectrogram that a training clip is heard without (Park et al. 2019)."""

    time_masks: Annotated[int, Field(ge=0)] = 2
    """Stripes of time."""
    time_width: PositiveInt = 48
    """Feature frames of the widest stripe (10 ms each with Whisper and AST)."""
    freq_masks: Annotated[int, Field(ge=0)] = 2
    """Stripes of frequency."""
    freq_width: PositiveInt = 16
    """Mel bins of the widest stripe."""


class CacheConfig(Part):
    """The frozen-prefix cache: blocks below the lowest adapter run once per clip."""

    where: Literal["memory", "disk"]
    """Where what the frozen blocks made is kept."""
    dtype: Literal["float32", "float16"] = "float32"
    """float32 is exact; float16 halves the space."""
    folder: str | None = None
    """For `disk`: by default inside the run's folder. For `memory`: runs of one process that name the same
    folder share what they keep, and nothing is written there."""


class JoinConfig(Part):
    """asr: clips that follow each other in the manifest, joined to windows as long recordings are cut."""

    share: Share = 0.5
    """Of the audio, how much is heard in windows; the rest clip by clip."""
    seconds: tuple[Positive, Positive] = (5.0, 29.0)
    """How long a window may be, at least and at most: drawn for each."""
    pause_seconds: tuple[NotNegative, NotNegative] = (0.1, 0.8)
    """Of silence between two clips: drawn for each pause."""

    @model_validator(mode="after")
    def _ordered(self) -> JoinConfig:
        for name in ("seconds", "pause_seconds"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the low end comes first, got [{low:g}, {high:g}]")
        return self


class EnrolConfig(Part):
    """What adapters that listen to a reference hear of each clip's speaker: other clips of the same."""

    seconds: tuple[Positive, Positive] = (3.0, 10.0)
    """How long, at least and at most, as far as a speaker has so much: drawn for each clip."""


Where = dict[str, tuple[str | int | float, ...]]
"""Column of a manifest to the values that are wanted."""


class DataConfig(Part):
    """What is heard, and how it is batched."""

    train: str
    """A manifest or a folder."""
    valid: str | None = None
    """By default the training manifest, where `valid_where` tells the two apart."""
    train_where: Where = {}
    """Only these rows: `{fold: [1, 2]}`. Columns: label, speaker, lang and whatever else the manifest has."""
    valid_where: Where = {}
    """The same for validation."""
    text: str | None = None
    """asr: the column with what is to be written, such as a translation; by default that of what is said."""
    per_class: PositiveInt | None = None
    """classify: learn from only so many clips of each class, chosen by the seed (few-shot)."""
    spec_augment: SpecAugmentConfig | None = None
    """classify: stripes that training clips are heard without; by default none."""
    shift_seconds: Annotated[float, Field(ge=0)] = 0.0
    """classify, generate: training clips are rotated in time by up to so much, either way."""
    channels: Literal["mix", "views"] = "mix"
    """asr: their mean is heard; or each by itself, by adapters that listen to other microphones. Those of one
    clip are then rows of one batch, and each learns its text. A row of a manifest may list several files."""
    degrade: str | tuple[str | dict[str, Any], ...] = ()
    """Steps applied to training clips on the fly, and names of presets such as `telephone`."""
    degrade_valid: bool = True
    """Whether validation clips are degraded too (always in the same way)."""
    clean: Share = 0.0
    """Share of the training clips left as recorded."""
    variants: PositiveInt | None = None
    """Degrade each clip in only this many ways, in turn: what the prefix cache needs."""
    enrol: EnrolConfig | None = None
    """asr, restore: other clips of each clip's speaker, for adapters that listen to a reference. The manifest
    names the speakers."""
    join: JoinConfig | None = None
    """asr: hear some of the training clips joined to longer windows; by default each alone."""
    seconds_per_batch: Positive = 120.0
    """Audio in a batch, padding included, in each process; a clip counts once, whatever its microphones."""
    native_share: Share = 0.0
    """Share of batches padded to the native length, so that a `fit` model keeps hearing long audio."""
    min_seconds: Positive = 0.1
    """Shorter clips are left out."""
    max_seconds: Positive = 30.0
    """Longer clips are left out."""
    max_valid: PositiveInt | None = None
    """Validate on the first so many clips."""
    max_bad_fraction: Share = 0.01
    """A run whose clips are unusable to more than this share is refused."""
    workers: Annotated[int, Field(ge=0)] = 1
    """Processes that read and degrade clips; 0 does it in the training process."""
    preload_hours: Annotated[float, Field(ge=0)] = 2.0
    """A corpus up to this size is decoded once and kept in memory."""
    cache: CacheConfig | None = None
    """Keep what the frozen blocks below the lowest adapter make of each clip; by default not."""

    @property
    def columns(self) -> dict[str, str]:
        """Which column of a manifest holds a field, where its name does not tell."""
        return {"text": self.text} if self.text else {}


class OptimConfig(Part):
    """AdamW and the shape of its learning rate."""

    lr: Positive = 1e-3
    """Of adapters, and of all that has no rate of its own."""
    head_lr: Positive | None = None
    """Of a task's own layers; by default `lr`."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Steps."""
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """How the rate falls to 0 over the run, by steps or by time, whichever is further."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled, as AdamW has it."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Of AdamW's two moments."""
    clip_norm: Positive | None = 1.0
    """Gradients longer than this are scaled down to it; null leaves them."""


class TrainerConfig(Part):
    """How long, on what, and how often to look up."""

    max_steps: PositiveInt | None = None
    """The run ends after so many steps, or after `max_minutes`, whichever is first."""
    max_minutes: Positive | None = None
    """Minutes of training."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "auto"
    """`bf16-true` is `bf16-mixed` with the frozen weights in bf16 too, which take half the memory."""
    accumulate: PositiveInt = 1
    """Batches per step; targets weigh the same in whichever of them they are."""
    recompute: bool = False
    """Gradient checkpointing: the same losses in less memory and more time."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """auto takes a GPU where there is one."""
    devices: PositiveInt | Literal["auto"] = "auto"
    """How many of them."""
    nodes: PositiveInt = 1
    """How many machines."""
    strategy: Literal["auto", "ddp", "ddp_spawn"] = "auto"
    """How several devices work together."""
    threads: PositiveInt | None = None
    """CPU threads of torch; by default torch's own choice."""
    valid_every_steps: PositiveInt | None = None
    """By default only at the end."""
    save_every_steps: PositiveInt | None = None
    """By default only by time."""
    save_every_seconds: Positive | None = 60.0
    """How often the state is saved that an interrupted run goes on from."""
    log_every_steps: PositiveInt = 10
    """How often a row of metrics.jsonl is written."""
    max_trainable_pct: Annotated[float, Field(gt=0, le=100)] = 20.0
    """A run that would train a larger share of all parameters is refused."""
    tensorboard: bool = False
    """Also write TensorBoard's log."""

    @model_validator(mode="after")
    def _ends(self) -> TrainerConfig:
        if self.max_steps is None and self.max_minutes is None:
            raise ValueError("give max_steps, max_minutes or both: without one the run never ends")
        return self
