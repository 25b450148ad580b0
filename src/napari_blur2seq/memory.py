"""Full memory: the same work once more in smaller tiles, then on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from .devices import resolve
from .progress import Notice, Progress, Steps, mapped

if TYPE_CHECKING:
    from .pipeline import Options

T = TypeVar("T")

# Side in px of the tiles of the second attempt, which need a fifth of the usual memory.
SMALL_TILE = 192


class Sparing:
    """Does work as the options say and, where the memory is full, with less of it.

    Parameters
    ----------
    options : Options

    Attributes
    ----------
    options : Options
        With what the work is done by now: what was too much once is not tried again.
    """

    def __init__(self, options: Options) -> None:
        self.options = options

    def steps(self, work: Callable[[Options], Steps[T]]) -> Steps[T]:
        """Run the work that `work` begins with the options it is given; returns what that returns.

        A `Notice` precedes each further attempt; the fraction done never falls.

        Raises
        ------
        Exception
            That of the last attempt; at once what is not about memory.
        """
        reached = 0.0

        def onwards(event: Progress) -> Progress:
            nonlocal reached
            reached = max(reached, event.fraction)
            return replace(event, fraction=reached)

        while True:
            try:
                return (yield from mapped(work(self.options), onwards))
            except Exception as error:
                less = _with_less(self.options) if is_about_memory(error) else None
                if less is None:
                    raise
            # Here the error is gone, and with its frames what they held on the device.
            _give_back()
            self.options, words = less
            yield Notice("estimate", reached, words)


def _with_less(options: Options) -> tuple[Options, str] | None:
    """What to try when the memory was too full for these options, in words, too."""
    if options.tile is None or options.tile > SMALL_TILE:
        return (
            replace(options, tile=SMALL_TILE),
            "The memory is full: trying once more, in smaller tiles.",
        )
    if resolve(options.device).type != "cpu":
        return (
            replace(options, device="cpu"),
            "The device's memory is full: trying once more, on the CPU.",
        )
    return None


def is_about_memory(error: BaseException) -> bool:
    """Whether an error means that memory is full, of whichever device."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (
            isinstance(error, RuntimeError)
            and ("out of memory" in text or "can't allocate memory" in text)
        )
    )


def _give_back() -> None:
    """Hand what PyTorch keeps for later back to the device."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
