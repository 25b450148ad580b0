"""Two pictures in one and in numbers."""

from __future__ import annotations

import numpy as np
import pytest

from napari_blur2seq.compare import blur_effect, difference, measure_steps, swipe
from napari_blur2seq.errors import ImageError
from napari_blur2seq.images import value_range
from napari_blur2seq.pipeline import blur
from napari_blur2seq.progress import run
from napari_blur2seq.shake import simulate_tremor

RNG = np.random.default_rng(0)


def scene() -> np.ndarray:
    from skimage.data import astronaut

    return astronaut()[60:156, 160:272]


SHARP = scene()
MOTION = simulate_tremor(SHARP.shape, extent=8.0, seed=1)
BLURRY = np.asarray(blur(SHARP, MOTION, noise=0.01))


def test_swipe_takes_columns_of_both() -> None:
    joined = swipe(SHARP, BLURRY, 30)
    np.testing.assert_array_equal(joined[:, :30], SHARP[:, :30])
    np.testing.assert_array_equal(joined[:, 30:], BLURRY[:, 30:])
    np.testing.assert_array_equal(swipe(SHARP, BLURRY, 0), BLURRY)
    with pytest.raises(ImageError, match="112 x 96 x 3 and 112 x 95 x 3"):
        swipe(SHARP, BLURRY[1:], 3)


def test_difference_is_signed_and_in_shares_of_the_range() -> None:
    a = np.full((40, 40), 51, np.uint8)
    b = np.full((40, 40), 102, np.uint8)
    np.testing.assert_allclose(difference(a, b), 0.2, atol=1e-6)
    np.testing.assert_allclose(difference(b, a), -0.2, atol=1e-6)


def test_both_pictures_are_measured_in_one_range() -> None:
    """A sharp picture of a camera of 12 bits has brighter pixels than its blurry one."""
    sharp, blurry = (picture.astype(np.uint16) * 9 for picture in (SHARP, BLURRY))
    expected = difference(BLURRY, SHARP) * 255 * 9
    low, high = value_range(blurry, sharp)
    assert high < 4095
    np.testing.assert_allclose(difference(blurry, sharp) * (high - low), expected, atol=1e-2)
    _, psnr, _ = run(measure_steps(blurry, sharp, reference=sharp))
    _, of_bytes, _ = run(measure_steps(BLURRY, SHARP, reference=SHARP))
    assert psnr.values == pytest.approx(of_bytes.values, abs=0.5)


def test_the_blur_effect_grows_with_blur() -> None:
    assert 0 <= blur_effect(SHARP) < blur_effect(BLURRY) <= 1


def test_all_numbers() -> None:
    half = MOTION.scaled(0.5)
    rows = run(
        measure_steps(
            BLURRY,
            SHARP,
            trajectories=(None, half),
            reference=SHARP,
            reference_trajectory=MOTION,
        )
    )
    values = {row.name: row.values for row in rows}
    assert list(values) == ["blur effect", "reblur residual", "PSNR", "SSIM", "path error"]
    assert values["blur effect"][0] > values["blur effect"][1]
    assert np.isinf(values["PSNR"][1]) and np.isfinite(values["PSNR"][0])
    assert values["SSIM"][1] == 1
    assert values["path error"][0] is None
    assert values["path error"][1] > 0.5
    assert values["reblur residual"][0] is None
    wrong = values["reblur residual"][1]
    rows = run(measure_steps(BLURRY, SHARP, trajectories=(None, MOTION)))
    values = {row.name: row.values for row in rows}
    # With the true motion nothing is left but the noise, averaged over the three colours.
    assert values["reblur residual"][1] == pytest.approx(100 * 0.01 / np.sqrt(3), rel=0.1)
    assert wrong > 2 * values["reblur residual"][1]


def test_without_references_there_is_the_sharpness() -> None:
    grey = (RNG.random((40, 48)) * 3 - 1).astype(np.float32)
    (row,) = run(measure_steps(grey, grey))
    assert row.name == "blur effect"
    with pytest.raises(ImageError, match="same size"):
        run(measure_steps(grey, grey, reference=grey[1:]))
