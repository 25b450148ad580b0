"""How much longer work that could go on for ever may go on."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import TypeVar

from ..progress import Steps

T = TypeVar("T")

# Of a whole refinement.
STEPS = 90


@dataclass
class Budget:
    """What may be spent, and what of it is.

    Attributes
    ----------
    steps : int
        Left.
    seconds : float
        In all.
    stop : threading.Event
        Nothing is left once it is set.
    spent : float
        Seconds; none for a caller that pauses between two events.
    """

    steps: int
    seconds: float = math.inf
    stop: threading.Event = field(default_factory=threading.Event)
    spent: float = 0.0

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return self.steps < 1 or self.spent >= self.seconds or self.stop.is_set()

    def limiting(self, steps: Steps[T]) -> Steps[T | None]:
        """The same work, or None once nothing is left."""
        while not self.over:
            try:
                event = next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            yield event
        steps.close()
        return None

    def counting(self, steps: Steps[T]) -> Steps[T]:
        """The same work, its time counted."""
        while True:
            begin = time.perf_counter()
            try:
                event = next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            finally:
                self.spent += time.perf_counter() - begin
            yield event
