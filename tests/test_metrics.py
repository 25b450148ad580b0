"""Scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from napari_blur2seq.metrics import aligned_scores, ordered_error, path_error
from napari_blur2seq.trajectory import Trajectory

SHAPE = (300, 400)


def motion(seed: int = 0, n: int = 25, size: float = 0.01) -> Trajectory:
    steps = np.random.default_rng(seed).normal(0, size, (n, 3))
    return Trajectory(np.cumsum(steps, axis=0) / 3, 400.0, (200.0, 150.0), SHAPE)


seeds = st.integers(0, 10_000)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_path_error_is_blind_to_direction_and_order(seed: int) -> None:
    a = motion(seed)
    shuffled = np.random.default_rng(seed).permutation(a.rotations)
    assert path_error(a, a) == 0
    assert path_error(a, a.reversed()) < 1e-6
    assert path_error(a, Trajectory.from_camera(shuffled, a.camera)) < 1e-6
    assert ordered_error(a, a) == 0
    assert ordered_error(a, a.reversed()) < 1e-6


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_path_error_is_blind_to_a_constant_rotation(seed: int) -> None:
    a = motion(seed)
    constant = Rotation.from_rotvec([0.01, -0.008, 0.005])
    turned = (Rotation.from_rotvec(a.rotations.copy()) * constant).as_rotvec()
    b = Trajectory.from_camera(turned, a.camera)
    # Points a few px away move a little differently: a percent of the motion, not the 6 px turned.
    assert path_error(a, b) < 0.03 * a.extent
    assert path_error(a.centered(), b.centered()) < 1e-6


@settings(max_examples=30, deadline=None)
@given(seeds, seeds)
def test_path_error_is_a_distance_below_the_ordered_error(first: int, second: int) -> None:
    a, b = motion(first), motion(second)
    assert path_error(a, b) == pytest.approx(path_error(b, a))
    assert path_error(a, b) <= ordered_error(a, b) + 1e-9
    if first != second:
        assert path_error(a, b) > 0


def test_path_error_in_pixels() -> None:
    angles = np.array([-0.01, 0.01])
    a = Trajectory(np.stack([0 * angles, angles, 0 * angles], 1), 400.0, (200.0, 150.0), SHAPE)
    # To stand still instead misses both poses, 4 px to either side of the middle.
    error = path_error(a, Trajectory.zero(SHAPE, 2))
    edge = np.abs(a.paths([[200, 150]])).max()
    assert edge == pytest.approx(4.0, abs=0.01)
    assert error == pytest.approx(4.0, rel=0.15)
    assert path_error(a.scaled(2), a) == pytest.approx(error, rel=0.02)


def test_path_error_takes_different_numbers_of_poses() -> None:
    smooth = motion(1, n=5).resample(25)
    assert path_error(smooth, smooth.resample(100)) < 0.05 * smooth.extent


def test_path_error_grows_with_the_perturbation() -> None:
    a = motion(2)
    noise = np.random.default_rng(0).normal(0, 1e-3, a.rotations.shape)
    errors = [
        path_error(a, Trajectory.from_camera(a.rotations + k * noise, a.camera)) for k in (1, 3, 9)
    ]
    assert errors[0] < errors[1] < errors[2]


# Pictures


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    """A picture with structure at all scales, (150, 200, 3), in [0, 1]."""
    generator = np.random.default_rng(0)
    layers = [
        s * gaussian_filter(generator.normal(size=(150, 200, 3)), (s, s, 0)) for s in (1, 3, 9)
    ]
    total = sum(layers)
    return ((total - total.min()) / np.ptp(total)).astype(np.float32)


def warped(image: np.ndarray, rotation: tuple[float, float, float]) -> np.ndarray:
    """As a turned camera of f = 200 px sees it."""
    camera = Trajectory.zero(image.shape[:2], 1, 200.0).camera
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    sx, sy, depth = np.linalg.inv(camera.homographies([rotation])[0]) @ points
    position = [(sy / depth).reshape(y.shape), (sx / depth).reshape(y.shape)]
    return np.stack(
        [map_coordinates(c, position, order=3, mode="mirror") for c in np.moveaxis(image, -1, 0)],
        axis=-1,
    ).astype(np.float32)


@pytest.mark.parametrize(
    "rotation", [(0.01, -0.02, 0.0), (0.004, 0.003, 0.02), (-0.03, 0.02, -0.015), (0, 0, 0)]
)
def test_alignment_recovers_the_score_of_the_untouched(
    reference: np.ndarray, rotation: tuple[float, float, float]
) -> None:
    noisy = reference + np.random.default_rng(1).normal(0, 0.01, reference.shape)
    noisy = noisy.astype(np.float32)
    alone = aligned_scores(noisy, reference, align=False)
    assert alone.psnr == pytest.approx(40, abs=0.3)
    moved = warped(noisy, rotation)
    aligned = aligned_scores(moved, reference)
    # Interpolation smooths the noise a little, so the score may rise, but not fall far.
    assert alone.psnr - 0.7 < aligned.psnr < alone.psnr + 4
    assert aligned.ssim > 0.97
    if any(rotation):
        assert aligned_scores(moved, reference, align=False).psnr < aligned.psnr - 8


def test_alignment_of_a_blurry_picture_does_not_make_it_sharp(reference: np.ndarray) -> None:
    blurry = gaussian_filter(reference, (3, 3, 0))
    alone = aligned_scores(blurry, reference, align=False)
    moved = aligned_scores(warped(blurry, (0.01, -0.02, 0.01)), reference)
    assert moved.psnr == pytest.approx(alone.psnr, abs=0.3)
    assert moved.ssim == pytest.approx(alone.ssim, abs=0.03)


def test_exposure_does_not_count(reference: np.ndarray) -> None:
    blurry = gaussian_filter(reference, (1, 1, 0))
    plain = aligned_scores(blurry, reference)
    assert aligned_scores(0.8 * blurry, reference).psnr == pytest.approx(plain.psnr, abs=0.05)


def test_integers_and_grey(reference: np.ndarray) -> None:
    blurry = gaussian_filter(reference, (1, 1, 0))
    eight = aligned_scores((255 * blurry).astype(np.uint8), (255 * reference).astype(np.uint8))
    assert eight.psnr == pytest.approx(aligned_scores(blurry, reference).psnr, abs=0.1)
    grey = aligned_scores(blurry[..., 0], reference[..., 0])
    assert 20 < grey.psnr < 60


def test_other_pictures_and_flat_ones_score_badly_but_do_not_break(reference: np.ndarray) -> None:
    noise = np.random.default_rng(3).random(reference.shape).astype(np.float32)
    flat = np.full_like(reference, 0.5)
    good = aligned_scores(gaussian_filter(reference, (1, 1, 0)), reference).psnr
    for other in (noise, flat, np.zeros_like(reference), reference[::-1]):
        scores = aligned_scores(other, reference)
        assert np.isfinite(scores).all()
        assert scores.psnr < good - 5


def test_different_shapes_are_refused(reference: np.ndarray) -> None:
    with pytest.raises(ValueError, match="different shapes"):
        aligned_scores(reference[1:], reference)
