"""Where trajectories come from: simulated hand tremor, gyroscope recordings and files.

The former two are angular rates of the camera over time, integrated to rotations by one
method, `GyroscopeLog.trajectory`.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .camera import Camera
from .errors import OptionError, TrajectoryError
from .trajectory import TRAJECTORY_MAGIC, Trajectory

# What is taken of a long recording when nobody says which part, seconds.
LONGEST_EXPOSURE = 1.0
# Longest hole in a recording that interpolation may bridge, seconds.
MAX_GAP = 0.05

# Hand tremor: drift has equal power in every octave of this band (Hz), and is about
# as strong as the physiological tremor around 10 Hz.
_DRIFT_BAND = (0.1, 3.0)
_SIMULATION_STEP = 1e-3


@dataclass(frozen=True, eq=False)
class GyroscopeLog:
    """Angular rates of a camera over time.

    Parameters
    ----------
    times : array_like
        Seconds, increasing, shape (N,), N >= 2.
    rates : array_like
        Angular velocity of the camera about its own axes in rad/s, shape (N, 3): x to
        the right of the picture, y down, z into the scene.

    Raises
    ------
    TrajectoryError
        If the arrays have other shapes, hold NaN or infinity, or time does not increase.
    """

    times: NDArray[np.float64]
    rates: NDArray[np.float64]

    def __post_init__(self) -> None:
        try:
            times = np.array(self.times, dtype=np.float64)
            rates = np.array(self.rates, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise TrajectoryError("The gyroscope's times and rates must be numbers.") from error
        if times.ndim != 1 or len(times) < 2 or rates.shape != (len(times), 3):
            raise TrajectoryError(
                "A gyroscope recording needs at least two times (N,) and as many rates (N, 3), "
                f"not {times.shape} and {rates.shape}."
            )
        if not (np.isfinite(times).all() and np.isfinite(rates).all()):
            raise TrajectoryError(
                "The gyroscope recording contains NaN or infinite values; remove those lines."
            )
        if np.any(np.diff(times) <= 0):
            raise TrajectoryError("The gyroscope's times must increase; sort the recording.")
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "rates", rates)

    @classmethod
    def load(cls, path: str | os.PathLike[str], axes: ArrayLike | None = None) -> GyroscopeLog:
        """Read a recording; see `load_gyroscope`.

        `axes`, shape (3, 3), takes the sensor's axes to the camera's: the back camera
        of a phone held upright has ``numpy.diag([1, -1, -1])``. By default they are
        the same.
        """
        times, rates = load_gyroscope(path)
        if axes is not None:
            rates = rates @ np.asarray(axes, dtype=np.float64).T
        return cls(times, rates)

    def trajectory(
        self,
        image_shape: tuple[int, ...],
        *,
        start: float,
        exposure: float,
        focal_length: float | None = None,
        n_poses: int = 25,
        extent: float | None = None,
    ) -> Trajectory:
        """Rotations of one exposure, centred, at equal steps of time.

        The rates are linear between two samples, and the rotations of all steps are
        composed, so nothing is lost at large angles. When the camera turns one way the
        picture turns the other: the pose at each time is the inverse of the camera's.

        Parameters
        ----------
        image_shape : tuple of int
            Begins with (height, width).
        start, exposure : float
            Seconds, in the time of the recording.
        focal_length : float, optional
            Pixels; the longer side by default.
        n_poses : int
            At least 1.
        extent : float, optional
            Scale all angles so that `Trajectory.extent` is this many pixels.

        Raises
        ------
        TrajectoryError
            If the exposure leaves the recording, or meets a gap of more than 50 ms.
        OptionError
            If the exposure, number of poses or extent is not positive.
        """
        from scipy.spatial.transform import Rotation

        _positive("exposure", exposure, "s")
        if n_poses < 1:
            raise OptionError(f"A trajectory needs at least one pose, not {n_poses}.")
        stop = start + exposure
        slack = 1e-9 * max(1.0, abs(start), abs(stop))  # so that rounding excludes neither end
        if not (start >= self.times[0] - slack and stop <= self.times[-1] + slack):
            raise TrajectoryError(
                f"The exposure from {start:g} to {stop:g} s is not within the recording, "
                f"{self.times[0]:g} to {self.times[-1]:g} s; choose another start."
            )
        for left, right in self._gaps():
            if left < stop and right > start:
                raise TrajectoryError(
                    f"The recording has a gap from {left:g} to {right:g} s, within the exposure; "
                    "choose another start."
                )
        if n_poses == 1:
            moments = np.array([(start + stop) / 2])
        else:
            moments = np.linspace(start, stop, n_poses)
        inside = self.times[(self.times > moments[0]) & (self.times < moments[-1])]
        knots = np.union1d(moments, inside)
        middles = (knots[1:] + knots[:-1]) / 2
        rates = np.stack([np.interp(middles, self.times, r) for r in self.rates.T], axis=1)
        poses = [Rotation.identity()]
        for step in Rotation.from_rotvec(-rates * np.diff(knots)[:, None]) if len(rates) else ():
            poses.append(step * poses[-1])
        chosen = np.searchsorted(knots, moments)
        rotations = Rotation.concatenate(poses).as_rotvec()[chosen]
        trajectory = Trajectory.from_camera(
            rotations, Camera.for_image(_size(image_shape), focal_length), moments - start
        ).centered()
        return trajectory if extent is None else with_extent(trajectory, extent)

    def random_trajectory(
        self,
        generator: np.random.Generator,
        image_shape: tuple[int, ...],
        *,
        exposure: float,
        focal_length: float | None = None,
        n_poses: int = 25,
        extent: float | None = None,
    ) -> Trajectory:
        """Rotations of an exposure that starts anywhere but across a gap; see `trajectory`."""
        _positive("exposure", exposure, "s")
        starts, stops = self.runs().T
        room = np.maximum(stops - starts - exposure, 0)
        if room.sum() == 0:
            raise TrajectoryError(
                f"The recording has no {exposure:g} s without a gap; choose a shorter exposure."
            )
        run = generator.choice(len(room), p=room / room.sum())
        return self.trajectory(
            image_shape,
            start=float(starts[run] + generator.uniform(0, room[run])),
            exposure=exposure,
            focal_length=focal_length,
            n_poses=n_poses,
            extent=extent,
        )

    def runs(self) -> NDArray[np.float64]:
        """Begin and end in seconds of each part of the recording without a gap, shape (R, 2)."""
        return np.reshape([self.times[0], *np.ravel(self._gaps()), self.times[-1]], (-1, 2))

    def _gaps(self) -> NDArray[np.float64]:
        """Begin and end of each hole in the recording, shape (G, 2)."""
        holes = np.flatnonzero(np.diff(self.times) > MAX_GAP)
        return np.stack([self.times[holes], self.times[holes + 1]], axis=1)


def simulate_tremor(
    image_shape: tuple[int, ...],
    *,
    exposure: float = 0.1,
    amplitude: float = 0.15,
    frequency: float = 10.0,
    bandwidth: float = 4.0,
    tremor_share: float = 0.3,
    roll_ratio: float = 0.5,
    focal_length: float | None = None,
    n_poses: int = 25,
    extent: float | None = None,
    seed: int = 0,
) -> Trajectory:
    """Rotations of a hand-held camera during one exposure.

    The angular velocity is a stationary Gaussian process: slow drift of 0.1 to 3 Hz
    with equal power in every octave, plus physiological tremor in a band around 10 Hz.

    Parameters
    ----------
    image_shape : tuple of int
        Begins with (height, width).
    exposure : float
        Seconds.
    amplitude : float
        Root mean square of the angular velocity about each of x and y, rad/s: 0.02 for
        a camera held with care, 0.5 for one shaken on purpose.
    frequency, bandwidth : float
        Centre and width of the tremor's band, Hz.
    tremor_share : float
        Share of the tremor in the mean squared velocity, in [0, 1]; the rest is drift.
    roll_ratio : float
        Velocity about the optical axis relative to that about x and y.
    focal_length : float, optional
        Pixels; the longer side by default.
    n_poses : int
        Poses, at equal steps of time.
    extent : float, optional
        Scale all angles so that `Trajectory.extent` is this many pixels.
    seed : int
        The same seed gives the same motion, whatever the number of poses.

    Returns
    -------
    Trajectory
        Centred.

    Raises
    ------
    OptionError
        If a parameter is outside its range.

    Examples
    --------
    >>> from napari_blur2seq.shake import simulate_tremor
    >>> round(simulate_tremor((600, 800), extent=12.0, seed=1).extent, 6)
    12.0
    """
    _positive("exposure", exposure, "s")
    log = simulate_gyroscope(
        exposure,
        amplitude=amplitude,
        frequency=frequency,
        bandwidth=bandwidth,
        tremor_share=tremor_share,
        roll_ratio=roll_ratio,
        seed=seed,
    )
    return log.trajectory(
        image_shape,
        start=0.0,
        exposure=exposure,
        focal_length=focal_length,
        n_poses=n_poses,
        extent=extent,
    )


def simulate_gyroscope(
    duration: float,
    *,
    amplitude: float = 0.15,
    frequency: float = 10.0,
    bandwidth: float = 4.0,
    tremor_share: float = 0.3,
    roll_ratio: float = 0.5,
    seed: int = 0,
) -> GyroscopeLog:
    """What a gyroscope would record of a hand-held camera for `duration` seconds.

    The process, the other parameters and the errors are those of `simulate_tremor`.
    """
    _positive("duration", duration, "s")
    _positive("amplitude", amplitude, "rad/s", or_zero=True)
    _positive("frequency", frequency, "Hz")
    _positive("bandwidth", bandwidth, "Hz", or_zero=True)
    _positive("roll ratio", roll_ratio, "", or_zero=True)
    if bandwidth >= 2 * frequency:
        raise OptionError(f"The bandwidth must be under {2 * frequency:g} Hz, not {bandwidth:g}.")
    if not 0 <= tremor_share <= 1:
        raise OptionError(f"The tremor's share must be in 0 to 1, not {tremor_share:g}.")
    generator = np.random.default_rng(seed)
    times = np.linspace(0, duration, 2 + math.ceil(duration / _SIMULATION_STEP))
    drift = _gaussian_process(generator, times, np.geomspace(*_DRIFT_BAND, 24))
    band = np.linspace(frequency - bandwidth / 2, frequency + bandwidth / 2, 24)
    tremor = _gaussian_process(generator, times, band)
    rates = math.sqrt(1 - tremor_share) * drift + math.sqrt(tremor_share) * tremor
    return GyroscopeLog(times, rates * amplitude * np.array([1.0, 1.0, roll_ratio]))


def from_gyroscope(
    times: ArrayLike,
    rates: ArrayLike,
    image_shape: tuple[int, ...],
    *,
    start: float,
    exposure: float,
    focal_length: float | None = None,
    n_poses: int = 25,
    extent: float | None = None,
) -> Trajectory:
    """Rotations of one exposure from a gyroscope recording.

    `times` in seconds, shape (N,), and `rates` in rad/s, shape (N, 3), are those of
    `GyroscopeLog`, the other parameters and errors those of `GyroscopeLog.trajectory`.
    """
    log = GyroscopeLog(times, rates)  # type: ignore[arg-type]
    return log.trajectory(
        image_shape,
        start=start,
        exposure=exposure,
        focal_length=focal_length,
        n_poses=n_poses,
        extent=extent,
    )


def is_recording(path: str | os.PathLike[str]) -> bool:
    """Whether a file looks like a gyroscope recording rather than a trajectory.

    Both may have four columns; what `Trajectory.save` writes begins with a comment that
    says so, the trajectories of Blur2seq's authors have six.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            lines = [line.strip() for _, line in zip(range(20), file, strict=False)]
    except OSError:
        return False
    if lines and lines[0].startswith(TRAJECTORY_MAGIC):
        return False
    rows = [line for line in lines if re.match(r"[-+.\d]", line)]
    return bool(rows) and all(len(re.split(r"[\s,;]+", row.strip(" \t,;"))) == 4 for row in rows)


def load_motion(
    path: str | os.PathLike[str],
    image_shape: tuple[int, ...],
    *,
    focal_length: float | None = None,
    n_poses: int = 25,
    start: float = 0.0,
    exposure: float | None = None,
    axes: ArrayLike | None = None,
) -> Trajectory:
    """Trajectory from any file that holds one.

    Parameters
    ----------
    path : path
        Ours (`Trajectory.save`), the text of Blur2seq's authors, or a gyroscope recording.
    image_shape : tuple of int
        Begins with (height, width); for files that do not state it.
    focal_length : float, optional
        Pixels; for files that do not state it, the longer side by default.
    n_poses, start, exposure, axes
        Of a gyroscope recording: poses, the part of it in seconds (by default all up to
        `LONGEST_EXPOSURE`), and the sensor's axes as for `GyroscopeLog.load`.

    Raises
    ------
    TrajectoryError
        If the file is missing or holds something else.
    """
    if not is_recording(path):
        return Trajectory.load(path, focal_length=focal_length, image_shape=_size(image_shape))
    log = GyroscopeLog.load(path, axes)
    if exposure is None:
        exposure = min(float(log.times[-1]) - start, LONGEST_EXPOSURE)
    return log.trajectory(
        image_shape, start=start, exposure=exposure, focal_length=focal_length, n_poses=n_poses
    )


def load_gyroscope(
    path: str | os.PathLike[str],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read a gyroscope recording from text.

    Parameters
    ----------
    path : path
        Lines of time and angular rates about x, y and z in rad/s, apart by white space,
        commas or semicolons. Times are in seconds or nanoseconds, told by their steps.
        Lines that begin with ``#`` and one line of column names are left out.

    Returns
    -------
    times : ndarray
        Seconds since the first sample, shape (N,); of equal times the first is kept.
    rates : ndarray
        rad/s, shape (N, 3).

    Raises
    ------
    TrajectoryError
        If the file is missing, is not such a text, or time runs backwards.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TrajectoryError(
            f"{path.name} is not a text file; choose a gyroscope recording."
        ) from error
    except OSError as error:
        raise TrajectoryError(f"{path} cannot be read ({error.strerror}).") from error
    rows: list[list[float]] = []
    titled = False
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            row = [float(value) for value in re.split(r"[\s,;]+", line.strip(" \t,;"))]
        except ValueError as error:
            if not rows and not titled:
                titled = True
                continue
            raise TrajectoryError(
                f"Line {number} of {path.name} is not a list of numbers; "
                "choose a gyroscope recording."
            ) from error
        if len(row) != 4:
            raise TrajectoryError(
                f"Line {number} of {path.name} has {len(row)} numbers; a gyroscope recording "
                "has 4: time and the rates about x, y, z."
            )
        rows.append(row)
    if len(rows) < 2:
        raise TrajectoryError(f"{path.name} holds no recording; it needs at least two samples.")
    table = np.array(rows)
    if not np.isfinite(table).all():
        raise TrajectoryError(f"{path.name} contains NaN or infinite values; remove those lines.")
    times = table[:, 0] - table[0, 0]
    steps = np.diff(times)
    if np.any(steps < 0):
        raise TrajectoryError(f"The times of {path.name} run backwards; sort the recording.")
    keep = np.r_[True, steps > 0]
    if keep.sum() < 2:
        raise TrajectoryError(f"All times of {path.name} are equal; choose another recording.")
    times = times[keep]
    step = float(np.median(np.diff(times)))
    if step >= 1e4:
        times = times * 1e-9
    elif step > 1:
        raise TrajectoryError(
            f"The times of {path.name} are {step:g} apart: neither seconds nor nanoseconds; "
            "convert them."
        )
    return times, table[keep, 1:]


def with_extent(trajectory: Trajectory, extent: float) -> Trajectory:
    """The same motion scaled so that `Trajectory.extent` is `extent` pixels.

    Raises
    ------
    OptionError
        If the extent is not positive.
    TrajectoryError
        If there is no motion to scale, or no such scale.
    """
    _positive("extent", extent, "px")
    if trajectory.extent == 0:
        raise TrajectoryError("A camera that does not move cannot be scaled to an extent.")
    factor = 1.0
    for _ in range(50):  # extent is all but linear in the angles
        ratio = extent / trajectory.scaled(factor).extent
        factor *= ratio
        if abs(ratio - 1) < 1e-12:
            break
    result = trajectory.scaled(factor)
    if not abs(result.extent / extent - 1) < 1e-6:
        raise TrajectoryError(
            f"An extent of {extent:g} px is too large for this motion and focal length."
        )
    return result


def _gaussian_process(
    generator: np.random.Generator, times: NDArray[np.float64], frequencies: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Unit variance about three axes, shape (N, 3): equal power at each of the frequencies."""
    # Every frequency is moved a little so that the sum has no common period.
    frequencies = frequencies * generator.uniform(0.97, 1.03, len(frequencies))
    cosines, sines = generator.standard_normal((2, len(frequencies), 3)) / math.sqrt(
        len(frequencies)
    )
    phases = 2 * math.pi * times[:, None] * frequencies
    result: NDArray[np.float64] = np.cos(phases) @ cosines + np.sin(phases) @ sines
    return result


def _size(image_shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = (int(side) for side in image_shape[:2])
    return height, width


def _positive(name: str, value: float, unit: str, *, or_zero: bool = False) -> None:
    if not (math.isfinite(value) and (value > 0 or (or_zero and value == 0))):
        kind = "zero or positive" if or_zero else "positive"
        raise OptionError(f"The {name} must be {kind}, not {value:g} {unit}".rstrip() + ".")
