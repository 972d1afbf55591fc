"""Which names were given away already: of millions some bytes each, as far as one needs to know."""

from array import array

_FREE = 0
_SHOWN = 10_000  # of the first inputs it is remembered what they were


class Names:
    """A set of texts that only holds 64 bits of each; of the first ones it can say who had them.

    Two texts of a million are taken for one with a chance of 1 in 40 million.
    """

    def __init__(self) -> None:
        self._table, self._held = array("q", [_FREE]) * 1024, 0
        self._owners: dict[str, str] = {}

    def __len__(self) -> int:
        return self._held

    def __contains__(self, name: str) -> bool:
        mark = hash(name) or 1
        return self._table[self._place(mark)] == mark

    def add(self, name: str, owner: str = "") -> None:
        mark = hash(name) or 1
        place = self._place(mark)
        if self._table[place] == mark:
            return
        self._table[place] = mark
        self._held += 1
        if owner and len(self._owners) < _SHOWN:
            self._owners[name] = owner
        if 2 * self._held > len(self._table):
            self._grow()

    def owner(self, name: str) -> str:
        """Who was given the name; "" where that is no longer known."""
        return self._owners.get(name, "")

    def _place(self, mark: int) -> int:
        last = len(self._table) - 1
        place = mark & last
        while self._table[place] not in (_FREE, mark):
            place = (place + 1) & last
        return place

    def _grow(self) -> None:
        before, self._table = self._table, array("q", [_FREE]) * (2 * len(self._table))
        for mark in before:
            if mark != _FREE:
                self._table[self._place(mark)] = mark
