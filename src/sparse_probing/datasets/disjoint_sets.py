"""Disjoint sets under merging: which texts belong together. scipy has them, too, behind half a second of imports."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class DisjointSets(Generic[T]):
    """Sets that start with one element each. Union by size, with paths halved on the way up (Tarjan and van Leeuwen, 1984)."""

    def __init__(self, elements: Iterable[T]) -> None:
        self._parent = {element: element for element in elements}
        self._size = dict.fromkeys(self._parent, 1)
        self._place = {element: place for place, element in enumerate(self._parent)}

    def __getitem__(self, element: T) -> T:
        """The representative of the set that holds this element."""
        parent = self._parent
        while parent[element] != element:
            parent[element] = parent[parent[element]]
            element = parent[element]
        return element

    def connected(self, a: T, b: T) -> bool:
        """Whether both are in one set."""
        return self[a] == self[b]

    def merge(self, a: T, b: T) -> None:
        """Join the sets of both. The representative is that of the larger set; of equal ones, that of the earlier."""
        a, b = self[a], self[b]
        if a == b:
            return
        if (self._size[a], -self._place[a]) < (self._size[b], -self._place[b]):
            a, b = b, a
        self._parent[b] = a
        self._size[a] += self._size[b]
