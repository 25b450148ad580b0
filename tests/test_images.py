"""Images in and out again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_blur2seq.errors import ImageError
from napari_blur2seq.images import (
    MIN_SIDE,
    check_image,
    common_range_steps,
    to_working,
    value_range,
)
from napari_blur2seq.progress import run
from napari_blur2seq.restoration.half_quadratic import SATURATED

SHAPES = [(40, 51), (40, 51, 3), (40, 51, 4)]


def picture(shape: tuple[int, ...], dtype: type, low: float = 0, high: float = 1) -> np.ndarray:
    values = np.random.default_rng(0).random(shape)
    if np.issubdtype(dtype, np.integer):
        return (values * np.iinfo(dtype).max).astype(dtype)
    return (low + (high - low) * values).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_come_back_exactly(shape: tuple[int, ...], dtype: type) -> None:
    image = picture(shape, dtype)
    working, form = to_working(image)
    assert working.dtype == np.float32
    assert working.shape == ((1 if len(shape) == 2 else 3), 40, 51)
    assert working.min() >= 0
    assert working.max() <= 1
    out = form.encode(working)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, image)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.2, 0.4), (-3, 7), (0, 4095), (1000, 1001), (-1e-3, 1e-3)]
)
def test_floats_of_any_range_come_back(
    shape: tuple[int, ...], dtype: type, low: float, high: float
) -> None:
    image = picture(shape, dtype, low, high)
    working, form = to_working(image)
    assert working.min() >= 0
    assert working.max() <= 1
    out = form.encode(working)
    assert out.dtype == dtype
    assert out.shape == shape
    size = max(abs(low), abs(high))
    tolerance = 2 * np.finfo(dtype).eps * size + 2e-7 * (high - low)
    np.testing.assert_allclose(out.astype(float), image.astype(float), rtol=0, atol=tolerance)


def test_a_narrow_range_far_from_zero_keeps_its_detail() -> None:
    image = 1e7 + picture((40, 51), np.float64)
    working, form = to_working(image)
    np.testing.assert_allclose(form.encode(working), image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_linear_light_and_back(dtype: type) -> None:
    image = picture((40, 51, 3), dtype)
    working, form = to_working(image, linear=True)
    assert np.abs(form.encode(working).astype(int) - image.astype(int)).max() <= 1


def test_linear_light_is_srgb() -> None:
    image = np.zeros((40, 40), np.uint8)
    image[0, :3] = 255, 188, 10
    working, _ = to_working(image, linear=True)
    # IEC 61966-2-1: mid grey 188 is half the light; below 0.04045 the curve is a line.
    np.testing.assert_allclose(working[0, 0, :3], (1, 0.5029, 10 / 255 / 12.92), rtol=1e-3)


def test_alpha_is_passed_by() -> None:
    image = picture((40, 51, 4), np.uint8)
    working, form = to_working(image)
    out = form.encode(1 - working)
    np.testing.assert_array_equal(out[..., 3], image[..., 3])
    np.testing.assert_array_equal(out[..., :3], 255 - image[..., :3])


def test_nan_in_alpha_is_no_harm() -> None:
    image = picture((40, 51, 4), np.float32)
    image[0, 0, 3] = np.nan
    working, form = to_working(image)
    assert np.isfinite(working).all()
    assert np.isnan(form.encode(working)[0, 0, 3])


def test_sequences_are_encoded_frame_by_frame() -> None:
    image = picture((40, 51, 4), np.uint8)
    working, form = to_working(image)
    out = form.encode(np.stack([working, working / 2]))
    assert out.shape == (2, 40, 51, 4)
    np.testing.assert_array_equal(out[0], image)
    np.testing.assert_array_equal(out[1], form.encode(working / 2))


def test_integers_are_rounded_and_clipped() -> None:
    image = picture((40, 51), np.uint8)
    _, form = to_working(image)
    values = np.array([[[-0.5, 0.499 / 255, 0.501 / 255, 1.7]]], np.float32)
    np.testing.assert_array_equal(form.encode(values), [[0, 0, 1, 255]])


@given(
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([np.float32, np.float64]),
    low=st.floats(-1e6, 1e6),
    size=st.floats(1e-6, 1e6),
)
def test_working_images_lie_in_zero_to_one(seed: int, dtype: type, low: float, size: float) -> None:
    image = (low + size * np.random.default_rng(seed).random((33, 34))).astype(dtype)
    if image.min() == image.max():
        with pytest.raises(ImageError):
            to_working(image)
        return
    working, form = to_working(image)
    assert np.isfinite(working).all()
    assert working.min() >= 0
    assert working.max() <= 1
    # What fills [0, 1] by half or more is worked on as it is, in single precision.
    scale = 1.0 if image.min() >= 0 and image.max() <= 1 else size
    tolerance = 2 * np.finfo(dtype).eps * (abs(low) + size) + 2e-7 * scale
    np.testing.assert_allclose(form.encode(working), image, rtol=0, atol=tolerance)


# Dim pictures


def dim(highest: float, dtype: type, unit: float = 1.0, low: float = 0.0) -> np.ndarray:
    values = low + (highest - low) * np.random.default_rng(0).random((40, 51))
    values[3, 4], values[5, 6] = low, highest
    return (np.rint(values) * unit).astype(dtype)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize(("dtype", "unit"), [(np.uint16, 1), (np.float32, 1), (np.float32, 65535)])
def test_a_picture_is_clipped_where_its_sensor_ends(bits: int, dtype: type, unit: float) -> None:
    end = 2**bits - 1
    working, form = to_working(dim(end, dtype, 1 / unit))
    assert working.max() == 1
    assert form.bounds == (0, 1)
    assert form.most == pytest.approx(end / unit)


@pytest.mark.parametrize("highest", [37, 300, 1021, 4000, 30000])
@pytest.mark.parametrize("low", [0.0, 0.3])
def test_a_dim_picture_fills_the_range_and_is_not_saturated(highest: int, low: float) -> None:
    for image in (
        dim(highest, np.uint16, low=low * highest),
        dim(highest, np.float64, 1 / 65535, low=low * highest),
    ):
        working, form = to_working(image)
        assert working.min() == 0
        assert 0.97 < working.max() < SATURATED
        out = form.encode(working)
        assert out.dtype == image.dtype
        np.testing.assert_allclose(out, image, rtol=0, atol=1e-6 * (image.dtype != np.uint16))
        # Up to the end of the file's range, a restored point may be brighter than any pixel.
        nominal = 65535 if image.dtype == np.uint16 else 1
        least, most = form.encode(np.array(form.bounds, np.float32).reshape(1, 1, 2))[0]
        np.testing.assert_allclose((least, most), (0, nominal), atol=1e-6 * nominal)


def test_pictures_that_fill_half_of_the_range_are_taken_as_they_are() -> None:
    for image in (dim(40000, np.uint16), dim(40000, np.float32, 1 / 65535), dim(9, np.uint8)):
        nominal = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
        assert value_range(image) == (0, nominal)


@pytest.mark.parametrize("factor", [0.1, 1 / 16, 1e-3])
def test_a_picture_and_the_same_one_dimmed_are_worked_on_alike(factor: float) -> None:
    image = 0.05 + 0.4 * np.random.default_rng(0).random((40, 51))
    one, other = to_working(image)[0], to_working(image * factor)[0]
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_light_decoded_from_srgb_keeps_its_black() -> None:
    image = dim(9000, np.uint16, low=3000)
    assert value_range(image) == (3000, 3000 + 1.02 * 6000)
    assert value_range(image, linear=True) == (0, 1.02 * 9000)
    working, form = to_working(image, linear=True)
    assert np.abs(form.encode(working).astype(int) - image.astype(int)).max() <= 1


def test_limits_that_are_given_clip() -> None:
    image = dim(3000, np.uint16)
    working, form = to_working(image, limits=(100, 1023))
    assert working.min() == 0 and working.max() == 1
    np.testing.assert_array_equal(form.encode(working), image.clip(100, 1023))
    assert form.most == 1023  # the end of ten bits


def test_several_pictures_have_one_range() -> None:
    planes = [dim(highest, np.uint16) for highest in (70, 3000, 500)]
    common = run(common_range_steps([lambda p=p: p for p in planes]))
    assert common == value_range(np.concatenate(planes))
    useless = np.full((40, 51), np.nan)
    assert run(common_range_steps([lambda: useless])) is None
    floats = [useless, dim(70, np.float32, 1e-5), dim(90, np.float32, 1e-5)]
    common = run(common_range_steps([lambda p=p: p for p in floats]))
    assert common == value_range(floats[2])
    # Not in [0, 1] because it happens to be dark.
    dark = 0.1 * floats[1]
    _, form = to_working(dark, limits=(0.0, 900.0))
    assert form.most == pytest.approx(dark.max())
    _, form = to_working(dark, limits=common)
    assert form.most == 1


def test_the_input_is_left_alone() -> None:
    image = picture((40, 51, 3), np.float32)
    before = image.copy()
    working, form = to_working(image)
    working *= 0
    form.encode(working)
    np.testing.assert_array_equal(image, before)


def with_value(value: float) -> np.ndarray:
    image = picture((40, 40), np.float32)
    image[3, 4] = value
    return image


BAD = {
    "nan": with_value(np.nan),
    "inf": with_value(np.inf),
    "minus inf": with_value(-np.inf),
    "constant": np.full((40, 40), 7, np.uint8),
    "constant float": np.full((40, 40, 3), 0.3),
    "small": picture((MIN_SIDE - 1, 64), np.uint8),
    "narrow": picture((64, MIN_SIDE - 1), np.uint8),
    "empty": np.zeros((0, 64)),
    "0-D": np.array(3.0),
    "1-D": np.linspace(0, 1, 64),
    "4-D": np.zeros((2, 40, 40, 3)),
    "two channels": picture((40, 40, 2), np.uint8),
    "five channels": picture((40, 40, 5), np.uint8),
    "complex": picture((40, 40), np.float32) + 1j,
    "boolean": picture((40, 40), np.float32) > 0.5,
    "labels": np.arange(1600).reshape(40, 40),
    "int32": np.arange(1600, dtype=np.int32).reshape(40, 40),
    "uint32": np.arange(1600, dtype=np.uint32).reshape(40, 40),
    "int8": np.arange(1600).reshape(40, 40).astype(np.int8),
    "text": np.full((40, 40), "a"),
    "objects": np.full((40, 40), None),
}


@pytest.mark.parametrize("image", BAD.values(), ids=BAD.keys())
def test_bad_images(image: np.ndarray) -> None:
    with pytest.raises(ImageError) as caught:
        check_image(image)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) > 20


def test_smallest_image_is_accepted() -> None:
    image = picture((MIN_SIDE, MIN_SIDE), np.uint8)
    assert check_image(image) is image
