"""The Steel Sky corpus, on a replica of the game's files, and how these are packed."""

import struct

import numpy as np
import pytest
import soundfile

from speech_peft.audio import manifest
from speech_peft.errors import ConfigError
from speech_peft.prepare import __main__ as command
from speech_peft.prepare.corpora import steel_sky
from speech_peft.prepare.propack import unpacked

Step = tuple[bytes, int, int]
"""Bytes as they are, then how far back a copy begins and how long it is."""


class Bits:
    """Bits in words that are begun when they are wanted, so that bytes may lie between."""

    def __init__(self):
        self.out, self.free = bytearray(), []

    def put(self, value: int, count: int) -> None:
        if count > len(self.free):
            self.free += [(len(self.out) + bit // 8, bit % 8) for bit in range(16)]
            self.out += bytes(2)
        for bit in range(count):
            byte, place = self.free.pop(0)
            self.out[byte] |= (value >> bit & 1) << place

    def number(self, value: int) -> None:
        """By a code of sixteen symbols of four bits each."""
        symbol = value.bit_length()
        self.put(int(f"{symbol:04b}"[::-1], 2), 4)
        if symbol >= 2:
            self.put(value - (1 << (symbol - 1)), symbol - 1)


def packed(*blocks: list[Step]) -> bytes:
    bits, size = Bits(), 0
    bits.put(0, 2)
    for block in blocks:
        for _ in range(3):
            bits.put(16, 5)
            for _ in range(16):
                bits.put(4, 4)
        bits.put(len(block), 16)
        for i, (plain, back, length) in enumerate(block):
            bits.number(len(plain))
            bits.out += plain
            size += len(plain)
            if i < len(block) - 1:
                bits.number(back - 1)
                bits.number(length - 2)
                size += length
    return b"RNC\x01" + struct.pack(">II", size, len(bits.out)) + bytes(6) + bytes(bits.out)


TEXTS = [
    "Ask JOEY about it!",
    "Nobody says this.",
    "WHERE is Joey?",
    "Mmmmft! Frbl",
    "I am here.",
    "A long one. " * 4,
]


def codes(code, before: str = "") -> dict[str, str]:
    if isinstance(code, str):
        return {code: before}
    return codes(code[0], before + "0") | codes(code[1], before + "1")


def section(texts: list[str]) -> bytes:
    """Sizes in quarters of a byte, then the texts."""
    letters = codes(steel_sky._code(iter(steel_sky._CODE)))
    sizes, written = b"", ""
    for text in texts:
        bits = "".join(letters[letter] for letter in text + "\0")
        bits += "0" * (-len(bits) % 16)  # large sizes count in eights of quarters
        quarters = len(bits) // 2
        sizes += bytes([quarters if quarters < 0x80 else 0x80 | quarters >> 3])
        written += bits
    content = int(written, 2).to_bytes(len(written) // 8, "big")
    return struct.pack("<HH", 4, 4 + len(sizes)) + sizes + content


def clip(seconds: float) -> bytes:
    noise = np.random.default_rng(0).integers(100, 156, round(seconds * steel_sky.RATE))
    return bytes(22) + noise.astype(np.uint8).tobytes()


@pytest.fixture
def game(tmp_path):
    """Clips of the first section as they are, one packed, and texts that are packed with their header."""
    files = {50_000: (clip(1.0), 1 << 23), 50_002: (clip(1.0), 1 << 23), 50_003: (clip(1.0), 1 << 23)}
    files[50_005] = clip(0.2), 1 << 23
    files[50_004] = b"\x80" + bytes(21) + packed([(clip(1.0)[22:], 0, 0)]), 0
    for number in range(8):
        texts = section(TEXTS if number == 0 else ["Yes."])
        files[60_600 + number] = b"\x80" + bytes(21) + packed([(texts, 0, 0)]), 1 << 22
    table, content = struct.pack("<I", len(files)), b""
    for number, (stored, flags) in files.items():
        content += bytes(-len(content) % 16)
        offset = len(content) >> 4 | 1 << 23 if number % 2 else len(content)
        table += (
            struct.pack("<H", number)
            + offset.to_bytes(3, "little")
            + (flags | len(stored)).to_bytes(3, "little")
        )
        content += stored
    folder = tmp_path / "game"
    folder.mkdir()
    (folder / "sky.dnr").write_bytes(table)
    (folder / "sky.dsk").write_bytes(content)
    return folder


def test_clips_have_their_words_without_the_capitals_of_stress(game, tmp_path):
    out = tmp_path / "out"
    assert command.main(["steel-sky", str(out), "--source", str(game)]) == 0
    rows = list(manifest.read(out / "all.jsonl"))
    # The one without words and the one spoken at sixty words a second are left out.
    assert {row.id: row.text for row in rows} == {
        "50000": "Ask Joey about it!",
        "50002": "Where is Joey?",
        "50004": "I am here.",
    }
    heard = {row.id: soundfile.read(row.audio)[0] for row in rows}
    assert all(len(one) == steel_sky.RATE for one in heard.values())
    assert np.array_equal(heard["50004"], heard["50000"])  # packed or not
    assert steel_sky.prepare(out, sources=[str(game)]).reused


@pytest.mark.parametrize(
    ("name", "content"),
    [("sky.dnr", b"\x09\0\0\0abc"), ("sky.dsk", b""), ("sky.dsk", None), ("sky.dnr", None)],
)
def test_a_damaged_game_is_refused_by_the_name_of_its_file(game, tmp_path, name, content):
    (game / name).unlink() if content is None else (game / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        steel_sky.prepare(tmp_path / "out", sources=[game])


def test_bytes_and_copies_come_out_in_order_also_copies_of_what_they_copy():
    one = [(b"speech ", 7, 7), (b"", 3, 20), (b"ab", 1, 2), (b"!", 0, 0)]
    two = [(bytes(range(256)), 256, 300), (b"", 0, 0)]
    bytes_ = b"speech speech " + b"ch " * 6 + b"ch" + b"abbb!"
    assert unpacked(packed(one, two)) == bytes_ + bytes(range(256)) + bytes(range(256)) + bytes(range(44))


@pytest.mark.parametrize(
    "harm", [lambda x: b"RNC\x02" + x[4:], lambda x: x[:40], lambda x: x[:-9], lambda x: b""]
)
def test_what_is_damaged_is_refused(harm):
    whole = packed([(b"speech", 6, 60), (b" and silence", 0, 0)])
    with pytest.raises(ValueError, match=r"begin|ends|holds|code|copies"):
        unpacked(harm(whole))
