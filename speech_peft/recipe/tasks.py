"""What a recipe may ask for: the tasks, their decoders and their losses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from .parts import BackboneConfig, NotNegative, Part, Positive, Share


class CtcConfig(Part):
    """A CTC layer behind blocks of its own, for an encoder that nothing changes."""

    form: Literal["ctc"]
    """Always ctc."""
    blocks: NonNegativeInt = 3
    """How many convolutional blocks stand before the layer."""
    cased: bool = True
    """It writes capitals and the marks between words too, as drafts for Whisper's decoder need."""


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
    """Where to begin: the folder of a saved adapter that has such a decoder, or, for smdm and scratch, a
    checkpoint of SMDM or Whisfusion. By default Whisper's own decoder, or random numbers."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """smdm, scratch: the learning rate of a block is so many times that of the one above it; of the bridge it
    is whole."""
    high: Share = 0.7
    """The least share of tokens that is masked in the texts of `high_share`."""
    high_share: Share = 0.5
    """How many texts are masked from `high` to all; the others are from none to all."""
    left: Share = 0.0
    """How many texts are whole up to some place and masked from there on, as when they are written from left
    to right."""
    own: Share = 0.0
    """Share of the batches in which it sees its own half-filled texts, to correct them."""
    ends: NotNegative = 1.0
    """Weight of the ends of text behind the first one, which fill the bucket."""
    distil: NotNegative = 0.0
    """Whisper: weight of the distributions of its autoregressive decoder, where that agrees with the text."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Validated and saved is a running mean of the decoder's numbers, which keeps this much at each step."""
    learned: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Whisper, `train: decoder`: validated and saved are the stock decoder's numbers and so much of what was
    added to them."""
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
        if self.learned < 1 and (self.kind, self.train) != ("whisper", "decoder"):
            raise ValueError("learned: only a copy of Whisper's blocks has where it began; leave it out")
        if self.kind != "whisper" and self.distil:
            raise ValueError(
                "distil: only Whisper's own decoder has the tokens of kind=whisper; leave it out"
            )
        return self


class ParallelConfig(Part):
    """What a clip learns from a recording of the same in the language that the frozen decoder writes."""

    kl: NotNegative = 1.0
    """Of how far its words' distribution is from the one that the decoder has for that recording."""
    features: NotNegative = 0.1
    """Of |student - teacher|^2 / |teacher|^2 of what leaves each block of the decoder, summed over blocks."""


class AsrConfig(Part):
    """Speech to text."""

    name: Literal["asr"]
    """Always asr."""
    decoder: Literal["whisper", "ctc"] | CtcConfig | DiffusionConfig
    """Whisper's own decoder by teacher forcing, a CTC layer on the encoder of any backbone, the same behind
    blocks of its own, `{form: ctc, ...}`, or a decoder by diffusion, `{form: diffusion, ...}`."""
    label_smoothing: Share = 0.0
    """Share of a target's weight that is spread over all tokens."""
    language: str | None = None
    """Whisper: the language token of a multilingual model."""
    vocabulary: str | None = None
    """CTC: the characters; by default those of the training text."""
    distil: NotNegative = 0.0
    """Weight of a second loss: the states of what is heard are to be near those that the frozen encoder makes
    of the clip before it was degraded, heard at native length. Keeps what the base knew."""
    parallel: ParallelConfig | None = None
    """Whisper: clips whose row has a `target_audio`, the same said in the language that is written, learn
    from the frozen decoder's answer to it, and the others from their text. By default all learn from text."""

    @property
    def ctc(self) -> CtcConfig | None:
        """What reads characters; None where tokens are written."""
        if self.decoder == "ctc":
            return CtcConfig(form="ctc", blocks=0, cased=False)
        return self.decoder if isinstance(self.decoder, CtcConfig) else None

    @model_validator(mode="after")
    def _taught(self) -> AsrConfig:
        if self.parallel and self.decoder != "whisper":
            raise ValueError(
                "parallel: the teacher is Whisper's own decoder; use decoder=whisper, or drop it"
            )
        return self


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


class GenerateConfig(Part):
    """Sounds out of noise: a mel diffusion learns classes, or adapters in it learn to be told more."""

    name: Literal["generate"]
    """Always generate."""
    listener: BackboneConfig | None = None
    """A frozen encoder whose summary of a clip adapters attend to (`attention`, `keys: new:tokens`); by
    default they are told nothing of the kind."""
    kin: Share = 0.5
    """Share of the clips for which it hears another training clip of the same class instead: what is learned
    from it is the kind of sound."""
    unlabelled: Share = 0.1
    """Share of the clips that the model itself is not told the class of: what guidance compares with."""
    alone: Share = 0.1
    """Share of the batches in which adapters are told the moments or the summary of a clip alone."""


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
    """`{name: mask, **fields}`, or `{from: FOLDER}` to go on with the decoder of a saved adapter; with
    `adapters: {NAME: {method: ...}}` beside `from`, that decoder is frozen and adapters in it learn."""
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
