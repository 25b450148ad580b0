"""Curves of the angles in degrees, px and micrometres."""

from __future__ import annotations

import numpy as np
import pytest

from napari_blur2seq.camera import Camera
from napari_blur2seq.readout import (
    axis_bands,
    axis_curves,
    axis_names,
    clock,
    same_direction,
    summary,
)
from napari_blur2seq.shake import simulate_tremor
from napari_blur2seq.trajectory import Trajectory
from napari_blur2seq.units import micrometres, pixel_size, seconds

SHAPE = (90, 120)


def turning(axis: int, angle: float = 0.01) -> Trajectory:
    rotations = np.zeros((5, 3))
    rotations[:, axis] = np.linspace(-angle, angle, 5)
    return Trajectory(rotations, 120.0, (60.0, 45.0), SHAPE)


def test_degrees_are_centred_angles() -> None:
    trajectory = turning(1)
    curves = axis_curves(trajectory)
    np.testing.assert_allclose(curves[:, 1], np.rad2deg(trajectory.rotations[:, 1]))
    np.testing.assert_array_equal(curves[:, [0, 2]], 0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_px_are_what_the_corner_moves(axis: int) -> None:
    trajectory = turning(axis)
    curves = axis_curves(trajectory, "px")
    moved = trajectory.paths([[0, 0]])[:, 0]
    np.testing.assert_allclose(abs(curves[:, axis]), np.linalg.norm(moved, axis=1), rtol=0.02)
    assert curves[-1, axis] > 0 > curves[0, axis]
    others = [a for a in range(3) if a != axis]
    np.testing.assert_array_equal(curves[:, others], 0)
    np.testing.assert_allclose(axis_curves(trajectory, "µm", 0.5), 0.5 * curves)


def test_bands_displace_the_picture_by_the_error() -> None:
    trajectory = simulate_tremor(SHAPE, extent=8.0)
    degrees = axis_bands(trajectory, 2.0)
    for axis in range(3):
        rotations = np.zeros((1, 3))
        rotations[0, axis] = np.deg2rad(degrees[axis])
        tilted = Trajectory.from_camera(rotations, trajectory.camera)
        shifts = tilted.paths(tilted.grid())
        assert np.sqrt(np.square(shifts).sum(-1).mean()) == pytest.approx(2.0, rel=0.02)
    px = axis_bands(trajectory, 2.0, "px")
    assert np.all(px >= 1.9)  # the corner moves more than the middle
    np.testing.assert_allclose(axis_bands(trajectory, 4.0, "px"), 2 * px)


def test_clock_and_direction() -> None:
    trajectory = simulate_tremor(SHAPE, extent=8.0, n_poses=9, exposure=0.2)
    np.testing.assert_allclose(clock(trajectory), np.linspace(0, 1, 9))
    assert clock(trajectory.resample(1)) == [0]
    assert same_direction(trajectory, trajectory) is trajectory
    turned = same_direction(trajectory.reversed(), trajectory.resample(25))
    np.testing.assert_allclose(turned.rotations, trajectory.rotations)


def test_units() -> None:
    assert micrometres("millimeter") == 1000
    assert micrometres("pixel") is None
    assert seconds("millisecond") == pytest.approx(1e-3)
    assert pixel_size((3, 0.5, 2.0), ("second", "micrometer", "micrometer")) == pytest.approx(1)
    assert pixel_size((1, 1), ("pixel", "pixel")) is None
    with pytest.raises(ValueError, match="pixel size"):
        axis_curves(turning(0), "µm")


def test_a_stage_shifts_and_turns() -> None:
    camera = Camera.for_stage(SHAPE)
    assert camera.is_stage and not Camera.for_image(SHAPE).is_stage
    rotations = np.zeros((5, 3))
    t = np.linspace(-1, 1, 5)
    rotations[:, 0], rotations[:, 1] = -3 * t / camera.focal_length, 4 * t / camera.focal_length
    rotations[:, 2] = np.deg2rad(0.5) * t
    trajectory = Trajectory.from_camera(rotations, camera)
    assert axis_names(trajectory) == ("shift y", "shift x", "rotation")
    curves = axis_curves(trajectory, "px")
    # Down and to the right, everywhere alike.
    np.testing.assert_allclose(curves[:, 0], 3 * t, rtol=0.01)
    np.testing.assert_allclose(curves[:, 1], 4 * t, rtol=0.01)
    shifted = Trajectory.from_camera(rotations * [1, 1, 0], camera).paths(trajectory.grid())
    assert np.ptp(shifted[-1], axis=0).max() < 0.05
    np.testing.assert_allclose(shifted[-1].mean(axis=0), (4, 3), atol=0.02)
    assert summary(trajectory) == "Shift of 10.0 px, rotation of 1°"
    assert summary(trajectory, 0.5) == "Shift of 10.0 px (5 µm), rotation of 1°"
    assert summary(turning(1)).startswith("Motion of 2.")
    assert (
        summary(trajectory, error=0.74)
        == "Shift of 10.0 px, rotation of 1°, likely right to 0.74 px"
    )
