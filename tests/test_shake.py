"""Simulated tremor and gyroscope recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_blur2seq import shake
from napari_blur2seq.errors import Blur2SeqError, OptionError, TrajectoryError
from napari_blur2seq.metrics import path_error
from napari_blur2seq.shake import (
    LONGEST_EXPOSURE,
    GyroscopeLog,
    from_gyroscope,
    is_recording,
    load_gyroscope,
    load_motion,
    simulate_tremor,
)

SHAPE = (600, 800)


def recording(seconds: float = 2.0, rate: float = 200.0, seed: int = 0) -> GyroscopeLog:
    times = np.arange(0, seconds, 1 / rate)
    generator = np.random.default_rng(seed)
    frequencies = generator.uniform(0.5, 12, (3, 6))
    phases = generator.uniform(0, 2 * np.pi, (3, 6))
    waves = np.sin(2 * np.pi * frequencies[None] * times[:, None, None] + phases[None])
    return GyroscopeLog(times, 0.2 * waves.sum(-1))


def spread(a: np.ndarray, b: np.ndarray) -> float:
    """Largest angle between two motions that may differ by one constant rotation (centring)."""
    constant = Rotation.from_rotvec(a.copy()).inv() * Rotation.from_rotvec(b.copy())
    return float((constant * constant[0].inv()).magnitude().max())


# Tremor


def test_tremor_is_centred_smooth_and_timed() -> None:
    trajectory = simulate_tremor(SHAPE, seed=4)
    assert len(trajectory) == 25
    assert trajectory.image_shape == SHAPE
    assert trajectory.focal_length == 800
    np.testing.assert_allclose(trajectory.times, np.linspace(0, 0.1, 25), atol=1e-12)
    assert np.abs(trajectory.rotations.mean(axis=0)).max() < 1e-9
    steps = np.linalg.norm(np.diff(trajectory.rotations, axis=0), axis=1)
    bends = np.linalg.norm(np.diff(trajectory.rotations, n=2, axis=0), axis=1)
    assert bends.max() < 0.5 * steps.max()


def test_tremor_depends_on_the_seed_alone() -> None:
    assert simulate_tremor(SHAPE, seed=1) == simulate_tremor(SHAPE, seed=1)
    assert simulate_tremor(SHAPE, seed=1) != simulate_tremor(SHAPE, seed=2)
    few, many = simulate_tremor(SHAPE, seed=1), simulate_tremor(SHAPE, seed=1, n_poses=49)
    assert spread(few.rotations, many.rotations[::2]) < 1e-8


def test_typical_tremor_has_the_extent_of_real_shake() -> None:
    extents = [simulate_tremor(SHAPE, seed=seed).extent for seed in range(60)]
    assert 10 < np.median(extents) < 25
    assert min(extents) > 2
    assert max(extents) < 60


def test_motion_scales_with_amplitude_focal_length_and_exposure() -> None:
    base = simulate_tremor(SHAPE, seed=3)
    twice = simulate_tremor(SHAPE, seed=3, amplitude=0.3)
    np.testing.assert_allclose(twice.rotations, 2 * base.rotations, rtol=0.01, atol=1e-5)
    long = simulate_tremor(SHAPE, seed=3, focal_length=1600.0)
    np.testing.assert_array_equal(long.rotations, base.rotations)
    middle = [[400, 300]]
    assert np.allclose(long.paths(middle), 2 * base.paths(middle), rtol=1e-3, atol=1e-3)
    short, longer = (
        np.median([simulate_tremor(SHAPE, seed=s, exposure=e).extent for s in range(20)])
        for e in (0.02, 0.2)
    )
    assert longer > 4 * short
    assert simulate_tremor(SHAPE, amplitude=0.0).extent == 0


def test_angular_velocity_has_the_amplitude_and_the_roll_asked_for() -> None:
    speeds = []
    for seed in range(300):
        t = simulate_tremor(SHAPE, seed=seed, exposure=0.01, n_poses=2, amplitude=0.2)
        speeds.append(np.diff(t.rotations, axis=0)[0] / 0.01)
    rms = np.sqrt(np.square(speeds).mean(axis=0))
    np.testing.assert_allclose(rms, (0.2, 0.2, 0.1), rtol=0.15)


@pytest.mark.parametrize("frequency", [6.0, 10.0])
def test_tremor_lies_in_its_band(frequency: float) -> None:
    power = np.zeros(400)
    for seed in range(12):
        t = simulate_tremor(
            SHAPE, seed=seed, exposure=8.0, n_poses=801, frequency=frequency, bandwidth=2.0,
            tremor_share=1.0,
        )  # fmt: skip
        rates = np.diff(t.rotations[:, 1]) * 100
        power += np.abs(np.fft.rfft(rates)[:400]) ** 2
    hertz = np.fft.rfftfreq(800, 0.01)[:400]
    inside = np.abs(hertz - frequency) < 1.6
    assert power[inside].sum() > 0.95 * power.sum()


def test_drift_is_slow() -> None:
    t = simulate_tremor(SHAPE, exposure=8.0, n_poses=801, tremor_share=0.0, seed=2)
    power = np.abs(np.fft.rfft(np.diff(t.rotations[:, 0]) * np.hanning(800))) ** 2
    hertz = np.fft.rfftfreq(800, 0.01)
    assert power[hertz < 3.5].sum() > 0.98 * power.sum()


@settings(max_examples=20, deadline=None)
@given(st.floats(0.5, 200), st.integers(0, 1000))
def test_extent_is_met(extent: float, seed: int) -> None:
    assert simulate_tremor(SHAPE, extent=extent, seed=seed).extent == pytest.approx(extent)


@pytest.mark.parametrize(
    "options",
    [
        {"exposure": 0.0},
        {"exposure": -1.0},
        {"exposure": np.nan},
        {"amplitude": -0.1},
        {"amplitude": np.inf},
        {"frequency": 0.0},
        {"bandwidth": -1.0},
        {"bandwidth": 30.0},
        {"tremor_share": 1.5},
        {"tremor_share": np.nan},
        {"roll_ratio": -1.0},
        {"n_poses": 0},
        {"extent": 0.0},
        {"extent": -3.0},
        {"extent": np.nan},
        {"focal_length": 0.0},
        {"focal_length": np.nan},
    ],
    ids=str,
)
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(Blur2SeqError) as caught:
        simulate_tremor(SHAPE, **options)  # type: ignore[arg-type]
    assert str(caught.value).endswith(".")


def test_impossible_extents() -> None:
    with pytest.raises(TrajectoryError, match="does not move"):
        simulate_tremor(SHAPE, amplitude=0.0, extent=10.0)
    with pytest.raises(OptionError):
        shake.with_extent(simulate_tremor(SHAPE), 0.0)


# Gyroscope


def test_constant_rate_is_a_straight_path_against_the_camera() -> None:
    times = np.linspace(0, 1, 201)
    rates = np.broadcast_to([0.0, 0.2, 0.0], (201, 3))  # the camera turns right
    t = from_gyroscope(times, rates, SHAPE, start=0.3, exposure=0.1, n_poses=11)
    expected = np.linspace(0.01, -0.01, 11)  # so the picture goes left
    np.testing.assert_allclose(t.rotations[:, 1], expected, atol=1e-12)
    np.testing.assert_allclose(t.rotations[:, [0, 2]], 0, atol=1e-15)
    moved = t.paths([[400, 300]])[:, 0, 0]
    np.testing.assert_allclose(moved, 800 * np.tan(expected), atol=1e-9)
    np.testing.assert_allclose(t.times, np.linspace(0, 0.1, 11), atol=1e-12)


def test_large_rotations_are_composed_not_added() -> None:
    # A camera that precesses: its rate is constant in the world, w, while it spins about z.
    # R(t) = exp(t a) exp(t b) has the body rate b + exp(-t b) a.
    a, b = np.array([1.5, 0.0, 0.0]), np.array([0.0, 0.0, 4.0])
    times = np.linspace(0, 1, 4001)
    rates = b + Rotation.from_rotvec(-times[:, None] * b).apply(a)
    t = from_gyroscope(times, rates, SHAPE, start=0.0, exposure=1.0, n_poses=25)
    moments = np.linspace(0, 1, 25)[:, None]
    camera = Rotation.from_rotvec(moments * a) * Rotation.from_rotvec(moments * b)
    assert spread(camera.inv().as_rotvec(), t.rotations) < 1e-5


def test_integration_does_not_depend_on_the_number_of_poses() -> None:
    log = recording()
    few = log.trajectory(SHAPE, start=0.5, exposure=0.2, n_poses=9)
    many = log.trajectory(SHAPE, start=0.5, exposure=0.2, n_poses=65)
    assert spread(few.rotations, many.rotations[::8]) < 5e-6


def test_poses_between_samples_follow_the_rates() -> None:
    fine = recording(rate=2000.0)
    coarse = GyroscopeLog(fine.times[::10], fine.rates[::10])
    a = fine.trajectory(SHAPE, start=0.5012, exposure=0.1234)
    b = coarse.trajectory(SHAPE, start=0.5012, exposure=0.1234)
    assert path_error(a, b) < 0.01 * a.extent


def test_exposure_may_fill_the_recording() -> None:
    log = recording()
    end = float(log.times[-1])
    assert len(log.trajectory(SHAPE, start=0.0, exposure=end)) == 25
    for start, exposure in ((-0.1, 0.2), (end - 0.1, 0.2), (0.0, 10.0), (np.nan, 0.1)):
        with pytest.raises(TrajectoryError, match="within the recording"):
            log.trajectory(SHAPE, start=start, exposure=exposure)


def test_one_pose_is_no_motion() -> None:
    assert recording().trajectory(SHAPE, start=0.1, exposure=0.1, n_poses=1).extent == 0


def with_gap(size: float) -> GyroscopeLog:
    log = recording()
    keep = (log.times <= 1.0) | (log.times >= 1.0 + size)
    return GyroscopeLog(log.times[keep], log.rates[keep])


def test_gaps() -> None:
    log = with_gap(0.08)
    for start in (0.95, 1.0, 1.05):
        with pytest.raises(TrajectoryError, match="gap"):
            log.trajectory(SHAPE, start=start, exposure=0.1)
    assert log.trajectory(SHAPE, start=0.85, exposure=0.1).extent > 0
    assert log.trajectory(SHAPE, start=1.1, exposure=0.1).extent > 0
    assert with_gap(0.04).trajectory(SHAPE, start=0.95, exposure=0.1).extent > 0


def test_random_exposures_avoid_gaps_and_repeat() -> None:
    log = with_gap(0.08)
    first, again = (
        [
            log.random_trajectory(generator, SHAPE, exposure=0.3, extent=15.0)
            for _ in range(40)
        ]
        for generator in (np.random.default_rng(5), np.random.default_rng(5))
    )  # fmt: skip
    assert first == again
    assert all(t.extent == pytest.approx(15) for t in first)
    assert first[0] != first[1]
    with pytest.raises(TrajectoryError, match="shorter"):
        log.random_trajectory(np.random.default_rng(0), SHAPE, exposure=1.5)


@pytest.mark.parametrize(
    ("times", "rates"),
    [
        ([0.0, 1.0], np.zeros((3, 3))),
        ([0.0, 1.0], np.zeros((2, 2))),
        ([0.0], np.zeros((1, 3))),
        ([0.0, 0.0], np.zeros((2, 3))),
        ([1.0, 0.0], np.zeros((2, 3))),
        ([0.0, np.nan], np.zeros((2, 3))),
        ([0.0, 1.0], np.full((2, 3), np.inf)),
        (["a", "b"], np.zeros((2, 3))),
    ],
)
def test_bad_recordings(times: object, rates: object) -> None:
    with pytest.raises(TrajectoryError):
        GyroscopeLog(times, rates)  # type: ignore[arg-type]


# Files of recordings

LOG = recording(0.2)


def lines(form: str, first: str = "", end: str = "\n", factor: int = 1, offset: int = 0) -> str:
    rows = zip(LOG.times.tolist(), LOG.rates.tolist(), strict=True)
    times_and_rates = ((offset + round(t * factor) if factor > 1 else t, r) for t, r in rows)
    return first + end.join(form.format(repr(t), *map(repr, r)) for t, r in times_and_rates)


@pytest.mark.parametrize(
    "text",
    [
        lines("{} {} {} {}"),
        lines("{},{}, {} ,{},") + "\n\n",
        lines("{};{};{};{}", first="# phone\r\nt;x;y;z\r\n", end="\r\n"),
        lines(" {}\t{}\t{}\t{} ", first="\ufefftime\tx\ty\tz\n"),
        lines("{} {} {} {}", factor=10**9, offset=250285705039633),
        lines("{0} {1} {2} {3}\n{0} 9 9 9"),
    ],
    ids=["spaces", "commas", "titles, semicolons", "tabs, byte order mark", "ns", "repeated times"],
)
def test_recordings_in_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gyro.txt"
    path.write_bytes(text.encode())
    times, rates = load_gyroscope(path)
    np.testing.assert_allclose(times, LOG.times, atol=1e-9)
    np.testing.assert_array_equal(rates, LOG.rates)


def test_axes_of_a_phone(tmp_path: Path) -> None:
    path = tmp_path / "gyro.txt"
    path.write_text("0 1 2 3\n0.005 1 2 3\n")
    log = GyroscopeLog.load(path, axes=np.diag([1, -1, -1]))
    np.testing.assert_array_equal(log.rates, [[1, -2, -3]] * 2)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"# nothing\n",
        b"0 1 2 3\n",
        b"0 1 2\n1 1 2\n",
        b"0 1 2 3\n0.005 1 two 3\n",
        b"t x y z\nagain t x y\n0 1 2 3\n",
        b"0 1 2 3\n0.005 nan 2 3\n",
        b"0.005 1 2 3\n0 1 2 3\n",
        b"0 1 2 3\n0 1 2 3\n",
        b"0 1 2 3\n5 1 2 3\n10 1 2 3\n",
        b"\x89PNG\r\n\x1a\n\xff\xfe",
    ],
    ids=[
        "empty", "comments only", "one sample", "three columns", "text", "two titles", "nan",
        "backwards", "one time", "milliseconds", "binary",
    ],
)  # fmt: skip
def test_bad_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "gyro.txt"
    path.write_bytes(data)
    with pytest.raises(TrajectoryError) as caught:
        load_gyroscope(path)
    assert "gyro.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TrajectoryError, match="cannot be read"):
        load_gyroscope(tmp_path / "none.txt")


def test_motion_is_loaded_from_every_kind_of_file(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    times = np.arange(400) * 0.005
    np.savetxt(log, np.column_stack([times, np.full((400, 3), [0.1, 0.0, 0.0])]))
    assert is_recording(log)
    whole = load_motion(log, SHAPE)
    assert whole.times[-1] == pytest.approx(LONGEST_EXPOSURE)
    part = load_motion(log, SHAPE, start=0.5, exposure=0.1, n_poses=5, axes=np.diag([1, -1, -1]))
    assert len(part) == 5
    assert np.ptp(part.rotations[:, 0]) == pytest.approx(0.01)
    ours = tmp_path / "ours.csv"
    part.save(ours)
    assert not is_recording(ours)
    assert load_motion(ours, (1, 1)) == part
    assert not is_recording(tmp_path / "none")
