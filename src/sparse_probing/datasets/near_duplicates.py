"""Near duplicates: texts that share most of their wording, found by MinHash and confirmed by exact Jaccard similarity."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int, UInt64

from sparse_probing.datasets.disjoint_sets import DisjointSets

SIMILARITY = 0.7
"""Least Jaccard similarity (shared shingles / all shingles of two texts) of near duplicates. A text of 100 words with two
words changed far from each other still passes (0.81), with four it does not (0.66)."""

SHINGLE_WORDS = 5
"""Consecutive words in a shingle; a shorter text is one shingle."""

BANDS, ROWS = 32, 4
"""32 bands of 4 hash functions: 128 in all."""

REPRESENTATIVES = 16
"""Members of a bucket that the others are compared with."""

SHINGLES_AT_ONCE = 1 << 16
"""Shingles hashed together: 256 kB of 32-bit hashes stay in the processor's cache."""

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff"  # Thai, Lao, Myanmar, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
)  # second line: iteration mark, Kana, Han
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing modulo 2^64


def words_of(text: str) -> list[str]:
    r"""Runs of `\w`, composed (NFC) and without case; a character of a script written without spaces is a word.

    A text without any (punctuation only) is one word.
    """
    folded = unicodedata.normalize("NFC", text).casefold()
    return _WORD.findall(folded) or [folded]


def word_hash(word: str) -> int:
    """64 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def shingles(text: str, hash_word: Callable[[str], int] = word_hash) -> UInt64[np.ndarray, " shingle"]:
    """Hashes of the distinct shingles of a text, ascending: a polynomial of their words' hashes modulo 2^64."""
    words = words_of(text)
    hashes = np.fromiter(map(hash_word, words), dtype=np.uint64, count=len(words))
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    total = np.zeros(count, dtype=np.uint64)
    for first in range(min(SHINGLE_WORDS, len(words))):
        total = total * _BASE + hashes[first : first + count]
    return np.unique(total)


def jaccard(a: UInt64[np.ndarray, " a"], b: UInt64[np.ndarray, " b"]) -> float:
    """Shared members of two sorted sets over all their members."""
    both = np.sort(np.concatenate([a, b]), kind="stable")  # stable: merges the two sorted runs, 8 times as fast
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared)


def near_duplicate_clusters(texts: Sequence[str]) -> Int[np.ndarray, " document"]:
    """Which texts are near duplicates of each other, directly or through a chain of near duplicates.

    MinHash (Broder 1997, "On the resemblance and containment of documents") proposes pairs: texts that agree in all 4 hash
    functions of a band share a bucket. The exact Jaccard similarity decides, so nothing is joined by chance. A pair of
    similarity s shares a bucket with probability 1 - (1 - s^4)^32: 0.9998 at 0.7, more above.

    Members of a bucket are compared with 16 of them, drawn anew in each band, unless joined already. In a bucket of up to
    17 texts these are all pairs. In a larger one (boilerplate) two texts may be missed if they share no smaller bucket and
    no drawn member links them; in return the cost grows with the number of texts, not with its square.

    Args:
        texts: one string per document. Memory beyond them: under 1 kB per text and the shingles of up to 1,000 texts.

    Returns:
        For each text the smallest index in its cluster, its own if it has no near duplicate. Deterministic.
    """
    hash_word = lru_cache(1 << 17)(word_hash)
    shingles_of = lru_cache(1_000)(lambda document: shingles(str(texts[document]), hash_word))
    keys = _band_keys(texts, hash_word)
    joined = DisjointSets(range(len(texts)))
    for band in range(BANDS):
        for bucket in _buckets(keys[:, band], np.random.default_rng(band)):
            if len({joined[member] for member in bucket}) == 1:
                continue
            for position, a in enumerate(bucket):
                for b in bucket[: min(position, REPRESENTATIVES)]:
                    if not joined.connected(a, b) and jaccard(shingles_of(a), shingles_of(b)) >= SIMILARITY:
                        joined.merge(a, b)
    _, first, cluster = np.unique([joined[i] for i in range(len(texts))], return_index=True, return_inverse=True)
    return first[cluster]


def _band_keys(texts: Sequence[str], hash_word: Callable[[str], int]) -> UInt64[np.ndarray, "document band"]:
    """Bucket of each text in each band."""
    factors, shifts = np.random.default_rng(0).integers(0, 1 << 32, (2, BANDS * ROWS), dtype=np.uint32)
    keys = np.zeros((len(texts), BANDS), dtype=np.uint64)
    held, starts = [], [0]
    for number, text in enumerate(texts):
        held.append(shingles(text, hash_word))
        starts.append(starts[-1] + len(held[-1]))
        if starts[-1] < SHINGLES_AT_ONCE and number + 1 < len(texts):
            continue
        high = (np.concatenate(held) >> np.uint64(32)).astype(np.uint32)
        for h in range(BANDS * ROWS):
            minima = np.minimum.reduceat((factors[h] | np.uint32(1)) * high + shifts[h], starts[:-1])
            column = keys[number + 1 - len(held) : number + 1, h // ROWS]
            column[:] = column * _BASE + minima
        held, starts = [], [0]
    return keys


def _buckets(keys: UInt64[np.ndarray, " document"], rng: np.random.Generator) -> Iterator[list[int]]:
    """Documents of equal key, in random order; those without company are left out."""
    order = rng.permutation(len(keys))
    order = order[np.argsort(keys[order], kind="stable")]
    bounds = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]], append=~keys[order[-1:]]))
    for i in np.flatnonzero(np.diff(bounds) > 1):
        yield order[bounds[i] : bounds[i + 1]].tolist()
