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
    """The family: whisper, ast, conformer (Wav2Vec2-BERT, Wav2Vec2-Conformer, Parakeet) or usm."""
    weights: str
    """A folder, a hub id, or `pkg:PACKAGE/path`."""
    revision: str | None = None
    """Of a hub id: a branch, tag or commit."""
    context: Literal["full", "fit"] | None = None
    """Whisper, AST: encode the native length (30 s, 10.24 s), or only the audio there is."""
    layer: PositiveInt | None = None
    """Run only the first so many blocks; their states come out raw, before any final norm."""
    train: bool = False
    """Full fine-tuning: the encoder trains too. A baseline; what trains is saved beside the adapter."""

    def options(self) -> dict[str, Any]:
        """What `open_backbone` takes besides name and weights: only what the recipe says."""
        return self.model_dump(exclude={"name", "weights", "train"}, exclude_none=True)


class DiffusionConfig(Part):
    """A decoder that fills all tokens of a text in a few parallel steps."""

    form: Literal["diffusion"]
    """Always diffusion."""
    kind: Literal["whisper", "smdm", "scratch"] = "whisper"
    """`whisper`: the frozen model's own decoder, made to see both sides. `smdm`: a text model by diffusion
    behind a bridge. `scratch`: the same architecture, of any size and untrained, for any encoder."""
    train: Literal["decoder", "adapters", "bridge"] = "decoder"
    """`decoder`: a copy of Whisper's blocks, or all of the others. Whisper, `adapters`: the recipe's at its
    sites, and the mask embedding. smdm, `bridge`: cross attention alone."""
    width: PositiveInt = 256
    """smdm, scratch: channels."""
    layers: PositiveInt = 4
    """smdm, scratch: blocks."""
    heads: PositiveInt = 4
    """smdm, scratch: of each attention."""
    inner: PositiveInt | None = None
    """smdm, scratch: channels inside the feed-forward sublayer; by default four times `width`."""
    room: PositiveInt = 256
    """smdm, scratch: the most tokens of a text, its end included."""
    tokenizer: str = "own"
    """smdm, scratch: `own` is Whisper's, `characters` those of the training text, else a folder with a
    tokenizer.json."""
    weights: str | None = None
    """smdm, scratch: where to begin: a checkpoint of SMDM or Whisfusion, or the folder of a saved adapter."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """smdm, scratch: the learning rate of a block is so many times that of the one above it; of the bridge it
    is whole."""
    high: Share = 0.7
    """The least share of tokens that is masked in the texts of `high_share`."""
    high_share: Share = 0.5
    """How many texts are masked from `high` to all; the others are from none to all."""
    own: Share = 0.0
    """Share of the batches in which it sees its own half-filled texts, to correct them."""
    ends: NotNegative = 1.0
    """Weight of the ends of text behind the first one, which fill the bucket."""
    distil: NotNegative = 0.0
    """Whisper: weight of the distributions of its autoregressive decoder, where that agrees with the text."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Validated and saved is a running mean of the decoder's numbers, which keeps this much at each step."""
    frame_drop: Share = 0.0
    """Share of the states that the decoder is not shown in training."""

    @model_validator(mode="after")
    def _of_its_kind(self) -> DiffusionConfig:
        known = {"whisper": ("decoder", "adapters"), "smdm": ("decoder", "bridge"), "scratch": ("decoder",)}
        if self.train not in known[self.kind]:
            raise ValueError(
                f"train: kind={self.kind} trains {' or '.join(known[self.kind])}, not {self.train}"
            )
        if self.width % (2 * self.heads):
            raise ValueError(f"width: {self.width} channels are not {self.heads} heads of an even size")
        if self.kind == "whisper":
            if self.weights:
                raise ValueError("weights: kind=whisper begins with the frozen model's own decoder")
        elif self.distil:
            raise ValueError(
                "distil: only Whisper's own decoder has the tokens of kind=whisper; leave it out"
            )
        return self


class AsrConfig(Part):
    """Speech to text."""

    name: Literal["asr"]
    """Always asr."""
    decoder: Literal["whisper", "ctc"] | DiffusionConfig
    """Whisper's own decoder by teacher forcing, a CTC layer on the encoder of any backbone, or a decoder by
    diffusion: `{form: diffusion, ...}`."""
    label_smoothing: Share = 0.0
    """Share of a target's weight that is spread over all tokens."""
    language: str | None = None
    """Whisper: the language token of a multilingual model."""
    vocabulary: str | None = None
    """CTC: the characters; by default those of the training text."""
    distil: NotNegative = 0.0
    """Weight of a second loss: the states of what is heard are to be near those that the frozen encoder makes
    of the clip before it was degraded, heard at native length. Keeps what the base knew."""


class ClassifyConfig(Part):
    """What kind of sound a clip is: a head on pooled states."""

    name: Literal["classify"]
    """Always classify."""
    head: Literal["linear", "mlp"] = "linear"
    """One layer, or one hidden layer before it."""
    pooling: Literal["mean", "attention", "native"] = "mean"
    """Over the frames that hold sound; `native` is the backbone's own summary (AST: two tokens' mean)."""
    layer: Literal["last", "mix"] | PositiveInt = "last"
    """Whose states are pooled: the finished ones, those of one block (from 1), or a learned mix of all."""
    standardise: bool = False
    """Pooled states less their mean over the training set, by their deviation: fixed before step 0."""
    multi_label: bool = False
    """A clip may have several labels, or none: `dog;rain` in the label column."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: every class weighs the same, however many clips it has."""
    label_smoothing: Share = 0.0
    """Share of a target's weight that is spread over all classes."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of the Beta distribution that two clips of a batch are mixed by; 0 mixes none."""
    labels: tuple[str, ...] | None = None
    """The classes in their order; by default the sorted labels of the training clips."""
    score: Literal["accuracy", "macro_f1"] = "accuracy"
    """What the best checkpoint is best at; with `multi_label` always macro-F1."""


class FeatureLosses(Part):
    """How far cleaned states are from the clean ones; the weights of Miipher-2 are 1 each."""

    l1: NotNegative = 1.0
    """The absolute difference."""
    l2: NotNegative = 1.0
    """Squared."""
    convergence: NotNegative = 1.0
    """|made - clean| / |clean| of each clip."""


class WaveformLosses(Part):
    """How far a waveform is from the clean one: the weights of its losses."""

    convergence: NotNegative = 2.5
    """|made - clean| / |clean| of spectra at several resolutions."""
    log_magnitude: NotNegative = 2.5
    """The absolute difference of their logarithms."""
    mel: NotNegative = 0.0
    """The absolute difference of log-mel spectra."""
    compressed: NotNegative = 0.0
    """The compressed complex spectrum, which minds phase."""
    sdr: NotNegative = 0.0
    """Noise over speech, in tens of dB; nothing is gained below -30 dB."""
    adversarial: NotNegative = 1.0
    """With `discriminators`: how far they are from taking it for recorded."""
    matching: NotNegative = 10.0
    """With `discriminators`: how far their layers are from those of the clean recording."""


class DiscriminatorConfig(Part):
    """Judges that learn to tell what is made from what was recorded; they are not saved."""

    scales: PositiveInt = 3
    """How many judges hear the waveform, each at half the rate of the one before."""
    periods: tuple[PositiveInt, ...] = (2, 3, 5, 7, 11, 13, 17, 19)
    """A judge each that sees the waveform folded at so many samples."""
    scale_channels: PositiveInt = 16
    """Width of the first layer of judges by scale."""
    period_channels: PositiveInt = 64
    """Width of the first layer of judges by period."""
    lr_times: Positive = 2.0
    """Their learning rate, by that of the recipe."""
    start: Annotated[int, Field(ge=0)] = 0
    """Steps in which they only watch."""


class RestoreConfig(Part):
    """Degraded speech to clean speech, in the three stages of Miipher-2."""

    name: Literal["restore"]
    """Always restore."""
    stage: Literal["features", "decoder", "finetune"]
    """Adapters that clean states; a decoder of clean states; that decoder on cleaned states."""
    layer: PositiveInt | None = None
    """The block whose states are cleaned and decoded; the same as `backbone.layer`."""
    decoder: dict[str, Any] | None = None
    """`{name: mask, **fields}`, or `{from: FOLDER}` to go on with the decoder of a saved adapter."""
    features: FeatureLosses = FeatureLosses()
    """Weights of the losses on states."""
    feature_weight: NotNegative = 1.0
    """Of the states' loss beside the waveform's, where `finetune` trains adapters too."""
    waveform: WaveformLosses = WaveformLosses()
    """Weights of the losses on waveforms."""
    crop_seconds: Positive | None = None
    """Decode only so much of each training clip; the encoder hears it whole."""
    discriminators: DiscriminatorConfig | None = None
    """Adversarial training with these judges; by default none."""
    peak_db: tuple[float, float] | None = (-30.0, -10.0)
    """Clean clips get a peak drawn from here before they are degraded: noise then never clips, and what is
    wanted is as loud as the speech in what is heard. Null keeps them as recorded."""


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
    per_class: PositiveInt | None = None
    """classify: learn from only so many clips of each class, chosen by the seed (few-shot)."""
    spec_augment: SpecAugmentConfig | None = None
    """classify: stripes that training clips are heard without; by default none."""
    shift_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Training clips are rotated in time by up to so much, either way."""
    degrade: str | tuple[str | dict[str, Any], ...] = ()
    """Steps applied to training clips on the fly, and names of presets such as `telephone`."""
    degrade_valid: bool = True
    """Whether validation clips are degraded too (always in the same way)."""
    clean: Share = 0.0
    """Share of the training clips left as recorded."""
    variants: PositiveInt | None = None
    """Degrade each clip in only this many ways, in turn: what the prefix cache needs."""
    join: JoinConfig | None = None
    """asr: hear some of the training clips joined to longer windows; by default each alone."""
    seconds_per_batch: Positive = 120.0
    """Audio in a batch, padding included, in each process."""
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
