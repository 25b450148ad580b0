"""Many pictures one after the other: slices, time points or channels of a stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import pipeline
from .devices import resolve
from .errors import Blur2SeqError
from .images import common_range_steps, to_working
from .memory import Sparing
from .pipeline import Options
from .progress import Progress, Steps, within
from .trajectory import Trajectory

if TYPE_CHECKING:
    from dask.array import Array as DaskArray

Array = NDArray[Any]


@dataclass(frozen=True)
class PlaneDone(Progress):
    """A plane of a stack is ready.

    Parameters
    ----------
    number : int
        Of the plane, in the order given.
    sharp : ndarray
        Like the plane; the plane itself where it cannot be deblurred.
    trajectory : Trajectory, optional
        None where it cannot be deblurred.
    metadata : dict
        As that of a `Result`.
    problem : str
        Why it cannot be deblurred, in a sentence; else empty.
    """

    number: int = 0
    sharp: Array | None = None
    trajectory: Trajectory | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def stack_steps(planes: Sequence[Callable[[], Array]], options: Options) -> Steps[list[str]]:
    """Deblur every plane with a motion of its own.

    Of more than 8 bits, the planes are read once before: the same values stand for black and white
    in all of them, unless `options` say which.

    Parameters
    ----------
    planes : sequence of callable
        Each gives the pixels of a plane, (H, W[, C]), when its turn comes.
    options : Options

    Yields
    ------
    Progress
        Of each plane, as a share of all; a `PlaneDone` when one is ready.

    Returns
    -------
    list of str
        The problems met: a plane that is of no use does not stop the others.
    """
    problems = []
    for number, plane in enumerate(planes):
        start, stop = number / len(planes), (number + 1) / len(planes)
        label = f"plane {number + 1} of {len(planes)}"
        pixels = plane()
        if not number:
            if options.value_range is None and pixels.dtype != np.uint8:
                common = yield from common_range_steps(planes, options.linear)
                options = replace(options, value_range=common)
            sparing = Sparing(options)
        try:
            steps = sparing.steps(partial(pipeline.deblur_steps, pixels))
            result = yield from _labelled(within(steps, start, stop), label)
        except Blur2SeqError as error:
            problem = f"Plane {number + 1} is left as it is: {error}"
            problems.append(problem)
            yield PlaneDone("sequence", stop, problem, None, number, pixels, None, {}, problem)
        else:
            yield PlaneDone(
                "sequence",
                stop,
                f"{label} is done",
                None,
                number,
                result.sharp,
                result.trajectory,
                result.metadata,
            )
    return problems


def channels_steps(
    planes: Sequence[Callable[[], Array]], leader: int, options: Options
) -> Steps[list[str]]:
    """Deblur every plane with the motion estimated from one of them.

    For the channels of one exposure: they moved together, and the motion shows best where
    there is most to see. Each has its own range of values, unless `options` say which. Parameters,
    events and result are those of `stack_steps`; `leader` is the number of the plane that the
    motion is estimated from, the first to be ready.
    """
    first = planes[leader]()
    share = 0.6 if len(planes) > 1 else 1.0
    label = f"channel {leader + 1}, which tells the motion"
    sparing = Sparing(options)
    steps = sparing.steps(partial(pipeline.deblur_steps, first))
    result = yield from _labelled(within(steps, 0.0, share), label)
    yield PlaneDone(
        "sequence",
        share,
        f"{label}, is done",
        None,
        leader,
        result.sharp,
        result.trajectory,
        result.metadata,
    )
    problems = []
    others = [number for number in range(len(planes)) if number != leader]
    for i, number in enumerate(others):
        start, stop = (share + (1 - share) * (i + k) / len(others) for k in (0, 1))
        pixels = planes[number]()
        label = f"channel {number + 1}"
        try:
            restored = sparing.steps(partial(restored_steps, pixels, result.trajectory))
            sharp = yield from _labelled(within(restored, start, stop), label)
            problem = ""
        except Blur2SeqError as error:
            sharp, problem = pixels, f"Channel {number + 1} is left as it is: {error}"
            problems.append(problem)
        yield PlaneDone(
            "sequence",
            stop,
            problem or f"{label} is done",
            None,
            number,
            sharp,
            result.trajectory,
            result.metadata,
            problem,
        )
    return problems


def restored_steps(image: Array, trajectory: Trajectory, options: Options) -> Steps[Array]:
    """Restore a picture with a trajectory estimated elsewhere; returns it like the input."""
    working, form = to_working(image, options.linear, options.value_range)
    yield Progress("restore", 0.0, "Restoring with a known motion")

    import torch

    from .restoration import load_prior, noise_of, restore_estimated_steps

    device = resolve(options.device)

    def work() -> Steps[Array]:
        prior, _ = load_prior(options.prior, device, options.tile)
        tensor = torch.from_numpy(working).to(device)
        noise = noise_of(tensor, options.noise, options.noise_model)
        sharp = yield from restore_estimated_steps(
            tensor, trajectory, prior, noise=noise, bounds=form.bounds
        )
        return form.encode(sharp.cpu().numpy())

    # As a decorator, unlike as a context, it is off while the generator waits for its caller.
    return (yield from torch.no_grad()(work)())


def stack_frames(
    sharp: Array,
    trajectories: Mapping[tuple[int | None, ...], Trajectory],
    shown: Sequence[int],
    *,
    linear: bool = False,
) -> DaskArray:
    """The frames of every plane of a stack, each computed when it is looked at.

    Parameters
    ----------
    sharp : ndarray
        The sharp planes, two axes of rows and columns among any others, colours last. It is not
        copied: planes may be filled in later.
    trajectories : mapping
        Motion of the planes by their index, None along rows and columns; all of as many poses.
        A plane without one, still to come or left as it is, has equal frames.
    shown : sequence of int
        Axes of rows and columns.
    linear : bool
        As for `deblur`.

    Returns
    -------
    dask.array.Array
        Shape (T, *shape of `sharp`), one chunk a frame.
    """
    import uuid

    import dask.array

    axes = len(next(iter(trajectories)))
    hidden = [axis for axis in range(axes) if axis not in shown]

    def frame(block_id: tuple[int, ...]) -> Array:
        pose, place = block_id[0], block_id[1:]
        index = tuple(None if a in shown else place[a] for a in range(axes))
        plane = sharp[tuple(slice(None) if i is None else i for i in index)]
        moved = plane
        if index in trajectories:
            with suppress(Blur2SeqError):  # a constant plane looks the same from everywhere
                working, form = to_working(plane, linear)
                moved = pipeline.FrameSequence(working, trajectories[index], form)[pose]
        return np.expand_dims(moved, (0, *(axis + 1 for axis in hidden)))

    poses = max(map(len, trajectories.values()))
    chunks = [(1,) * n if axis in hidden else (n,) for axis, n in enumerate(sharp.shape)]
    return dask.array.map_blocks(
        frame,
        chunks=((1,) * poses, *chunks),
        dtype=sharp.dtype,
        meta=np.empty((0,) * (sharp.ndim + 1), sharp.dtype),
        # Each another one: napari keeps what it has computed by name.
        name=f"frames-{uuid.uuid4()}",
    )


def _labelled(steps: Steps[Any], label: str) -> Steps[Any]:
    """Say which plane the events are about; their previews, of one plane, are left out."""
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            return end.value
        message = f"{label}: {event.message}"
        yield replace(event, message=message[0].upper() + message[1:], preview=None)
