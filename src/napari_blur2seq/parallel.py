"""Several computations at once, each on its share of the cores.

PyTorch spreads one operation over all cores, which pays for large pictures and many channels
only. Where several computations wait, none of which needs another's result, each core does one.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from time import perf_counter
from typing import Any, TypeVar

import torch

from .progress import Progress, Steps

T = TypeVar("T")

# Seconds that a computation goes on by itself: cancelling it must seem immediate.
_WHILE = 0.1


def side_by_side(works: Sequence[Steps[T]]) -> Steps[list[T]]:
    """Run computations at once, as many as PyTorch has threads.

    Each stays in one thread from its first step to its last, so that PyTorch's modes, which belong
    to threads, stay its own; gradients are on or off as they are for the caller. When this
    generator is closed, or one computation fails, the others are closed after the step that they
    are at.

    Parameters
    ----------
    works : sequence of generators
        None of which was begun.

    Yields
    ------
    Progress
        The events of all, with the share of all work that is done.

    Returns
    -------
    list
        What the computations return, in their order.
    """
    cores = torch.get_num_threads()
    lanes = max(1, min(cores, len(works)))
    done = [0.0] * len(works)
    results: dict[int, T] = {}
    waiting = iter(range(len(works)))
    gradients = torch.is_grad_enabled()
    threads = [
        ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(cores // lanes,))
        for _ in range(lanes)
    ]
    running: dict[Future[Progress], tuple[int, int]] = {}

    def advance(lane: int, i: int) -> None:
        running[threads[lane].submit(_next, works[i], gradients)] = lane, i

    def begin(lane: int) -> None:
        if (i := next(waiting, None)) is not None:
            advance(lane, i)

    try:
        for lane in range(lanes):
            begin(lane)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                lane, i = running.pop(future)
                try:
                    event = future.result()
                except StopIteration as end:
                    results[i], done[i] = end.value, 1.0
                    begin(lane)
                else:
                    done[i] = event.fraction
                    advance(lane, i)
                    yield replace(event, fraction=sum(done) / len(works))
        return [results[i] for i in range(len(works))]
    finally:
        for lane, i in running.values():
            threads[lane].submit(works[i].close)
        for thread in threads:
            thread.shutdown()
        # New threads take over the number that was set last in any.
        torch.set_num_threads(cores)


def _next(steps: Steps[Any], gradients: bool) -> Progress:
    """The last event of a while, as handing over from thread to thread takes time, too."""
    end = perf_counter() + _WHILE
    with torch.set_grad_enabled(gradients):
        event = next(steps)
        # None that says more than how far it is may be lost.
        while type(event) is Progress and event.preview is None and perf_counter() < end:
            event = next(steps)
    return event
