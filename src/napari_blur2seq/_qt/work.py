"""What runs in the thread beside the viewer: no widget and no layer is touched here."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, TypeVar

import numpy as np

from .. import pipeline, preferences
from ..errors import Blur2SeqError
from ..layers import LayerData, Source, result_layers
from ..memory import Sparing, is_about_memory
from ..progress import Progress, Steps, mapped, within

T = TypeVar("T")

PREVIEW_INTERVAL = 0.2
# Seconds after which work that is held up looks whether it is stopped.
_LOOK_AGAIN = 0.1


class WorkError(Exception):
    """Carries a RuntimeError out of a worker thread, as its cause.

    superqt takes a RuntimeError for a deleted worker and never says that the work ended;
    every error of PyTorch is one.
    """


class SettledObjects:
    """What lives when work begins is left out of Python's garbage collections until it ends.

    napari and PyTorch hold half a million objects. To walk through them takes a fifth of a
    second, in which the viewer is stuck, and work and new layers set it off again and again.
    """

    _users = 0

    def __init__(self) -> None:
        self._open = True
        SettledObjects._users += 1
        gc.freeze()

    def renew(self) -> None:
        """Count what has come since, the modules that the work loaded above all, as settled."""
        if self._open:
            gc.freeze()

    def release(self) -> None:
        """Collect as before, when all work has ended."""
        if self._open:
            self._open = False
            SettledObjects._users -= 1
            if not SettledObjects._users:
                gc.unfreeze()


def stoppable(
    steps: Callable[[], Steps[T]], stop: threading.Event, go: threading.Event | None = None
) -> Steps[T | None]:
    """The steps until `stop` is set; the return value is None then.

    Between two of them it waits while `go`, if given, is not set. Unlike the worker's own
    `quit`, `stop` closes the generator in the thread it runs in: PyTorch's modes belong to the
    thread, and the memory is free when the work is reported as finished.
    """
    # Tracks need it, and its import would block the viewer for half a second.
    import pandas  # noqa: F401

    generator = steps()
    try:
        while not stop.is_set():
            if go is not None and not go.wait(_LOOK_AGAIN):
                continue
            try:
                event = next(generator)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            yield event
        return None
    except RuntimeError as error:
        raise WorkError(str(error)) from error
    finally:
        generator.close()


def deblur_work(
    source: Source,
    options: pipeline.Options,
    **more: Any,
) -> Steps[list[LayerData]]:
    """Deblur the plane of a source; the return value is ready to be added as layers.

    `more` are further arguments of `pipeline.deblur_steps`.
    """
    sparing = Sparing(options)
    steps = sparing.steps(lambda chosen: pipeline.deblur_steps(source.pixels(), chosen, **more))
    result = yield from within(fewer_previews(steps), 0.0, 0.9)
    most = preferences.read().sequence_memory * 2**20
    frames = yield from within(sequence_array(result.frames, most), 0.9, 1.0)
    return result_layers(result, source, frames, {"parameters": asdict(sparing.options)})


def fewer_previews(
    steps: Steps[pipeline.Result], clock: Callable[[], float] = time.monotonic
) -> Steps[pipeline.Result]:
    """Take pictures and trajectories that come too soon after another out of the events."""
    last = {"preview": -PREVIEW_INTERVAL, "trajectory": -PREVIEW_INTERVAL}

    def thin_out(event: Progress) -> Progress:
        for name in last:
            if getattr(event, name, None) is not None:
                now = clock()
                if now - last[name] < PREVIEW_INTERVAL:
                    event = replace(event, **{name: None})  # type: ignore[arg-type]
                else:
                    last[name] = now
        return event

    return mapped(steps, thin_out)


def sequence_array(frames: pipeline.FrameSequence, most: int) -> Steps[Any]:
    """The frames as an array in memory or, above `most` bytes, as a lazy dask array."""
    shape, dtype = frames.shape, frames.dtype
    if np.prod(shape, dtype=np.int64) * dtype.itemsize > most:
        import dask.array

        # Without a name, dask would hash every frame to make one.
        return dask.array.from_array(
            frames, chunks=(1, *shape[1:]), name=False, meta=np.empty((0,) * len(shape), dtype)
        )
    array = np.empty(shape, dtype)
    for j, frame in enumerate(frames):
        array[j] = frame
        yield Progress("sequence", (j + 1) / len(frames), f"Frame {j + 1} of {len(frames)}")
    return array


def explain(error: BaseException) -> str:
    """What went wrong and what to do, in a sentence for the user."""
    if isinstance(error, WorkError) and error.__cause__ is not None:
        error = error.__cause__
    text = str(error)
    if isinstance(error, Blur2SeqError):
        return text
    if is_about_memory(error):
        return (
            "There is not enough memory to deblur this picture; choose the CPU as device, close "
            "other programs, or crop the picture."
        )
    if isinstance(error, ImportError | OSError) and "torch" in text.lower():
        return (
            f"PyTorch cannot be loaded ({text}). On Windows, install the Microsoft Visual C++ "
            "Redistributable, or start napari with: "
            'python -c "import torch, napari; napari.Viewer(); napari.run()"'
        )
    return f"Deblurring failed with an unexpected error: {type(error).__name__}: {text}"
