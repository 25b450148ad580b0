"""Local kernels and paths on a grid."""

from __future__ import annotations

import numpy as np

from napari_blur2seq.kernel_field import (
    fitting_magnification,
    grid_points,
    kernel_picture,
    path_segments,
)
from napari_blur2seq.motion_blur import local_kernels
from napari_blur2seq.shake import simulate_tremor

SHAPE = (60, 90)
MOTION = simulate_tremor(SHAPE, extent=8.0, n_poses=9, seed=1)


def test_the_grid_has_square_cells_within_the_picture() -> None:
    points = grid_points(SHAPE, 6)
    assert len(points) == 6 * 4
    np.testing.assert_allclose(np.unique(np.diff(np.unique(points[:, 0]))), 15)
    np.testing.assert_allclose(points.mean(axis=0), ((90 - 1) / 2, (60 - 1) / 2))
    assert len(grid_points((10, 1000), 5)) == 5


def test_segments_join_to_the_paths() -> None:
    points = grid_points(SHAPE, 3)
    segments, time = path_segments(MOTION, points, magnification=2.0)
    assert segments.shape == (len(points) * 8, 2, 2)
    per_point = segments.reshape(8, len(points), 2, 2)
    np.testing.assert_allclose(per_point[:-1, :, 0] + per_point[:-1, :, 1], per_point[1:, :, 0])
    paths = MOTION.paths(points)
    along = per_point[:, :, 1].sum(0)[:, ::-1]
    np.testing.assert_allclose(along, 2 * (paths[-1] - paths[0]))
    assert (time[0], time[-1]) == (0.0, 1.0)


def test_true_to_scale_the_picture_holds_the_local_kernel() -> None:
    point = [[45.0, 30.0]]
    picture = kernel_picture(MOTION.resample(400), point)
    kernel = local_kernels(MOTION.resample(400), point, size=21)[0]
    window = picture[20:41, 35:56]
    y, x = np.mgrid[-10:11, -10:11]

    def moments(k: np.ndarray) -> np.ndarray:
        k = k / k.sum()
        cy, cx = (k * y).sum(), (k * x).sum()
        return np.array(
            [(k * (y - cy) ** 2).sum(), (k * (x - cx) ** 2).sum(), (k * (y - cy) * (x - cx)).sum()]
        )

    # The line is drawn 0.5 px softer.
    np.testing.assert_allclose(moments(window) - [0.25, 0.25, 0], moments(kernel), atol=0.15)
    assert picture.max() == 1
    assert picture[:10].max() == 0


def test_kernels_drawn_larger_fit_their_cells() -> None:
    factor = fitting_magnification(MOTION, 3)
    assert 2 < factor < 4
    assert fitting_magnification(MOTION, 60) == 1
    points = grid_points(SHAPE, 3)
    segments, _ = path_segments(MOTION, points, factor)
    places = segments[:, 0].reshape(8, len(points), 2)
    assert np.ptp(places, axis=0).max() <= 30
