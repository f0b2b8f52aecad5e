"""Randomness by position: numbers hashed from where they stand, so that none depends on another or on who asked first.

The hash is splitmix64 (Steele, Lea, Flood 2014), spelled out here because numpy's generators promise no stable stream
and cannot be entered in the middle. Float results use only operations that IEEE 754 rounds exactly.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Reals = NDArray[np.float64]

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
FIRST = 0xBF58476D1CE4E5B9
SECOND = 0x94D049BB133111EB


def key_of(seed: int, *names: str) -> int:
    """A 64-bit key for one purpose: every other seed or name gives an unrelated one."""
    text = "|".join((str(seed), *names))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def word(key: int, position: int) -> int:
    """The 64-bit random word that stands at `position` of the sequence `key`."""
    mixed = (key + (position + 1) * GOLDEN) & MASK
    mixed = ((mixed ^ (mixed >> 30)) * FIRST) & MASK
    mixed = ((mixed ^ (mixed >> 27)) * SECOND) & MASK
    return mixed ^ (mixed >> 31)


def unit(key: int, position: int) -> float:
    """The word at `position` as a float in [0, 1)."""
    return (word(key, position) >> 11) * 2.0**-53


def words(key: int, count: int) -> Words:
    """The first `count` words of the sequence, the same that `word` gives one by one."""
    mixed = np.uint64(key) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(FIRST)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(SECOND)
    return mixed ^ (mixed >> np.uint64(31))


def units(key: int, count: int) -> Reals:
    """The first `count` words as floats in [0, 1)."""
    return (words(key, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(key: int, count: int) -> Reals:
    """Nearly normal numbers, mean 0 and deviation 1: the sum of each word's four 16-bit quarters."""
    mixed, low = words(key, count), np.uint64(0xFFFF)
    total = sum(((mixed >> np.uint64(shift)) & low).astype(np.int64) for shift in (0, 16, 32, 48))
    return (np.asarray(total, dtype=np.float64) - 131_070.0) / 37_837.2


def smooth(key: int, position: int, period: int) -> float:
    """Value noise in [-1, 1): hashed lattice points every `period` positions, joined by a smooth curve."""
    index, rest = divmod(position, period)
    along = rest / period
    weight = along * along * (3.0 - 2.0 * along)
    return 2.0 * (unit(key, index) * (1.0 - weight) + unit(key, index + 1) * weight) - 1.0
