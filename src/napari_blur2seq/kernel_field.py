"""The blur at many places of a picture at once: local kernels and paths on a grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .trajectory import Trajectory


def grid_points(image_shape: tuple[int, int], across: int) -> NDArray[np.float64]:
    """Points (x, y) in the middles of square cells, `across` of them along the longer side."""
    height, width = image_shape
    cell = max(height, width) / across
    rows, columns = max(1, round(height / cell)), max(1, round(width / cell))
    y = (np.arange(rows) + 0.5) * height / rows - 0.5
    x = (np.arange(columns) + 0.5) * width / columns - 0.5
    grid = np.meshgrid(x, y)
    return np.stack([axis.ravel() for axis in grid], axis=1)


def fitting_magnification(trajectory: Trajectory, across: int) -> float:
    """The magnification at which the longest path fills most of a cell of the grid, 1 at least."""
    cell = max(trajectory.image_shape) / across
    return max(1.0, 0.8 * cell / max(trajectory.extent, 1e-9))


def path_segments(
    trajectory: Trajectory, points: ArrayLike, magnification: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Line segments of the paths of image points, and their shares of the exposure.

    Parameters
    ----------
    trajectory : Trajectory
    points : array_like
        (x, y) in px, shape (N, 2): the centre of each path.
    magnification : float
        How many times larger the paths are drawn.

    Returns
    -------
    segments : ndarray
        Shape (N (T - 1), 2, 2): start and direction, (y, x).
    time : ndarray
        Shape (N (T - 1),), floats from 0 to 1.
    """
    points = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    paths = trajectory.paths(points)
    places = points + magnification * (paths - paths.mean(axis=0))
    places = places[..., ::-1]
    starts, directions = places[:-1], np.diff(places, axis=0)
    segments = np.stack([starts, directions], axis=2).reshape(-1, 2, 2)
    steps = len(trajectory) - 1
    time = np.repeat(np.arange(steps) / max(steps - 1, 1), len(points))
    return segments, time


def kernel_picture(
    trajectory: Trajectory, points: ArrayLike, magnification: float = 1.0
) -> NDArray[np.float32]:
    """The local kernels drawn at their points, in a picture of the image's shape.

    Each is the density of its path, which is how long the picture stayed there, scaled to a
    maximum of 1. Lines between poses are drawn: a kernel drawn larger has no holes.
    """
    height, width = trajectory.image_shape
    points = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    extent = magnification * trajectory.extent
    dense = trajectory.resample(max(len(trajectory), min(2000, int(8 * extent) + 2)))
    paths = dense.paths(points)
    places = points + magnification * (paths - paths.mean(axis=0))
    picture = np.zeros((height, width))
    low = np.floor(places).astype(int)
    part = places - low
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (part[..., 1] if dy else 1 - part[..., 1]) * (
                part[..., 0] if dx else 1 - part[..., 0]
            )
            y, x = low[..., 1] + dy, low[..., 0] + dx
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            np.add.at(picture, (y[inside], x[inside]), weight[inside])
    # A line as thin as a pixel is lost where the viewer shows the picture small.
    from scipy.ndimage import gaussian_filter

    picture = gaussian_filter(picture, max(0.5, max(height, width) / 1500))
    result: NDArray[np.float32] = (picture / max(float(picture.max()), 1e-12)).astype(np.float32)
    return result
