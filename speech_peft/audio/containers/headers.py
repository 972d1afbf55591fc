"""What headers say about the length of a recording, and whether that can be so.

Headers are written first and lengths are known last: a recorder that dies leaves a length of 0, a stream none
at all, and files that were joined byte by byte begin with the header of the first. Only headers are read.
"""

import mmap
import os
import struct
from dataclasses import dataclass, replace
from typing import BinaryIO

Part = tuple[int, int]
"""First byte and end of a recording within a file."""
Patch = tuple[tuple[int, bytes], ...]
"""Bytes to read in place of those that are there, and where."""
_STREAMED = 0x7FFFFF00  # from here on: a writer that could not go back put the largest number
_UNKNOWN = b"\xff\xff\xff\xff"
_SLACK_BYTES = 4096  # behind the samples: what fills a sector up, a tag without a header


@dataclass(frozen=True)
class Header:
    """What can be told of a file from its headers."""

    parts: tuple[Part, ...] = ()
    """Recordings that lie one after the other; empty where it is one."""
    patch: Patch = ()
    """What makes a header honest."""
    honest: bool | None = None
    """Whether the declared length (with `patch`) is that of what is there; None: that was not looked at."""
    seconds: float | None = None
    """That length."""


def examine(path: str | os.PathLike[str]) -> Header:
    """The header of a WAV, FLAC, Ogg or MP3; of any other file, which is left to its decoder, `Header()`."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(12)
        if start[:4] == b"OggS":
            return _ogg(file, size)
        if start[:4] == b"fLaC":
            return _flac(file, size)
        if start[:4] in (b"RIFF", b"RF64") and start[8:] == b"WAVE":
            return _wav(file, size)
        tags = _id3(file, size)
        return _mp3(file, tags, size) or Header()


def _ogg(file: BinaryIO, size: int) -> Header:
    """A page that begins a stream, behind others that hold one, begins another recording (RFC 3533)."""
    starts, place, heads = [0], 0, True
    with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as pages:
        while 0 <= (place := pages.find(b"OggS", place)) <= size - 27:
            first = bool(pages[place + 5] & 2)
            if first and not heads:
                starts.append(place)
            heads = first
            lacing = pages[place + 27 : place + 27 + pages[place + 26]]
            place += 27 + len(lacing) + sum(lacing)
    return _of_parts(starts, size)


def _flac(file: BinaryIO, size: int) -> Header:
    """Frames say nothing of their length, so the marks of further recordings are looked for in all bytes."""
    starts, place = [0], 0
    with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as content:
        while (place := content.find(b"fLaC", place + 4)) >= 0:
            if content[place + 4 : place + 8] in (b"\0\0\0\x22", b"\x80\0\0\x22"):  # STREAMINFO
                starts.append(place)
    return _of_parts(starts, size)


def _wav(file: BinaryIO, size: int) -> Header:
    """The chunks of a WAV, and of one that follows it."""
    starts, place, rate, honest = [0], 12, 0, True
    long, never_finished = 0, False
    while place + 8 <= size:
        file.seek(place)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"RIFF" and file.read(4) == b"WAVE":
            starts.append(place)
            place += 12
            continue
        if name == b"fmt ":
            rate = struct.unpack("<8xI", file.read(12).ljust(12, b"\0"))[0]
        if name == b"ds64" and length >= 24:  # the real lengths of an RF64: of all, of the samples
            long = place
            never_finished = struct.unpack("<8xQ", file.read(16))[0] == 0
        end = place + 8 + length
        if name == b"data" and length < _STREAMED and end < size:
            rest = size - end
            if not length:
                honest = _chunk(file, end, size)
            elif rest > max(_SLACK_BYTES, rate // 2):
                honest = _chunk(file, end, size) or _chunk(file, end + length % 2, size)
            if not honest:
                return Header(patch=((4, _UNKNOWN), (place + 4, _UNKNOWN)), honest=True)
        if name == b"data" and length >= _STREAMED:
            patch = ((0, b"RIFF"), (long, b"JUNK")) if long and never_finished else ()
            return Header(patch=patch, honest=True)
        # Chunks of odd length are followed by a byte that not every writer writes.
        place = end if length % 2 and _chunk(file, end, size) else end + length % 2
    return replace(_of_parts(starts, size), honest=True)


def _chunk(file: BinaryIO, place: int, size: int) -> bool:
    """Whether something that can be a chunk begins here and ends within the file."""
    file.seek(place)
    head = file.read(8)
    if len(head) < 8:
        return True  # the end
    name, length = struct.unpack("<4sI", head)
    return name.isascii() and name.decode().isprintable() and (name == b"RIFF" or place + length <= size)


def _id3(file: BinaryIO, size: int) -> int:
    """Where the tags at the beginning end."""
    place = 0
    while place < size:
        file.seek(place)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        length = 0
        for byte in head[6:]:
            length = length << 7 | byte & 0x7F
        place += 10 + length
    return place


def _mp3(file: BinaryIO, place: int, size: int) -> Header | None:
    """An MP3: honest where a Xing header counts the bytes that are there, or nearly."""
    file.seek(place)
    frame = file.read(256).lstrip(b"\0")
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # sync and layer III
        return None
    version, rate = frame[1] >> 3 & 3, frame[2] >> 2 & 3
    if version == 1 or rate == 3:
        return None
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0 or len(frame) < at + 16:
        return Header(honest=False)
    flags, frames, length = struct.unpack(">4xIII", frame[at : at + 16])
    if flags & 3 != 3:
        return Header(honest=False)
    seconds = frames * (1152 if version == 3 else 576) / hertz
    end = place + length
    return Header(honest=abs(size - end) <= _SLACK_BYTES or _tag(file, end), seconds=seconds)


def _tag(file: BinaryIO, place: int) -> bool:
    """Whether a tag begins here, as they do behind an MP3."""
    file.seek(max(0, place - 4))
    found = file.read(_SLACK_BYTES)
    return any(found.find(name, 0, 64) >= 0 for name in (b"APETAGEX", b"LYRICSBEGIN", b"TAG"))


def _of_parts(starts: list[int], size: int) -> Header:
    parts = tuple(zip(starts, [*starts[1:], size], strict=True))
    return Header(parts=parts if len(parts) > 1 else ())
