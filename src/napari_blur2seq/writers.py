"""Layers saved as files: what napari calls from its dialog, and the docks from theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import files, preferences
from .errors import ImageError, TrajectoryError
from .trajectory import Trajectory
from .units import seconds

# Lengths of layers, as napari spells them, that OME knows under another name.
_OME_LENGTHS = {"nanometer": "nm", "micrometer": "µm", "millimeter": "mm", "meter": "m"}


def write_sequence(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save an image layer that is a sequence as OME-TIFF, MP4 or GIF, by the name's ending.

    Parameters
    ----------
    path : str
        Ends with ``.ome.tif``, ``.ome.tiff``, ``.mp4`` or ``.gif``.
    data : array_like
        (T, H, W) or with colours (T, H, W, C); axes of length 1 may come between. In
        memory, or lazy: frames are asked for one at a time.
    attributes : dict
        Of the layer, as napari gives them: scale and units become the pixel size and the
        time step of OME-TIFF, contrast limits the black and white of videos.

    Returns
    -------
    list of str
        The file written.

    Raises
    ------
    ImageError
        If the layer is no sequence, or the ending unknown.
    """
    suffix = files.split_name(path)[1].lower()
    if attributes.get("multiscale", False):
        data = data[0]
    colours = 1 if attributes.get("rgb", False) else 0
    shape = tuple(data.shape)
    frame_axes = len(shape) - 2 - colours
    if frame_axes < 1 or any(n != 1 for n in shape[1:frame_axes]):
        raise ImageError(
            f"A layer of shape {shape} is no sequence of pictures; choose one with a single "
            "axis of time before its rows and columns. Of a stack, Export in the trajectory view "
            "saves the frames of the plane shown."
        )
    between = (slice(None), *(0,) * (frame_axes - 1))
    frames = _Frames(data[between])
    if suffix in (".ome.tif", ".ome.tiff"):
        metadata = {"ome": _pixel_size(attributes, frame_axes)}
        interval = _time_step(attributes)
        files.write_sequence_tiff(path, frames, interval=interval, metadata=metadata)
    elif suffix in (".mp4", ".gif"):
        write = files.write_sequence_mp4 if suffix == ".mp4" else files.write_sequence_gif
        limits = attributes.get("contrast_limits")
        black_and_white = None if colours or limits is None else (limits[0], limits[1])
        write(path, frames, fps=preferences.read().frames_per_second, limits=black_and_white)
    else:
        raise ImageError(f"Sequences are saved as .ome.tif, .mp4 or .gif, not as {suffix}.")
    return [path]


def write_trajectory(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save the trajectory that a tracks layer of ours remembers, as CSV.

    Raises
    ------
    TrajectoryError
        If the layer is not one of ours.
    """
    kept = attributes.get("metadata", {}).get("blur2seq", {})
    if "planes" in kept:
        raise TrajectoryError(
            "These tracks hold a motion for each plane; save that of the plane shown with Export "
            "in the trajectory view."
        )
    if "trajectory_csv" not in kept:
        raise TrajectoryError(
            "These tracks are no camera trajectory; choose a layer made by Blur2seq."
        )
    Trajectory.from_csv(kept["trajectory_csv"]).save(path)
    return [path]


class _Frames(Sequence[NDArray[Any]]):
    """A sequence that makes arrays of what it is asked for, one frame at a time."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: Any) -> Any:
        return np.asarray(self._data[range(len(self))[index]])


def _pixel_size(attributes: dict[str, Any], frame_axes: int) -> dict[str, Any]:
    """OME's pixel size, where rows and columns have a unit of length."""
    units = [str(unit) for unit in attributes.get("units", ())]
    scale = attributes.get("scale")
    size: dict[str, Any] = {}
    if scale is None:
        return size
    for axis, name in enumerate("YX", start=frame_axes):
        if axis < len(units) and units[axis] in _OME_LENGTHS:
            size[f"PhysicalSize{name}"] = float(abs(scale[axis]))
            size[f"PhysicalSize{name}Unit"] = _OME_LENGTHS[units[axis]]
    return size


def _time_step(attributes: dict[str, Any]) -> float | None:
    """Seconds from frame to frame: by the layer's unit, else by its trajectory's times."""
    units = [str(unit) for unit in attributes.get("units", ())]
    step = seconds(units[0]) if units else None
    if step is not None:
        return float(attributes["scale"][0]) * step
    kept = attributes.get("metadata", {}).get("blur2seq", {})
    if kept.get("trajectory_csv"):
        trajectory = Trajectory.from_csv(kept["trajectory_csv"])
        if trajectory.timed:
            return float(np.diff(trajectory.times).mean())
    return None
