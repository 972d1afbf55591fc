"""What a transcription is made of, and what it can be asked for: plain frozen data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..decoders.diffusion.by_device import Count, count_of
from .routing.routed import Routing

EngineName = Literal["auto", "torch", "ct2"]
Dtype = Literal["auto", "float32", "bfloat16", "int8"]
DecoderName = Literal["auto", "autoregressive", "diffusion", "verified"]


@dataclass(frozen=True)
class Word:
    """A word as it is printed, and where it was said; seconds from the start of the recording."""

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class Choice:
    """Which adapters a recording, or a stretch of it, is heard with, and why."""

    adapters: Mapping[str, float]
    """By the names a user knows, with what each is multiplied by; none: the frozen model alone."""
    why: str
    language: str | None = None
    runs: tuple[str, ...] = ()
    """What runs for them inside the model."""
    encodes: bool = True
    """Whether any of them changes what the encoder gives."""

    def __str__(self) -> str:
        parts = (name if factor == 1 else f"{factor:g} x {name}" for name, factor in self.adapters.items())
        return f"{' + '.join(parts) or 'no adapter'}: {self.why}"


@dataclass(frozen=True)
class Segment:
    """A stretch of the recording and its text."""

    id: int
    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    avg_logprob: float = 0.0
    no_speech_prob: float = 0.0
    compression_ratio: float = 0.0
    flags: tuple[str, ...] = ()
    """Why the text is doubtful ("loop", "unsure", "silence", "cut off", "unheard"); it is never left
    out for that. "loop" is what ran in circles when it was first read, and "unheard" what left speech without
    words, even if another reading was taken."""


@dataclass(frozen=True)
class Result:
    """One input, transcribed or with the reason why not."""

    path: str
    """As it was given; "" for samples."""
    text: str = ""
    language: str = "en"
    segments: tuple[Segment, ...] = ()
    duration: float = 0.0
    """Seconds of audio."""
    seconds: float = 0.0
    """Seconds of work; its share of the batches it was in."""
    truncated: bool = False
    """The file ends well before the length that it declares."""
    notes: tuple[str, ...] = ()
    """What a listener should know: other tracks, a header that lies, channels that cancel each other."""
    error: str | None = None
    stage: str = ""
    """Where it failed: "decode" or "transcribe"."""
    chosen: tuple[tuple[float, Choice], ...] = ()
    """Where adapters were chosen by what is heard: from which second on, which and why."""
    views: tuple[tuple[float, int], ...] = ()
    """Of several microphones: from which second on, which of them the text is of, counted from 1."""
    routing: Routing | None = None
    """Whom a fusion listened to, where one is at work."""
    about: dict[str, Any] = field(default_factory=dict, repr=False)
    """Weights, adapter, options: what made it."""


@dataclass(frozen=True)
class TranscribeOptions:
    """What decides the text; its hash tells whether an output is up to date."""

    language: str | None = None
    """None: English, or detected for each file where the model knows more."""
    beam_size: int = 1
    vad: Literal["silero", "energy", "none"] = "silero"
    word_times: bool = False
    channels: Literal["mix", "first"] = "mix"
    """mix: their mean; of an adapter that listens to other microphones, each of them."""
    track: int | None = None
    """Of several audio tracks, counted from 1; None: the one that is marked as default."""
    split_seconds: float = 8.0
    """Windows longer than this become several segments, cut at the ends of sentences too. A pause of more
    than 0.8 s always ends a segment, of Whisper's own decoder: a CTC layer has no times of words."""
    dtype: Dtype = "auto"
    """auto: float32 in torch, int8 in CTranslate2."""
    task: Literal["transcribe", "translate"] = "transcribe"
    """"translate" writes English, whatever is said; Whisper's own decoder only, of several languages."""
    prompt: str | None = None
    """Text that Whisper is told came before each window: it goes on in its spelling and manner."""
    hotwords: str | None = None
    """Words to expect, such as names; told before the prompt."""
    adapter_task: str | None = None
    """Which of its tasks an adapter is told that differs by task; None: what a manifest's column says."""
    engine: EngineName = "auto"
    """auto: CTranslate2 where it is installed and can run the model on the device, else torch."""

    decoder: DecoderName = "auto"
    """auto: by diffusion where the adapter brought such a decoder. autoregressive: the stock one. verified:
    the stock one's greedy text, which the other drafts, or a CTC layer."""
    steps: Count = "auto"
    """Passes of a decoder by diffusion, at most; `decoders.diffusion.by_device` says what auto is."""
    candidates: Count = "auto"
    """Texts that a decoder by diffusion chooses from."""
    selection: Literal["confidence", "mbr", "sum", "rover", "rover-sum"] = "rover-sum"
    """How it chooses."""

    def __post_init__(self) -> None:
        # None is what auto was before it had a name, and is known by the same hash.
        for name in ("steps", "candidates"):
            object.__setattr__(self, name, count_of(getattr(self, name), name))

    def asked(self) -> dict[str, Any]:
        """What decides the text. A field that came later counts where it is given: texts made before stay."""
        later = {
            "task": "transcribe",
            "prompt": None,
            "hotwords": None,
            "engine": "auto",
            "adapter_task": None,
        }
        later |= {"decoder": "auto", "steps": "auto", "candidates": "auto", "selection": "rover-sum"}
        fields = {name: value for name, value in asdict(self).items() if later.get(name, ...) != value}
        # By "float32" texts of before mean what is now auto; who asks for it may not get what auto has made.
        dtype = {"auto": {"dtype": "float32"}, "float32": {"dtype": "float32", "dtype_asked": True}}
        return fields | dtype.get(self.dtype, {"dtype": self.dtype})
