"""A trajectory edited by hand: the path of one image point is moved, and the camera follows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .trajectory import Trajectory

# Neighbours that follow a pose, to either side, as a share of all poses.
_REACH = 1 / 6
# Newton's steps; three are enough for angles of a hand's shake.
_STEPS = 6
_TINY = 1e-6  # rad


def dragged(path: ArrayLike, poses: Sequence[int], by: ArrayLike) -> NDArray[np.float64]:
    """A path some poses of which are moved; their neighbours in time follow a bit.

    Parameters
    ----------
    path : array_like
        Places in px, shape (T, 2).
    poses : sequence of int
        Those that are moved, by all of it.
    by : array_like
        Px, shape (2,).

    Returns
    -------
    ndarray
        Shape (T, 2); moved by a raised cosine of the distance in time to the nearest of `poses`.
    """
    places = np.asarray(path, dtype=np.float64)
    apart = np.abs(np.arange(len(places))[:, None] - np.asarray(poses)).min(axis=1)
    reach = max(1.0, _REACH * len(places)) + 1
    weight = 0.5 + 0.5 * np.cos(np.pi * np.minimum(apart / reach, 1.0))
    moved: NDArray[np.float64] = places + weight[:, None] * np.asarray(by, dtype=np.float64)
    return moved


def along(trajectory: Trajectory, point: ArrayLike, path: ArrayLike) -> Trajectory:
    """The trajectory that takes an image point along a path by other pitch and yaw.

    Parameters
    ----------
    trajectory : Trajectory
        Its roll is kept.
    point : array_like
        ``(x, y)`` in px, shape (2,).
    path : array_like
        Displacements of the point in px at each pose, shape (T, 2), as `Trajectory.paths`.
    """
    wanted = np.asarray(path, dtype=np.float64)
    at = np.asarray(point, dtype=np.float64)[None]
    rotations = trajectory.rotations.copy()

    def displaced(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return Trajectory.from_camera(values, trajectory.camera).paths(at)[:, 0]

    for _ in range(_STEPS):
        now = displaced(rotations)
        # Columns: what a little pitch and a little yaw do at each pose.
        slopes = [(displaced(rotations + _TINY * np.eye(3)[axis]) - now) / _TINY for axis in (0, 1)]
        jacobian = np.stack(slopes, axis=-1)
        rotations[:, :2] += np.linalg.solve(jacobian, (wanted - now)[..., None])[..., 0]
    return Trajectory.from_camera(rotations, trajectory.camera, trajectory.times)
