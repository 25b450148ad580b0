"""Examples that take longer to make than to learn from, and are therefore used more than once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Replay(Generic[T]):
    """New examples, each followed by some of those before.

    Parameters
    ----------
    kept : int
        How many of the last examples are kept.
    uses : int
        How often an example is used on average.
    numbers : numpy.random.Generator
        Chooses among those before.
    """

    def __init__(self, kept: int, uses: int, numbers: np.random.Generator) -> None:
        self._kept: deque[T] = deque(maxlen=kept)
        self._uses, self._numbers, self._count = uses, numbers, 0

    def next(self, make: Callable[[], T]) -> T:
        """What `make` makes, or an example from before."""
        again = self._count % self._uses
        self._count += 1
        if again:
            return self._kept[int(self._numbers.integers(len(self._kept)))]
        self._kept.append(make())
        return self._kept[-1]
