"""Typed progress events: what every long computation yields between its steps."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

if TYPE_CHECKING:
    from .trajectory import Trajectory

Stage = Literal["estimate", "refine", "restore", "sequence"]
T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """One step done.

    Parameters
    ----------
    stage : str
        ``"estimate"``, ``"refine"``, ``"restore"`` or ``"sequence"``.
    fraction : float
        Share of all work done, in [0, 1], never falling.
    message : str
        One line for the user.
    preview : ndarray, optional
        Intermediate sharp image, like the input, possibly smaller.
    """

    stage: Stage
    fraction: float
    message: str
    preview: np.ndarray | None = None


class Notice(Progress):
    """What the user should be told beside the line that the next event overwrites."""


@dataclass(frozen=True, kw_only=True)
class Climbed(Progress):
    """One step of a refinement done.

    Parameters
    ----------
    objective : float
        Of this step, dB.
    best : float
        Of the best step so far, dB.
    trajectory : Trajectory, optional
        That of the best step, as it would be given back if no better one came.
    """

    objective: float
    best: float
    trajectory: Trajectory | None = None


Steps = Generator[Progress, None, T]
# A computation below the level of messages: yields the share of it that is done.
Parts = Generator[float, None, T]


def finish(parts: Parts[T]) -> T:
    """Run to the end in one go."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def announced(parts: Parts[T], stage: Stage, start: float, stop: float, message: str) -> Steps[T]:
    """Pass on the shares of one computation as events, from `start` to `stop` of all the work."""
    while True:
        try:
            share = next(parts)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        yield Progress(stage, start + (stop - start) * share, message)


def mapped(steps: Steps[T], change: Callable[[Progress], Progress]) -> Steps[T]:
    """The same work, each event changed on its way."""
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        yield change(event)


def within(
    steps: Steps[T], start: float, stop: float, stage: Stage | None = None, message: str = ""
) -> Steps[T]:
    """Pass on the events of one part of the work, as the share from `start` to `stop` of all.

    `stage` and `message`, when given, replace those of the events.
    """
    return mapped(
        steps,
        lambda event: replace(
            event,
            fraction=start + (stop - start) * event.fraction,
            stage=stage or event.stage,
            message=message or event.message,
        ),
    )


def run(steps: Steps[T], report: Callable[[Progress], object] | None = None) -> T:
    """Run to the end, handing each event to `report`; its exceptions cancel the work."""
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if report is not None:
            try:
                report(event)
            except BaseException:
                steps.close()
                raise
