"""Images in and out again: dtype, range, gamma, alpha and channels.

Noise levels, thresholds and networks are made for pictures that fill the range from black, 0, to
white, 1. A picture of a camera of 12 bits in a file of 16 fills a sixteenth of its nominal range at
most, so what black and white stand for depends on what is there: see `value_range`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ImageError
from .progress import Progress, Steps

MIN_SIDE = 32
_FULL = 2**16 - 1
# Of sensors: where the values of their pictures end.
_BITS = (8, 10, 12, 14, 16)
# Of the nominal range: pictures that span less are dim or flat.
_LEAST_SPAN = 0.5
# White of such a picture is this far above its brightest pixel, which does not count as saturated.
_HEADROOM = 1.02


def check_image(image: ArrayLike) -> NDArray[np.generic]:
    """Return the image as an array, or say what is wrong with it.

    Raises
    ------
    ImageError
        Not (H, W), (H, W, 3) or (H, W, 4); not uint8, uint16 or float; a side under
        32 px; NaN, infinite or constant values.
    """
    array = np.asarray(image)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError(
            f"The image must have shape (H, W), (H, W, 3) or (H, W, 4), not {array.shape}; "
            "pick one plane or channel."
        )
    if array.dtype == bool:
        raise ImageError("The image is a boolean mask; choose a grey or colour picture.")
    if np.iscomplexobj(array):
        raise ImageError("The image is complex; take its magnitude first.")
    if array.dtype not in (np.uint8, np.uint16) and not np.issubdtype(array.dtype, np.floating):
        raise ImageError(
            f"The image has dtype {array.dtype}, which usually holds labels; "
            "convert it to uint8, uint16 or float."
        )
    height, width = array.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ImageError(
            f"The image is {width} x {height} px; both sides must be at least {MIN_SIDE} px."
        )
    colour = array[..., :3] if array.ndim == 3 else array
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(colour).all():
        raise ImageError("The image contains NaN or infinite values; replace them first.")
    if colour.min() == colour.max():
        raise ImageError("The image is constant: there is nothing to see the blur by.")
    return array


@dataclass(frozen=True)
class ImageFormat:
    """How to bring a working image back to the user's shape, dtype and range.

    Attributes
    ----------
    dtype : dtype
    low, high : float
        Values that are 0 and 1 in the working image.
    least, most : float
        Values that a result may have: those of the dtype or the sensor, or of the image.
    alpha : ndarray or None
    grey, linear : bool
    """

    dtype: np.dtype[np.generic]
    low: float
    high: float
    least: float
    most: float
    alpha: NDArray[np.generic] | None
    grey: bool
    linear: bool

    @property
    def bounds(self) -> tuple[float, float]:
        """`least` and `most` in the working image: beyond [0, 1] where the image is dim."""
        ends = (np.array([self.least, self.most]) - self.low) / (self.high - self.low)
        least, most = _to_linear(ends.astype(np.float32)) if self.linear else ends
        return float(least), float(most)

    def encode(self, working: NDArray[np.float32]) -> NDArray[np.generic]:
        """From (..., C, H, W) float within `bounds` to (..., H, W[, C]) like the input."""
        values: NDArray[Any] = _to_srgb(working) if self.linear else working
        if np.issubdtype(self.dtype, np.integer):
            values = values * np.float32(self.high - self.low) + np.float32(self.low)
            values = np.rint(values).clip(self.least, self.most)
        elif (self.low, self.high) != (0.0, 1.0):
            # In float64: a narrow range far from zero would drown in float32.
            values = values.astype(np.float64) * (self.high - self.low) + self.low
        values = values.astype(self.dtype)
        if self.grey:
            return values[..., 0, :, :]
        values = np.moveaxis(values, -3, -1)
        if self.alpha is not None:
            alpha = np.broadcast_to(self.alpha[..., None], (*values.shape[:-1], 1))
            values = np.concatenate([values, alpha], axis=-1)
        return np.ascontiguousarray(values)


def value_range(*images: NDArray[Any], linear: bool = False) -> tuple[float, float]:
    """Values of a picture (H, W[, C]), or of several as if they were one, that are black and white.

    * The whole range of the dtype (of floats, [0, 1]) where the picture spans half of it at least,
      and for 8 bits always.
    * The range of a sensor of 8, 10, 12 or 14 bits where the brightest pixel is the largest value
      that it has, as it is or divided by 65535: the picture is clipped there.
    * Else the picture's own range: it is dim, or flat, or in units of its own. White is a little
      above the brightest pixel then, which is not saturated. Of `linear` light, decoded from sRGB,
      black stays 0.
    """
    least, most = zip(*map(_extremes, images), strict=True)
    return _range_of(min(least), max(most), images[0].dtype, linear)


def common_range_steps(
    planes: Sequence[Callable[[], NDArray[Any]]], linear: bool = False
) -> Steps[tuple[float, float] | None]:
    """The `value_range` of several pictures that are read one after the other.

    None where none of them holds two values.
    """
    low, high = math.inf, -math.inf
    dtype: Any = None
    for number, plane in enumerate(planes):
        message = f"Looking at the values of plane {number + 1} of {len(planes)}"
        yield Progress("estimate", 0.0, message)
        pixels = plane()
        dtype = pixels.dtype
        least, most = _extremes(pixels)
        low, high = min(low, least), max(high, most)
    return _range_of(low, high, dtype, linear) if low < high else None


def _extremes(image: NDArray[Any]) -> tuple[float, float]:
    """Smallest and largest finite value of the colours; infinities if there is none."""
    colour = image[..., :3] if image.ndim == 3 else image
    if not np.isfinite(colour.sum(dtype=np.float64)):
        colour = colour[np.isfinite(colour)]
    return (float(colour.min()), float(colour.max())) if colour.size else (math.inf, -math.inf)


def _range_of(low: float, high: float, dtype: np.dtype[Any], linear: bool) -> tuple[float, float]:
    if dtype == np.uint8:
        return 0.0, 255.0
    clipped = _is_clipped(high, dtype)
    nominal = _nominal(low, high, dtype)
    if nominal is not None:
        if clipped:
            return 0.0, high
        if low == high or high - low >= _LEAST_SPAN * nominal:
            return 0.0, nominal
    black = 0.0 if linear and low >= 0 else low
    return black, high if clipped else black + _HEADROOM * (high - black)


def _nominal(low: float, high: float, dtype: np.dtype[Any]) -> float | None:
    """End of the range that values of a dtype have, or None where they have units of their own."""
    if dtype.kind == "u":
        return float(np.iinfo(dtype).max)
    return 1.0 if low >= 0 and high <= 1 else None


def _is_clipped(high: float, dtype: np.dtype[Any]) -> bool:
    """Whether the brightest value is the end of a sensor's range."""
    value = high if dtype.kind in "ui" or high > 1 else high * _FULL
    rounding = float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0
    ends = (2**bits - 1 for bits in _BITS)
    return any(abs(value - end) <= rounding * end for end in ends)


def to_working(
    image: ArrayLike, linear: bool = False, limits: tuple[float, float] | None = None
) -> tuple[NDArray[np.float32], ImageFormat]:
    """Check an image and bring it to float32 (C, H, W) in [0, 1].

    `limits` are the values that become 0 and 1, by default the image's `value_range`; what lies
    beyond is clipped. `linear` decodes sRGB to linear light then.
    """
    array = check_image(image)
    alpha = array[..., 3].copy() if array.ndim == 3 and array.shape[2] == 4 else None
    colour = array[..., :3] if array.ndim == 3 else array
    smallest, largest = _extremes(array)
    low, high = limits or _range_of(smallest, largest, array.dtype, linear)
    # A dark plane of a stack has the units of the others.
    nominal = _nominal(min(smallest, low), max(largest, high / _HEADROOM), array.dtype)
    least, most = (smallest, largest) if nominal is None else (0.0, nominal)
    if _is_clipped(high, array.dtype):
        most = high
    if np.issubdtype(array.dtype, np.integer) or (low, high) == (0.0, 1.0):
        working = colour.astype(np.float32)
        working -= np.float32(low)
        working /= np.float32(high - low)
    else:
        working = ((colour.astype(np.float64) - low) / (high - low)).astype(np.float32)
    if limits is not None:
        working = working.clip(0, 1)
    working = working[None] if array.ndim == 2 else np.moveaxis(working, -1, 0)
    if linear:
        working = _to_linear(working)
    form = ImageFormat(array.dtype, low, high, least, most, alpha, array.ndim == 2, linear)
    return np.ascontiguousarray(working), form


def _to_linear(encoded: NDArray[np.float32]) -> NDArray[np.float32]:
    """sRGB decoding (IEC 61966-2-1)."""
    high = ((np.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4
    return np.where(encoded <= 0.04045, encoded / 12.92, high).astype(np.float32)


def _to_srgb(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """sRGB encoding (IEC 61966-2-1)."""
    high = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, linear * 12.92, high).astype(np.float32)
