"""What to read off a trajectory: curves of its three angles in units people know."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .trajectory import Trajectory

Unit = Literal["degrees", "px", "µm"]
AXES = ("pitch", "yaw", "roll")
# What the same three are for a microscope's stage.
STAGE_AXES = ("shift y", "shift x", "rotation")

_TINY = 1e-6  # rad: a rotation small enough to be in proportion to its displacement


def axis_curves(
    trajectory: Trajectory, unit: Unit = "degrees", pixel_size: float | None = None
) -> NDArray[np.float64]:
    """Pitch, yaw and roll over time, less their means, shape (T, 3).

    Parameters
    ----------
    trajectory : Trajectory
    unit : str
        ``"degrees"``; or how far the angle alone displaces the corner of the picture farthest
        from the principal point: ``"px"``, or ``"µm"`` with `pixel_size`. Signed: positive
        is the direction of positive angles; for a microscope's stage, the shifts are those of
        the picture, x to the right and y down.
    pixel_size : float, optional
        Micrometres per px.
    """
    rotations = trajectory.rotations - trajectory.rotations.mean(axis=0)
    if unit == "degrees":
        degrees: NDArray[np.float64] = np.rad2deg(rotations)
        return degrees
    shifts = np.stack([_corner_shift(trajectory, rotations, axis) for axis in range(3)], axis=1)
    if trajectory.camera.is_stage:
        shifts[:, 0] *= -1  # a positive pitch moves the picture up
    return shifts * _factor(unit, pixel_size)


def axis_names(trajectory: Trajectory) -> tuple[str, str, str]:
    """What to call the three: rotations of a camera, or the motion of a stage."""
    return STAGE_AXES if trajectory.camera.is_stage else AXES


def summary(
    trajectory: Trajectory, pixel_size: float | None = None, error: float | None = None
) -> str:
    """The motion in a few words, with units.

    Parameters
    ----------
    trajectory : Trajectory
    pixel_size : float, optional
        Of a pixel, µm.
    error : float, optional
        What the error of the trajectory seldom exceeds, px.

    Examples
    --------
    >>> from napari_blur2seq.shake import simulate_tremor
    >>> summary(simulate_tremor((600, 800), extent=12.0))
    'Motion of 12.0 px'
    """

    def physical(px: float) -> str:
        return "" if pixel_size is None else f" ({px * pixel_size:.3g} µm)"

    certain = certainty(error)
    if not trajectory.camera.is_stage:
        return f"Motion of {trajectory.extent:.1f} px{physical(trajectory.extent)}{certain}"
    middle = trajectory.paths([trajectory.principal_point])[:, 0]
    shift = float(np.linalg.norm(np.ptp(middle, axis=0)))
    turn = float(np.rad2deg(np.ptp(trajectory.rotations[:, 2])))
    return f"Shift of {shift:.1f} px{physical(shift)}, rotation of {turn:.2g}°{certain}"


def certainty(error: float | None) -> str:
    """Words on what the error of a trajectory seldom exceeds in px; none where that is unknown."""
    return "" if error is None else f", likely right to {error:.2g} px"


def axis_bands(
    trajectory: Trajectory,
    error: float,
    unit: Unit = "degrees",
    pixel_size: float | None = None,
) -> NDArray[np.float64]:
    """Half widths of the bands of uncertainty about pitch, yaw and roll, shape (3,).

    Each is the angle that alone displaces a 3x3 grid of image points by `error` px (root
    mean square), in the unit of `axis_curves`.
    """
    rotations = _TINY * np.eye(3)
    probe = Trajectory.from_camera(rotations, trajectory.camera)
    paths = probe.paths(probe.grid())
    angles = error * _TINY / np.sqrt(np.square(paths).sum(-1).mean(1))
    bands: NDArray[np.float64]
    if unit == "degrees":
        bands = np.rad2deg(angles)
        return bands
    per_radian = [_corner_shift(trajectory, rotations, axis)[axis] / _TINY for axis in range(3)]
    bands = angles * per_radian * _factor(unit, pixel_size)
    return bands


def clock(trajectory: Trajectory) -> NDArray[np.float64]:
    """Time as a share of the exposure, shape (T,), from 0 to 1."""
    times = trajectory.times
    span = max(float(times[-1] - times[0]), 1e-300)
    shares: NDArray[np.float64] = (times - times[0]) / span
    return shares


def same_direction(trajectory: Trajectory, reference: Trajectory) -> Trajectory:
    """The trajectory, or its reverse where that is nearer to the reference.

    The blur of one picture is the same in both directions of time.
    """
    n = max(len(trajectory), len(reference))
    wanted, own, reverse = (
        axis_curves(t.resample(n)) for t in (reference, trajectory, trajectory.reversed())
    )
    nearer = np.square(reverse - wanted).sum() < np.square(own - wanted).sum()
    return trajectory.reversed() if nearer else trajectory


def _corner_shift(
    trajectory: Trajectory, rotations: NDArray[np.float64], axis: int
) -> NDArray[np.float64]:
    """Displacement in px of the farthest corner by one of the angles alone, shape (T,)."""
    height, width = trajectory.image_shape
    corners = np.array([(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)], float)
    distance = np.square(corners - trajectory.principal_point).sum(1)
    corner = corners[[int(np.argmax(distance))]]

    def shift(angles: NDArray[np.float64]) -> NDArray[np.float64]:
        alone = np.zeros((len(angles), 3))
        alone[:, axis] = angles
        return Trajectory.from_camera(alone, trajectory.camera).paths(corner)[:, 0]

    direction = shift(np.array([_TINY]))[0]
    result: NDArray[np.float64] = shift(rotations[:, axis]) @ (
        direction / max(float(np.linalg.norm(direction)), 1e-300)
    )
    return result


def _factor(unit: Unit, pixel_size: float | None) -> float:
    if unit == "px":
        return 1.0
    if pixel_size is None:
        raise ValueError("Micrometres need a pixel size.")
    return pixel_size
