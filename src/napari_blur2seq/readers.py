"""Files of camera motion opened as tracks: what napari calls for files dropped on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import TrajectoryError
from .layers import LayerData, picture_of_current_viewer, trajectory_layer
from .shake import is_recording, load_motion
from .trajectory import TRAJECTORY_MAGIC, Trajectory

Paths = str | Sequence[str]


def get_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """Reader of trajectories and gyroscope recordings, or None for any other file.

    Parameters
    ----------
    path : str or sequence of str
        As napari gives it; all the files must be ours.
    """
    return read_layers if all(_is_motion(p) for p in _listed(path)) else None


def read_layers(path: Paths) -> list[LayerData]:
    """Each file as a tracks layer, over the picture in the viewer that it fits.

    Of a long gyroscope recording, the first second.

    Raises
    ------
    TrajectoryError
        If a file is damaged, or does not say for which picture it is while none is open.
    """
    layers = []
    for file in map(Path, _listed(path)):
        if _is_ours(file):
            trajectory = Trajectory.load(file)
            picture = picture_of_current_viewer(trajectory.image_shape)
        else:
            picture = picture_of_current_viewer()
            if picture is None:
                raise TrajectoryError(
                    f"{file.name} does not say which picture it belongs to; open the picture first."
                )
            trajectory = load_motion(file, picture.shape)
        layers.append(trajectory_layer(trajectory, file.stem, picture, {"file": file.name}))
    return layers


def _listed(path: Paths) -> list[str]:
    return [os.fspath(path)] if isinstance(path, str | os.PathLike) else list(path)


def _is_motion(path: str) -> bool:
    """By content: other programs use these names for other things."""
    if _is_ours(path) or is_recording(path):
        return True
    words = _first_line(path).split(",")
    return len(words) == 6 and all(_is_number(word) for word in words)


def _is_ours(path: str | os.PathLike[str]) -> bool:
    return _first_line(path).startswith(TRAJECTORY_MAGIC)


def _first_line(path: str | os.PathLike[str]) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline(1000)
    except (OSError, UnicodeDecodeError):
        return ""


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
