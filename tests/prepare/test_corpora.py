"""Corpora, on tiny replicas of their layouts."""

import gzip
import io as stdio
import subprocess
import tarfile

import numpy as np
import pytest

from speech_peft.audio import io, manifest
from speech_peft.errors import ConfigError
from speech_peft.prepare.corpora import asterisk_prompts, common_voice, debian, librispeech
from speech_peft.prepare.corpora.base import normalised, split_of

TEXTS = """; Core Asterisk Sounds in English

activated: Activated.
beep: [this is a simple beep tone]
confbridge-join: <beep ascending>
digits/1: one
vm-one: ONE...
silence/1: (1 second of silence)
spy-iax2: IAX (note: does not say "2")
no-recording: I was never recorded.
"""
RECORDED = ["activated", "beep", "confbridge-join", "digits/1", "vm-one", "silence/1", "spy-iax2"]
SPOKEN = {"activated": "Activated.", "digits/1": "one", "vm-one": "ONE", "spy-iax2": "IAX"}
VOICE = "usr/share/asterisk/sounds/en_US_f_Allison"


def tar(members: dict[str, bytes], mode: str) -> bytes:
    file = stdio.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, stdio.BytesIO(content))
    return file.getvalue()


def deb(data: bytes, name: str) -> bytes:
    def member(name: str, content: bytes) -> bytes:
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        return header + content + b"\n" * (len(content) % 2)

    return (
        b"!<arch>\n" + member("debian-binary", b"2.0\n") + member("control.tar.xz", b"x") + member(name, data)
    )


@pytest.fixture(params=["deb-xz", "deb-gz", "tarball", "folder"])
def source(request, tmp_path):
    """The same few prompts in each form they come in (G.722: any bytes decode)."""
    sound = np.random.default_rng(0).bytes(4000)
    prompts = {f"{name}.g722": sound for name in RECORDED}
    installed = {f"./{VOICE}/{name}": content for name, content in prompts.items()}
    installed["./usr/share/asterisk/sounds/es_MX_f_Allison/activated.g722"] = b"not for us"
    texts = {"./usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz": gzip.compress(TEXTS.encode())}
    if request.param == "tarball":
        path = tmp_path / "asterisk-core-sounds-en-g722-current.tar.gz"
        path.write_bytes(tar({"core-sounds-en.txt": TEXTS.encode(), **prompts}, "w:gz"))
        return [path]
    if request.param == "folder":
        for name, content in (installed | texts).items():
            (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "root" / name).write_bytes(content)
        return [tmp_path / "root"]
    pack = request.param.removeprefix("deb-")
    sounds, words = tmp_path / "sounds.deb", tmp_path / "words.deb"
    sounds.write_bytes(deb(tar(installed, f"w:{pack}"), f"data.tar.{pack}"))
    words.write_bytes(deb(tar(texts, f"w:{pack}"), f"data.tar.{pack}"))
    return [sounds, words]


def test_every_form_of_the_prompts_gives_the_same_spoken_texts(source):
    prompts = asterisk_prompts.read_prompts("en", source)
    assert {prompt.id: prompt.text for prompt in prompts} == SPOKEN
    assert {prompt.speaker for prompt in prompts} == {"en_US_f_Allison"}


def test_prepared_prompts_are_reused_and_share_no_text_between_splits(source, tmp_path):
    out = tmp_path / "out"
    prepared = asterisk_prompts.prepare(out, sources=source)
    rows = {
        part: manifest.read(out / f"{part}.jsonl") for part, made in prepared.parts.items() if made.rows > 0
    }
    assert {row.id for part in rows.values() for row in part} == set(SPOKEN)
    split = {row.id: part for part, found in rows.items() for row in found}
    assert split["digits/1"] == split["vm-one"]  # "one" and "ONE"
    row = next(iter(rows.values()))[0]
    assert row.duration == pytest.approx(io.info(row.audio).seconds)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert asterisk_prompts.prepare(out, sources=source).reused
    assert stamps == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    row.audio.unlink()
    assert not asterisk_prompts.prepare(out, sources=source).reused
    assert row.audio.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("...at the tone (a tone plays)", "at the tone"),
        ("To exit the menu...", "To exit the menu"),
        ("[ascending tones]", ""),
        ("<beep ascending>", ""),
        ("(2 seconds of silence)", ""),
        ("press  # or *", "press pound or star"),
        ("Sus saludos [temporales] estan en uso", "Sus saludos temporales estan en uso"),
        ("...", ""),
    ],
)
def test_transcripts_keep_only_what_is_said(text, expected):
    assert asterisk_prompts.clean(text) == expected


def test_split_depends_on_the_words_alone_and_never_changes():
    assert normalised("  Goodbye!") == normalised("good bye").replace(" ", "") == "goodbye"
    assert split_of("Thank you.", "c") == split_of("thank  YOU", "c")
    parts = [split_of(f"text {number}", "asterisk-prompts/1") for number in range(1000)]
    assert [parts.count(part) for part in ("train", "valid", "test")] == [700, 94, 206]


def test_source_without_transcripts_says_what_to_add(tmp_path):
    (tmp_path / "a.deb").write_bytes(deb(tar({}, "w:gz"), "data.tar.gz"))
    with pytest.raises(ConfigError, match="add the package asterisk-core-sounds-en"):
        asterisk_prompts.read_prompts("en", [tmp_path / "a.deb"])


def test_a_member_of_negative_size_is_refused_and_not_read_for_ever(tmp_path):
    header = f"{'debian-binary':<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{-60:<10}`\n".encode()
    (tmp_path / "a.deb").write_bytes(b"!<arch>\n" + header + bytes(60))
    with pytest.raises(ConfigError, match=r"a\.deb: damaged archive .*'-60'"):
        asterisk_prompts.read_prompts("en", [tmp_path / "a.deb"])


def test_nothing_installed_and_apt_failing_says_what_to_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(asterisk_prompts, "INSTALLED", tmp_path)
    monkeypatch.setattr(debian.shutil, "which", lambda name: f"/usr/bin/{name}")
    failed = subprocess.CompletedProcess([], 100, "", "E: Unable to locate package")
    monkeypatch.setattr(debian.subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(ConfigError, match=r"Unable to locate package.*--source"):
        asterisk_prompts.read_prompts("en")


def noise(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    io.save(path, np.random.default_rng(0).uniform(-0.1, 0.1, round(seconds * 16_000)), 16_000)


def libri(root):
    for subset in ("train-clean-5", "test-clean"):
        chapter = root / subset / "84" / "121"
        noise(chapter / "84-121-0000.flac", 1.0)
        noise(chapter / "84-121-0001.flac", 0.5)
        (chapter / "84-121.trans.txt").write_text("84-121-0000 GO DO YOU HEAR\n84-121-0001 YES\n")
    return root


def test_librispeech_gives_a_manifest_for_each_subset(tmp_path):
    prepared = librispeech.prepare(libri(tmp_path / "LibriSpeech"), tmp_path / "out")
    assert sorted(prepared.parts) == ["test-clean", "train-clean-5"]
    row = manifest.read(prepared.parts["test-clean"].path)[1]
    assert (row.id, row.text, row.speaker, row.duration) == ("84-121-0001", "YES", "84", 0.5)
    assert row.audio.exists()


def test_single_subset_may_be_given(tmp_path):
    prepared = librispeech.prepare(libri(tmp_path / "LibriSpeech") / "test-clean")
    assert list(prepared.parts) == ["test-clean"]


def test_librispeech_line_without_recording_is_named(tmp_path):
    (libri(tmp_path / "L") / "test-clean/84/121/84-121-0001.flac").unlink()
    with pytest.raises(ConfigError, match=r"84-121\.trans\.txt:2: no recording of 84-121-0001"):
        librispeech.prepare(tmp_path / "L")


def test_common_voice_keeps_its_split_and_its_quotes(tmp_path):
    root = tmp_path / "en"
    for number, part in enumerate(("train", "dev", "test")):
        noise(root / "clips" / f"cv_{number}.mp3", 1.0)
        header, row = "client_id\tpath\tsentence\tlocale", f'abc\tcv_{number}.mp3\t"Hello," it said.\ten'
        (root / f"{part}.tsv").write_text(f"{header}\n{row}\n")
    (root / "clip_durations.tsv").write_text("clip\tduration[ms]\ncv_0.mp3\t1234\n")
    prepared = common_voice.prepare(root, tmp_path / "out")
    assert sorted(prepared.parts) == ["test", "train", "valid"]
    (row,) = manifest.read(tmp_path / "out/train.jsonl")
    assert (row.id, row.text, row.speaker, row.lang) == ("cv_0", '"Hello," it said.', "abc", "en")
    assert row.duration == 1.234
    assert row.audio == root / "clips/cv_0.mp3"
    assert manifest.read(tmp_path / "out/valid.jsonl")[0].duration == pytest.approx(1.0, abs=0.1)
