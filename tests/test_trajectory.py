"""Trajectories: paths, centring, resampling, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from napari_blur2seq.errors import Blur2SeqError, CameraError, TrajectoryError
from napari_blur2seq.trajectory import Trajectory

SHAPE = (90, 120)


def wave(n: int = 25, size: float = 0.02) -> Trajectory:
    t = np.linspace(0, 1, n)
    angles = size * np.stack([np.sin(3 * t), np.cos(4 * t), t**2], axis=1)
    return Trajectory(angles, 150.0, (61.0, 44.0), SHAPE)


any_rotations = arrays(
    np.float64,
    st.tuples(st.integers(1, 30), st.just(3)),
    elements=st.floats(-0.3, 0.3, allow_nan=False),
)


def test_paths_follow_the_homographies() -> None:
    trajectory = wave()
    points = np.array([[0.0, 0.0], [119.0, 89.0], [30.5, 70.25]])
    paths = trajectory.paths(points)
    assert paths.shape == (25, 3, 2)
    for j in (0, 7, 24):
        for n, (x, y) in enumerate(points):
            a, b, c = trajectory.homographies[j] @ [x, y, 1]
            np.testing.assert_allclose(paths[j, n], (a / c - x, b / c - y), atol=1e-12)


def test_zero_trajectory_moves_nothing() -> None:
    trajectory = Trajectory.zero(SHAPE)
    assert len(trajectory) == 25
    assert trajectory.extent == 0
    assert not trajectory.paths(trajectory.grid()).any()


def test_extent_of_a_yaw() -> None:
    angle = 0.05
    trajectory = Trajectory([[0, -angle, 0], [0, angle, 0]], 1000.0, (500.0, 500.0), (1001, 1001))
    # The points at 10 and 90 % move furthest: f (tan(a + b) - tan(a - b)) in x.
    edge = np.arctan(0.4)
    expected = 1000 * (np.tan(edge + angle) - np.tan(edge - angle))
    assert trajectory.extent == pytest.approx(expected, rel=0.01)


@given(any_rotations)
def test_centred_has_zero_mean_and_differs_by_one_rotation(rotations: np.ndarray) -> None:
    trajectory = Trajectory(rotations, 150.0, (60.0, 45.0), SHAPE)
    centred = trajectory.centered()
    assert np.abs(centred.rotations.mean(axis=0)).max() < 1e-6
    before = Rotation.from_rotvec(trajectory.rotations.copy())
    after = Rotation.from_rotvec(centred.rotations.copy())
    constant = (before.inv() * after).as_matrix()
    np.testing.assert_allclose(constant, np.broadcast_to(constant[0], constant.shape), atol=1e-12)


@given(any_rotations)
def test_reversing_twice_gives_it_back(rotations: np.ndarray) -> None:
    trajectory = Trajectory(rotations, 150.0, (60.0, 45.0), SHAPE)
    once = trajectory.reversed()
    np.testing.assert_array_equal(once.rotations, trajectory.rotations[::-1])
    np.testing.assert_array_equal(once.reversed().rotations, trajectory.rotations)
    np.testing.assert_allclose(once.reversed().times, trajectory.times, atol=1e-15)


def test_reversed_keeps_uneven_steps_of_time() -> None:
    trajectory = Trajectory(np.zeros((3, 3)), 150.0, (60.0, 45.0), SHAPE, times=[1.0, 1.5, 4.0])
    np.testing.assert_allclose(trajectory.reversed().times, [1.0, 3.5, 4.0])


def test_resampling_to_the_same_number_gives_the_poses_back() -> None:
    trajectory = wave()
    np.testing.assert_allclose(trajectory.resample(25).rotations, trajectory.rotations, atol=1e-15)


def test_resampling_keeps_the_ends_and_the_curve() -> None:
    fine = wave(401)
    coarse = wave(25).resample(401)
    np.testing.assert_allclose(coarse.rotations[[0, -1]], fine.rotations[[0, -1]], atol=1e-15)
    assert np.abs(coarse.rotations - fine.rotations).max() < 0.01 * 0.02


def test_resampling_does_not_overshoot() -> None:
    steps = np.repeat([[0.0, 0, 0], [0.01, 0.01, 0.01]], 4, axis=0)
    values = Trajectory(steps, 150.0, (60.0, 45.0), SHAPE).resample(200).rotations
    assert values.min() >= 0
    assert values.max() <= 0.01


def test_resampling_one_pose_and_to_one_pose() -> None:
    one = Trajectory([[0.01, 0.02, 0.03]], 150.0, (60.0, 45.0), SHAPE)
    np.testing.assert_array_equal(one.resample(4).rotations, [[0.01, 0.02, 0.03]] * 4)
    assert len(wave().resample(1)) == 1
    with pytest.raises(TrajectoryError):
        wave().resample(0)


def test_rotations_cannot_be_changed_in_place() -> None:
    values = np.zeros((4, 3))
    trajectory = Trajectory(values, 150.0, (60.0, 45.0), SHAPE)
    values[0] = 1
    assert not trajectory.rotations.any()
    with pytest.raises(ValueError, match="read-only"):
        trajectory.rotations[0] = 1


# Files


@settings(max_examples=60)
@given(
    rotations=arrays(
        np.float64,
        st.tuples(st.integers(1, 30), st.just(3)),
        elements=st.floats(-1e3, 1e3, allow_nan=False),
    ),
    focal_length=st.floats(1e-3, 1e6),
    point=st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)),
    shape=st.tuples(st.integers(1, 10**5), st.integers(1, 10**5)),
    start=st.floats(-1e3, 1e3),
    exposure=st.floats(1e-3, 10),
)
def test_csv_round_trip_is_exact(
    tmp_path_factory: pytest.TempPathFactory,
    rotations: np.ndarray,
    focal_length: float,
    point: tuple[float, float],
    shape: tuple[int, int],
    start: float,
    exposure: float,
) -> None:
    times = np.linspace(start, start + exposure, len(rotations))
    trajectory = Trajectory(rotations, focal_length, point, shape, times)
    path = tmp_path_factory.mktemp("csv") / "trajectory.csv"
    trajectory.save(path)
    loaded = Trajectory.load(path)
    assert loaded == trajectory
    assert loaded.to_csv() == trajectory.to_csv()


def test_csv_says_what_it_holds() -> None:
    text = wave().to_csv()
    assert "# focal_length_px: 150.0" in text
    assert "# principal_point_px: 61.0, 44.0" in text
    assert "# image_shape_px: 90, 120" in text
    assert "time_s,pitch_rad,yaw_rad,roll_rad" in text
    assert len([line for line in text.splitlines() if line[0] in "0123456789"]) == 25


def test_format_of_the_authors(tmp_path: Path) -> None:
    poses = np.random.default_rng(0).normal(0, 0.01, (25, 3))
    path = tmp_path / "positions.txt"
    path.write_text("".join("0,0,0," + ",".join(map(repr, p)) + "\n" for p in poses.tolist()))
    trajectory = Trajectory.load(path, image_shape=SHAPE)
    np.testing.assert_array_equal(trajectory.rotations, poses)
    assert trajectory.focal_length == 120
    assert Trajectory.load(path, image_shape=SHAPE, focal_length=640.0).focal_length == 640
    with pytest.raises(TrajectoryError, match="image_shape"):
        Trajectory.load(path)


BAD_FILES = {
    "empty": b"",
    "only a header": b"# focal_length_px: 10\n",
    "text": b"once upon a time\nthere was a camera\n",
    "text among numbers": b"0,0,0,0.1,0.2,0.3\n0,0,0,oops,0,0\n",
    "three columns": b"1,2,3\n4,5,6\n",
    "lines of different lengths": b"0,0,0,0.1,0.2,0.3\n0,0,0,0.1\n",
    "not a number": b"0,0,0,nan,0,0\n",
    "binary": b"\x89PNG\r\n\x1a\n\xff\xfe\x00",
    "damaged shape": b"# image_shape_px: 10\n0,0.1,0.2,0.3\n",
    "damaged focal length": b"# image_shape_px: 9, 9\n# focal_length_px: 1, 2\n0,0.1,0.2,0.3\n",
    "negative focal length": b"# image_shape_px: 9, 9\n# focal_length_px: -1\n0,0.1,0.2,0.3\n",
    "time running backwards": b"1,0,0,0\n0,0,0,0\n",
}


@pytest.mark.parametrize("data", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(data)
    with pytest.raises(Blur2SeqError) as caught:
        Trajectory.load(path, image_shape=SHAPE)
    assert isinstance(caught.value, TrajectoryError | CameraError)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > 20


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TrajectoryError, match="cannot be read"):
        Trajectory.load(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "rotations",
    [
        np.zeros((25, 2)),
        np.zeros(3),
        np.zeros((0, 3)),
        [[0, 0, np.nan]],
        [[0, 0, np.inf]],
        [["a", "b", "c"]],
        [[0, 0, 0], [0, 0]],
    ],
    ids=["two columns", "1-D", "no poses", "nan", "inf", "text", "ragged"],
)
def test_bad_rotations(rotations: object) -> None:
    with pytest.raises(TrajectoryError):
        Trajectory(rotations, 150.0, (60.0, 45.0), SHAPE)  # type: ignore[arg-type]


@pytest.mark.parametrize("times", [[0.0], [0.0, 0.0], [1.0, 0.0], [0.0, np.nan]])
def test_bad_times(times: list[float]) -> None:
    with pytest.raises(TrajectoryError):
        Trajectory(np.zeros((2, 3)), 150.0, (60.0, 45.0), SHAPE, times)
