"""The Asterisk core prompts: studio recordings of a telephone system's sentences, 16 kHz, with transcripts.

The recordings come from Debian packages (`asterisk-core-sounds-LANG-g722`, its transcripts in
`asterisk-core-sounds-LANG`) or from the project's tarball. English: 569 transcript lines; left out are one
without a recording, ten of silence, six of tones and beeps (two of them marked `<beep ascending>`) and one of
monkeys: 551 spoken prompts, 24.3 minutes. Licence: CC BY-SA 3.0, see the package's `copyright`.

Transcripts are cleaned of what nobody says: a bracketed remark that ends a line ("IAX (note: does not
say "2")"), `...` where a sentence goes on in another prompt, doubled spaces. Brackets inside a sentence are
opened, their words kept. English writes `*` and `#` for the keys; the speaker says "star" and "pound".
"""

import gzip
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...audio import io
from ...audio.manifest import Row
from ...errors import ConfigError
from ...registry import CORPORA
from . import debian
from .base import Prepared, Progress, reuse, silent, split_of, write_parts

SAMPLE_RATE = 16_000
INSTALLED = Path("/usr/share")
VOICES = {"en": "en_US_f_Allison", "es": "es_MX_f_Allison", "fr": "fr_CA_f_June"}
_BEST_FIRST = (".g722", ".sln16", ".wav", ".gsm")  # the first two hold 16 kHz, the others 8
_CORPUS = "asterisk-prompts/1"  # part of the split's hash: changing it moves every prompt


@dataclass(frozen=True)
class Prompt:
    """One recording of the source, still encoded."""

    id: str
    text: str
    speaker: str
    suffix: str
    encoded: bytes


@CORPORA.register("asterisk-prompts")
def prepare(
    out: str | Path, *, lang: str = "en", sources: Sequence[str | Path] = (), progress: Progress = silent
) -> Prepared:
    """Write `OUT/audio/**.flac` and `OUT/{train,valid,test}.jsonl`; a complete earlier result is reused.

    Without `sources` the installed packages are used; where there are none `apt-get download` fetches them
    into a temporary folder, and nothing is installed. Sources may be .deb files, tarballs and folders.
    """
    out = Path(out)
    stamp = {"corpus": _CORPUS, "lang": lang, "sources": [str(source) for source in sources]}
    if earlier := reuse(out, stamp):
        return earlier
    prompts = read_prompts(lang, sources)
    parts: dict[str, list[Row]] = {"train": [], "valid": [], "test": []}
    with tempfile.TemporaryDirectory() as folder:
        for done, prompt in enumerate(prompts, 1):
            audio = out / "audio" / f"{prompt.id}.flac"
            samples = _decode(prompt, Path(folder))
            io.save(audio, samples, SAMPLE_RATE)
            row = Row(
                prompt.id,
                audio,
                duration=len(samples) / SAMPLE_RATE,
                text=prompt.text,
                speaker=prompt.speaker,
                lang=lang,
            )
            parts[split_of(prompt.text, _CORPUS)].append(row)
            progress(done, len(prompts))
    return write_parts(out, parts, stamp)


def read_prompts(lang: str = "en", sources: Sequence[str | Path] = ()) -> list[Prompt]:
    """The spoken prompts of a language, by id, with clean texts."""
    with tempfile.TemporaryDirectory() as downloads:
        sources = [Path(source) for source in sources] or _installed(lang) or _download(lang, Path(downloads))
        files = {str(path): content for source in sources for path, content in _members(source, lang)}
    texts: dict[str, str] = {}
    for path, content in files.items():
        if PurePosixPath(path).name in (f"core-sounds-{lang}.txt", f"core-sounds-{lang}.txt.gz"):
            texts |= read_transcripts(gzip.decompress(content) if path.endswith(".gz") else content, lang)
    listed = ", ".join(str(source) for source in sources)
    if not texts:
        raise ConfigError(
            f"{listed}: no core-sounds-{lang}.txt among them; add the package asterisk-core-sounds-{lang}"
        )
    prompts: dict[str, Prompt] = {}
    for suffix in _BEST_FIRST:
        for path, content in files.items():
            pure = PurePosixPath(path)
            name = _prompt_id(pure, texts) if pure.suffix == suffix else None
            if name and name not in prompts:
                prompts[name] = Prompt(name, texts[name], _voice(pure, lang), suffix, content)
    if not prompts:
        raise ConfigError(f"{listed}: no recording of a prompt; add asterisk-core-sounds-{lang}-g722")
    return [prompts[name] for name in sorted(prompts)]


def read_transcripts(content: bytes, lang: str = "en") -> dict[str, str]:
    """Prompt id -> what is said, for every line on which something is said."""
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        lines = content.decode("latin-1").splitlines()
    pairs = (line.partition(":") for line in lines if not line.startswith(";"))
    texts = {name.strip(): clean(text, lang) for name, _, text in pairs}
    return {name: text for name, text in texts.items() if name and text}


def clean(text: str, lang: str = "en") -> str:
    """A transcript reduced to the words spoken; empty when there are none.

    >>> clean("...at the tone (a tone plays)"), clean("[ascending tones]"), clean("press  # now")
    ('at the tone', '', 'press pound now')
    """
    text = re.sub(r"<[^>]*>", " ", text)
    text = re.sub(r"\s*(\([^()]*\)|\[[^\[\]]*\])[\s.]*$", "", text)  # a remark at the end
    text = re.sub(r"[()\[\]]", " ", text)
    text = re.sub(r"\.{2,}|…", " ", text)
    if lang == "en":
        text = text.replace("*", " star ").replace("#", " pound ")
    text = re.sub(r"\s+([,.;:?!])", r"\1", " ".join(text.split()))
    return text if re.search(r"\w", text) else ""


def _prompt_id(path: PurePosixPath, texts: dict[str, str]) -> str | None:
    """`.../digits/1.g722` -> `digits/1`: the longest end of the path that has a transcript."""
    parts = path.with_suffix("").parts
    return next((name for depth in (2, 1) if (name := "/".join(parts[-depth:])) in texts), None)


def _voice(path: PurePosixPath, lang: str) -> str:
    return next((part for part in path.parts if part.startswith(f"{lang}_")), VOICES.get(lang, lang))


def _decode(prompt: Prompt, folder: Path) -> io.Samples:
    path = folder / f"prompt{prompt.suffix}"  # the suffix tells the decoder: G.722 has no header
    path.write_bytes(prompt.encoded)
    return io.load(path, SAMPLE_RATE).samples


# ---------------------------------------------------------------- where the files are


def _installed(lang: str) -> list[Path]:
    sounds = sorted(INSTALLED.glob(f"asterisk/sounds/{lang}_*"))
    texts = [*INSTALLED.glob(f"doc/asterisk-core-sounds-{lang}*/core-sounds-{lang}.txt*")]
    return [*sounds, *texts] if sounds and texts else []


def _download(lang: str, folder: Path) -> list[Path]:
    packages = [f"asterisk-core-sounds-{lang}", f"asterisk-core-sounds-{lang}-g722"]
    manual = (
        f"pass {' and '.join(packages)} (.deb) or asterisk-core-sounds-{lang}-g722-current.tar.gz as --source"
    )
    return debian.download(packages, folder, "asterisk-prompts", manual)


def _members(source: Path, lang: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Files of one source, read in memory; other languages are left out."""
    for path, content in debian.members(source, _wanted):
        voices = [part for part in path.parts if re.match(r"[a-z]{2}_[A-Z]{2}_", part)]
        if all(voice.startswith(f"{lang}_") for voice in voices):
            yield path, content


def _wanted(path: str) -> bool:
    return path.endswith(_BEST_FIRST) or "core-sounds-" in path.rpartition("/")[2]
