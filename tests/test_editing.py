"""Trajectories edited by hand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_blur2seq.editing import along, dragged
from napari_blur2seq.shake import simulate_tremor

MOTION = simulate_tremor((300, 400), extent=20.0, roll_ratio=0.5, seed=5)
POINT = np.array([350.0, 40.0])


def test_neighbours_of_a_pose_follow_a_bit():
    path = MOTION.paths([POINT])[:, 0]
    moved = dragged(path, [12], [3.0, -4.0]) - path
    np.testing.assert_allclose(moved[12], [3.0, -4.0])
    lengths = np.linalg.norm(moved, axis=1)
    assert (np.diff(lengths[12:18]) < 0).all() and (np.diff(lengths[7:13]) > 0).all()
    assert not lengths[:7].any() and not lengths[18:].any()
    np.testing.assert_allclose(lengths[11], lengths[13])


def test_several_poses_are_moved_alike():
    moved = dragged(np.zeros((9, 2)), [0, 4], [1.0, 0.0])
    np.testing.assert_allclose(moved[[0, 4]], [[1, 0], [1, 0]])
    assert 0 < moved[2, 0] < 1


def test_the_camera_follows_the_path_and_keeps_its_roll():
    path = dragged(MOTION.paths([POINT])[:, 0], [3], [40.0, 25.0])
    followed = along(MOTION, POINT, path)
    np.testing.assert_allclose(followed.paths([POINT])[:, 0], path, atol=1e-6)
    np.testing.assert_array_equal(followed.rotations[:, 2], MOTION.rotations[:, 2])
    assert followed.camera == MOTION.camera
    np.testing.assert_array_equal(followed.times, MOTION.times)


@pytest.mark.parametrize("poses", [1, 2])
def test_shortest_trajectories(poses):
    motion = MOTION.resample(poses)
    path = dragged(motion.paths([POINT])[:, 0], [0], [1.0, 2.0])
    np.testing.assert_allclose(along(motion, POINT, path).paths([POINT])[:, 0], path, atol=1e-6)
