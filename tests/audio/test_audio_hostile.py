"""Whatever lies under a name, one reason comes back, soon."""

import os
import struct

import pytest

from speech_peft.audio import io
from speech_peft.errors import AudioError
from tests.sounds import noise, sound_file

FIELDS = {  # of a WAV: offset, form and value
    "codec": (20, "<H", 0x7777),
    "no channel": (22, "<H", 0),
    "channels": (22, "<H", 60_000),
    "hertz": (24, "<I", 1),
    "no hertz": (24, "<I", 0),
    "gigahertz": (24, "<I", 4_000_000_000),
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("read", [io.info, io.load])
def test_an_absurd_header_is_an_audio_error(tmp_path, field, read):
    offset, form, value = FIELDS[field]
    content = bytearray(sound_file(tmp_path / "a.wav", noise(0.2), subtype="PCM_16"))
    struct.pack_into(form, content, offset, value)
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(AudioError):
        read(tmp_path / "a.wav")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("read", [io.info, io.load])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="regular file"):
        read(tmp_path / "pipe.wav")


@pytest.mark.parametrize("name", ["a\0b.wav", "a\ud800.wav", "x" * 5000, "~nosuchuser/a.wav"])
@pytest.mark.parametrize("read", [io.info, io.load])
def test_a_name_that_no_file_has_is_an_audio_error(tmp_path, name, read):
    with pytest.raises(AudioError):
        read(str(tmp_path / name))


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n",
        "ffconcat version 1.0\nfile '{other}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    ],
)
def test_a_playlist_is_no_recording(tmp_path, content):
    sound_file(tmp_path / "other.wav", noise(0.2))
    (tmp_path / "list.wav").write_text(content.format(other=tmp_path / "other.wav"))
    with pytest.raises(AudioError, match="not audio"):
        io.load(tmp_path / "list.wav")


def test_no_cut_or_damaged_header_is_more_than_an_audio_error(tmp_path):
    for suffix in ("wav", "flac", "ogg", "mp3"):
        content = sound_file(tmp_path / f"a.{suffix}", noise(0.3, rate=16_000), 16_000)
        for at in [*range(1, 48, 3), len(content) // 2]:
            damaged = bytearray(content)
            damaged[at] ^= 0xFF
            for broken in (content[:at], bytes(damaged)):
                path = tmp_path / f"b.{suffix}"
                path.write_bytes(broken)
                try:
                    io.info(path)
                    io.load(path)
                except AudioError:
                    continue
