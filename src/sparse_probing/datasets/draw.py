"""Draw a bounded sample from a stream of unknown length: same seed, same sample, whatever the order of the stream."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


def priority(seed: int, name: str) -> int:
    """64 bits that depend on the seed and the name alone."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, key=seed.to_bytes(16, "little"))
    return int.from_bytes(digest.digest(), "big")


class Draw(Generic[Key, Item]):
    """Keeps at most `most` items of each key, those whose names have the smallest hash: a uniform sample in bounded memory.

    Args:
        most: items to keep for each key; null keeps all.
        seed: another seed, another sample.
    """

    def __init__(self, most: int | None, seed: int) -> None:
        self.most, self.seed = most, seed
        self._kept: dict[Key, list[tuple[int, str, int, Item]]] = {}
        self.offered: dict[Key, int] = {}
        """Items seen for each key."""

    def offer(self, key: Key, name: str, item: Item) -> None:
        """Show an item. Its name tells it apart from the others (an id); of several items of one name some may be drawn."""
        number = self.offered.get(key, 0)
        self.offered[key] = number + 1
        kept = self._kept.setdefault(key, [])
        entry = (
            -priority(self.seed, name),
            name,
            -number,
            item,
        )  # a heap with the largest hash on top; no tie reaches the item
        if self.most is None or len(kept) < self.most:
            heapq.heappush(kept, entry)
        else:
            heapq.heappushpop(kept, entry)

    def drawn(self) -> Iterator[tuple[Key, Item]]:
        """What was kept: keys in the order of their first item, items in the order in which they came."""
        for key in self.offered:
            for _, _, _, item in sorted(self._kept[key], key=lambda entry: -entry[2]):
                yield key, item
