"""Files packed by Rob Northen's ProPack, method 1, as games of the nineties have them.

A header of 18 bytes says how long the content is. Then come blocks: three Huffman codes, and by these, in
turn, how many bytes stand as they are, how far back a copy begins and how long it is. Bits are taken from
words of 16, lowest first; bytes that stand as they are lie between the words.
"""

from collections.abc import Iterator

_MAGIC, _HEADER = b"RNC\x01", 18


def unpacked(packed: bytes) -> bytes:
    """The content.

    Raises ValueError where the file is packed in another way, or damaged.
    """
    if packed[:4] != _MAGIC:
        raise ValueError("does not begin as a file of ProPack, method 1")
    size, bits, out = int.from_bytes(packed[4:8], "big"), _Bits(packed, _HEADER), bytearray()
    bits.take(2)  # whether it is locked, and whether it wants a key: nobody asks
    while len(out) < size:
        plain, back, length = _Code(bits), _Code(bits), _Code(bits)
        last = bits.take(16) - 1
        for number in range(last + 1):
            out += bits.bytes(plain.number())
            if number < last:
                _copy(out, back.number() + 1, length.number() + 2)
        if last < 0 or bits.at > len(packed) + 2:
            raise ValueError(f"ends after {len(out)} of {size} bytes")
    if len(out) != size:
        raise ValueError(f"holds {len(out)} bytes where {size} were promised")
    return bytes(out)


def _copy(out: bytearray, back: int, length: int) -> None:
    """Appends what begins so many bytes before the end; it may run into what it appends."""
    start = len(out) - back
    if start < 0:
        raise ValueError("copies from before its beginning")
    part = out[start : start + length]
    out += (part * (length // len(part) + 1))[:length]


class _Bits:
    __slots__ = ("_bits", "_content", "_left", "at")

    def __init__(self, content: bytes, at: int):
        self._content, self.at = content, at
        self._bits, self._left = 0, 0

    def peek(self) -> int:
        """The next bits, 16 at least; beyond the end they are 0."""
        return self._bits | int.from_bytes(self._content[self.at : self.at + 2], "little") << self._left

    def take(self, count: int) -> int:
        """The number that the next bits are, at most 16 of them."""
        if count > self._left:
            self._bits = self.peek()
            self._left += 16
            self.at += 2
        found = self._bits & ((1 << count) - 1)
        self._bits >>= count
        self._left -= count
        return found

    def bytes(self, count: int) -> bytes:
        """Bytes that lie behind the words that were begun."""
        self.at += count
        return self._content[self.at - count : self.at]


class _Code:
    """A Huffman code, read from where it stands; it gives how many bits a number has, which then follow."""

    def __init__(self, bits: _Bits):
        lengths = [bits.take(4) for _ in range(bits.take(5))]
        self._bits, self._width = bits, max(lengths, default=0)
        self._table: list[tuple[int, int]] = [(0, 0)] * (1 << self._width)
        for symbol, length, code in _canonical(lengths):
            for above in range(1 << (self._width - length)):
                self._table[code | above << length] = (symbol, length)

    def number(self) -> int:
        symbol, length = self._table[self._bits.peek() & (len(self._table) - 1)]
        if not length:
            raise ValueError("holds a code that it does not explain")
        self._bits.take(length)
        return symbol if symbol < 2 else 1 << (symbol - 1) | self._bits.take(symbol - 1)


def _canonical(lengths: list[int]) -> Iterator[tuple[int, int, int]]:
    """Each symbol that occurs, its length, and its code with the first bit lowest."""
    code = 0
    for length in range(1, max(lengths, default=0) + 1):
        for symbol, own in enumerate(lengths):
            if own == length:
                yield symbol, length, int(f"{code:0{length}b}"[::-1], 2)
                code += 1
        code <<= 1
