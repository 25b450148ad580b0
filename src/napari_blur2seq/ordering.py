"""Poses in the order of time: the blur does not tell it, smooth motion does."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def shortest_path(points: ArrayLike, starts: int | None = None) -> NDArray[np.intp]:
    """Order of a short open path through all points.

    From a point to the nearest one left, and so on, begun at several points; each of these paths is
    then improved by turning parts of it round (2-opt) as long as that makes it shorter, and the
    shortest is taken.

    Parameters
    ----------
    points : array_like
        Shape (N, D).
    starts : int, optional
        Number of points to begin at; all by default.

    Returns
    -------
    ndarray
        A permutation of N indices; its reverse is as good.
    """
    positions = np.asarray(points, dtype=np.float64)
    distance = np.linalg.norm(positions[:, None] - positions[None, :], axis=-1)
    count = len(positions) if starts is None else min(starts, len(positions))
    first = np.linspace(0, len(positions) - 1, count).round().astype(int)
    paths = [_turned(distance, _nearest(distance, start)) for start in first]
    return min(paths, key=lambda path: distance[path[:-1], path[1:]].sum())


def _nearest(distance: NDArray[np.float64], start: int) -> NDArray[np.intp]:
    path = np.full(len(distance), start, dtype=np.intp)
    left = np.ones(len(distance), bool)
    for i in range(1, len(path)):
        left[path[i - 1]] = False
        path[i] = np.where(left, distance[path[i - 1]], np.inf).argmin()
    return path


def _turned(distance: NDArray[np.float64], path: NDArray[np.intp]) -> NDArray[np.intp]:
    """2-opt: while there is a part whose turning round shortens the path, turn the best one."""
    count = len(path)
    # One more point, at no distance from any other, before and after the path.
    linked = np.pad(distance, (0, 1))
    least = 1e-9 * distance.max()
    while True:
        ends = np.concatenate([[count], path, [count]])
        before, inner, after = ends[:-2], ends[1:-1], ends[2:]
        # Turning path[i..j] links before[i] with path[j], and path[i] with after[j].
        change = linked[np.ix_(before, inner)] + linked[np.ix_(inner, after)]
        change -= linked[before, inner][:, None] + linked[inner, after][None, :]
        change = np.triu(change)
        i, j = np.unravel_index(change.argmin(), change.shape)
        if change[i, j] >= -least:
            return path
        path[i : j + 1] = path[i : j + 1][::-1].copy()
