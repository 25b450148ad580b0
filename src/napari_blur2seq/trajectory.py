"""The camera's rotation during the exposure: ordered poses, their paths in px, their files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .camera import Camera
from .errors import TrajectoryError

# First line of every file `Trajectory.save` writes.
TRAJECTORY_MAGIC = "# napari-blur2seq trajectory, version 1"
_COLUMNS = ["time_s", "pitch_rad", "yaw_rad", "roll_rad"]


class Trajectory:
    """Ordered camera rotations during one exposure.

    Parameters
    ----------
    rotations : array_like
        Rotation vectors (axis times angle), shape (T, 3), radians; the components
        are pitch (about x), yaw (about y) and roll (about the optical axis).
    focal_length : float
        In pixels.
    principal_point : tuple of float
        ``(cx, cy)`` in pixels.
    image_shape : tuple of int
        ``(height, width)`` in pixels.
    times : array_like, optional
        Time of each pose in seconds, increasing, shape (T,); by default the poses
        are spread evenly over one unit of time.

    Raises
    ------
    TrajectoryError
        If the rotations are not a finite (T, 3) array, T >= 1.
    CameraError
        If the intrinsics make no sense.
    """

    def __init__(
        self,
        rotations: ArrayLike,
        focal_length: float,
        principal_point: tuple[float, float],
        image_shape: tuple[int, int],
        times: ArrayLike | None = None,
    ) -> None:
        try:
            values = np.array(rotations, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise TrajectoryError("The rotations must be numbers in a (T, 3) array.") from error
        if values.ndim != 2 or values.shape[1] != 3 or len(values) == 0:
            raise TrajectoryError(
                "The rotations must have shape (T, 3): pitch, yaw, roll in radians; "
                f"not {values.shape}."
            )
        if not np.isfinite(values).all():
            raise TrajectoryError(
                "The rotations contain NaN or infinite values; remove those poses."
            )
        if times is None:
            stamps = np.linspace(0.0, 1.0, len(values)) if len(values) > 1 else np.zeros(1)
        else:
            stamps = np.array(times, dtype=np.float64)
            if stamps.shape != (len(values),) or not np.isfinite(stamps).all():
                raise TrajectoryError("The times must be one finite number for each pose.")
            if np.any(np.diff(stamps) <= 0):
                raise TrajectoryError("The times must increase from pose to pose; sort the poses.")
        values.setflags(write=False)
        stamps.setflags(write=False)
        self.rotations: NDArray[np.float64] = values
        self.times: NDArray[np.float64] = stamps
        self.camera = Camera(focal_length, principal_point, image_shape)

    @classmethod
    def zero(
        cls, image_shape: tuple[int, int], n: int = 25, focal_length: float | None = None
    ) -> Trajectory:
        """A camera that does not move."""
        return cls.from_camera(np.zeros((n, 3)), Camera.for_image(image_shape, focal_length))

    @classmethod
    def from_camera(
        cls, rotations: ArrayLike, camera: Camera, times: ArrayLike | None = None
    ) -> Trajectory:
        """Trajectory of a `Camera`."""
        return cls(
            rotations, camera.focal_length, camera.principal_point, camera.image_shape, times
        )

    @property
    def focal_length(self) -> float:
        """Focal length in px."""
        return self.camera.focal_length

    @property
    def principal_point(self) -> tuple[float, float]:
        """``(cx, cy)`` in px."""
        return self.camera.principal_point

    @property
    def image_shape(self) -> tuple[int, int]:
        """``(height, width)`` in px."""
        return self.camera.image_shape

    @property
    def timed(self) -> bool:
        """Whether the times are seconds; otherwise they are shares of the exposure, 0 to 1."""
        return len(self) > 1 and (self.times[0], self.times[-1]) != (0.0, 1.0)

    def __len__(self) -> int:
        return len(self.rotations)

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        return iter(self.rotations)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Trajectory)
            and self.camera == other.camera
            and np.array_equal(self.rotations, other.rotations)
            and np.array_equal(self.times, other.times)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        height, width = self.image_shape
        return (
            f"<Trajectory: {len(self)} poses, f = {self.focal_length:g} px, "
            f"{width} x {height} px, extent {self.extent:.1f} px>"
        )

    @cached_property
    def homographies(self) -> NDArray[np.float64]:
        """``H_j = K R_j K^-1``, shape (T, 3, 3)."""
        return self.camera.homographies(self.rotations)

    def paths(self, points: ArrayLike) -> NDArray[np.float64]:
        """Displacement of image points at each pose.

        Parameters
        ----------
        points : array_like
            ``(x, y)`` in pixels, shape (N, 2).

        Returns
        -------
        ndarray
            ``H_j x - x`` in pixels, shape (T, N, 2).
        """
        xy = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        homogeneous = np.concatenate([xy, np.ones((len(xy), 1))], axis=1)
        moved = np.einsum("tij,nj->tni", self.homographies, homogeneous)
        displacements: NDArray[np.float64] = moved[..., :2] / moved[..., 2:] - xy
        return displacements

    def grid(self, n: int = 3, margin: float = 0.1) -> NDArray[np.float64]:
        """``n * n`` points spread over the image, shape (n * n, 2), for `paths`."""
        height, width = self.image_shape
        fractions = np.linspace(margin, 1 - margin, n)
        y, x = np.meshgrid(fractions * (height - 1), fractions * (width - 1), indexing="ij")
        return np.stack([x.ravel(), y.ravel()], axis=1)

    @property
    def extent(self) -> float:
        """Largest distance in px between two poses of a path, over a 3x3 grid of points."""
        paths = self.paths(self.grid())
        return float(max(np.ptp(paths, axis=0).max(), _diameter(paths)))

    def centered(self) -> Trajectory:
        """The same motion with zero mean rotation.

        A constant rotation of all poses is the inverse warp of the sharp image and
        cannot be told from one picture.
        """
        from scipy.spatial.transform import Rotation

        poses = Rotation.from_rotvec(self.rotations.copy())
        for _ in range(3):  # the mean rotation vector vanishes to rounding after two steps
            shift = Rotation.from_rotvec(poses.as_rotvec().mean(axis=0))
            poses = poses * shift.inv()
        return Trajectory.from_camera(poses.as_rotvec(), self.camera, self.times)

    def reversed(self) -> Trajectory:
        """The same poses with time running backwards."""
        times = self.times[0] + self.times[-1] - self.times[::-1]
        return Trajectory.from_camera(self.rotations[::-1], self.camera, times)

    def resample(self, n: int) -> Trajectory:
        """`n` poses at equal steps of time along the smooth curve through the poses.

        Monotone cubic interpolation of the rotation vectors: no overshoot at turning
        points. `n` equal to the number of evenly timed poses gives them back.
        """
        if n < 1:
            raise TrajectoryError(f"A trajectory needs at least one pose, not {n}.")
        if len(self) == 1:
            return Trajectory.from_camera(np.repeat(self.rotations, n, axis=0), self.camera)
        from scipy.interpolate import PchipInterpolator

        if n == 1:
            times = np.array([(self.times[0] + self.times[-1]) / 2])
        else:
            times = np.linspace(self.times[0], self.times[-1], n)
        rotations = PchipInterpolator(self.times, self.rotations)(times)
        return Trajectory.from_camera(rotations, self.camera, times)

    def scaled(self, factor: float) -> Trajectory:
        """The same motion with every angle multiplied by `factor`."""
        return Trajectory.from_camera(self.rotations * factor, self.camera, self.times)

    def to_csv(self) -> str:
        """The text that `save` writes: exact, every digit of float64 kept."""
        cx, cy = self.principal_point
        height, width = self.image_shape
        buffer = io.StringIO()
        buffer.write(f"{TRAJECTORY_MAGIC}\n")
        buffer.write(f"# focal_length_px: {self.focal_length!r}\n")
        buffer.write(f"# principal_point_px: {cx!r}, {cy!r}\n")
        buffer.write(f"# image_shape_px: {height}, {width}\n")
        buffer.write("# units: seconds, radians (rotation vector: pitch x, yaw y, roll z)\n")
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for time, pose in zip(self.times.tolist(), self.rotations.tolist(), strict=True):
            writer.writerow([repr(time), *(repr(value) for value in pose)])
        return buffer.getvalue()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trajectory as CSV (whole or not at all)."""
        from .files import write_whole

        write_whole(path, self.to_csv().encode())

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        focal_length: float | None = None,
        image_shape: tuple[int, int] | None = None,
    ) -> Trajectory:
        """Read a trajectory from our CSV or from the 25-pose text format of Blur2seq's authors.

        Parameters
        ----------
        path : path
            A file written by `save`, or lines of ``0,0,0,rx,ry,rz`` (radians).
        focal_length : float, optional
            For files that do not state it; the longer image side by default.
        image_shape : tuple of int, optional
            ``(height, width)``; needed for files that do not state it.

        Raises
        ------
        TrajectoryError
            If the file is missing, empty, of another shape, or holds anything but numbers.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise TrajectoryError(
                f"{path.name} is not a text file; choose a trajectory CSV."
            ) from error
        except OSError as error:
            raise TrajectoryError(f"{path} cannot be read ({error.strerror}).") from error
        return cls.from_csv(
            text, focal_length=focal_length, image_shape=image_shape, name=path.name
        )

    @classmethod
    def from_csv(
        cls,
        text: str,
        *,
        focal_length: float | None = None,
        image_shape: tuple[int, int] | None = None,
        name: str = "The trajectory",
    ) -> Trajectory:
        """Trajectory of the text of a file; see `load`. `name` begins the errors' sentences."""
        header: dict[str, list[float]] = {}
        rows: list[list[float]] = []
        for number, line in enumerate(text.splitlines(), start=1):
            line = line.strip()
            if not line or line == ",".join(_COLUMNS):
                continue
            if line.startswith("#"):
                key, _, value = line[1:].partition(":")
                if key.strip().endswith("_px"):
                    header[key.strip()] = _numbers(value, name, number)
                continue
            rows.append(_numbers(line, name, number))
        if not rows:
            raise TrajectoryError(f"{name} holds no poses; choose a file with one pose per line.")
        widths = {len(row) for row in rows}
        table = np.array(rows) if len(widths) == 1 else np.empty((0, 0))
        if widths not in ({4}, {6}):
            raise TrajectoryError(
                f"{name} must have 4 columns (time, pitch, yaw, roll) or 6 "
                f"(0, 0, 0, pitch, yaw, roll) in every line; it has {sorted(widths)}."
            )
        try:
            if "image_shape_px" in header:
                height, width = (int(v) for v in header["image_shape_px"])
                image_shape = (height, width)
            if image_shape is None:
                raise TrajectoryError(
                    f"{name} does not say which image it belongs to; "
                    "give image_shape=(height, width)."
                )
            if "focal_length_px" in header:
                (focal_length,) = header["focal_length_px"]
            point = None
            if "principal_point_px" in header:
                cx, cy = header["principal_point_px"]
                point = (cx, cy)
        except (ValueError, TypeError) as error:
            if isinstance(error, TrajectoryError):
                raise
            raise TrajectoryError(
                f"{name} has a damaged header; save the trajectory again."
            ) from error
        camera = Camera.for_image(image_shape, focal_length, point)
        if table.shape[1] == 6:
            return cls.from_camera(table[:, 3:], camera)
        return cls.from_camera(table[:, 1:], camera, table[:, 0])


def _numbers(line: str, name: str, number: int) -> list[float]:
    try:
        return [float(value) for value in line.replace(";", ",").split(",")]
    except ValueError as error:
        raise TrajectoryError(
            f"Line {number} of {name} is not a list of numbers; choose a trajectory CSV."
        ) from error


def _diameter(paths: NDArray[np.float64]) -> float:
    """Largest distance between two displacements at one point; paths is (T, N, 2)."""
    difference = paths[:, None] - paths[None, :]
    return float(np.sqrt(np.square(difference).sum(-1).max()))
