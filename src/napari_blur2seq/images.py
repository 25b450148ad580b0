"""Images in and out again: dtype, range, gamma, alpha and channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ImageError

MIN_SIDE = 32


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
    """How to bring a working image back to the user's shape, dtype and range."""

    dtype: np.dtype[np.generic]
    low: float
    high: float
    alpha: NDArray[np.generic] | None
    grey: bool
    linear: bool

    def encode(self, working: NDArray[np.float32]) -> NDArray[np.generic]:
        """From (..., C, H, W) float in [0, 1] to (..., H, W[, C]) like the input."""
        values: NDArray[Any] = _to_srgb(working) if self.linear else working
        if np.issubdtype(self.dtype, np.integer):
            values = np.rint(values * np.float32(self.high)).clip(0, self.high)
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


def to_working(image: ArrayLike, linear: bool = False) -> tuple[NDArray[np.float32], ImageFormat]:
    """Check an image and bring it to float32 (C, H, W) in [0, 1].

    Integers are divided by their dtype's maximum. Floats within [0, 1] are taken as
    they are, others by their own minimum and maximum; the range is restored on the
    way out. `linear` decodes sRGB to linear light first.
    """
    array = check_image(image)
    alpha = array[..., 3].copy() if array.ndim == 3 and array.shape[2] == 4 else None
    colour = array[..., :3] if array.ndim == 3 else array
    if np.issubdtype(array.dtype, np.integer):
        low, high = 0.0, float(np.iinfo(array.dtype).max)  # type: ignore[type-var]
    else:
        low, high = float(colour.min()), float(colour.max())
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
    if np.issubdtype(array.dtype, np.integer) or (low, high) == (0.0, 1.0):
        working = colour.astype(np.float32) / np.float32(high)
    else:
        shifted = (colour.astype(np.float64) - low) / (high - low)
        working = shifted.astype(np.float32)
    working = working[None] if array.ndim == 2 else np.moveaxis(working, -1, 0)
    if linear:
        working = _to_linear(working)
    form = ImageFormat(array.dtype, low, high, alpha, array.ndim == 2, linear)
    return np.ascontiguousarray(working), form


def _to_linear(encoded: NDArray[np.float32]) -> NDArray[np.float32]:
    """sRGB decoding (IEC 61966-2-1)."""
    high = ((np.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4
    return np.where(encoded <= 0.04045, encoded / 12.92, high).astype(np.float32)


def _to_srgb(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """sRGB encoding (IEC 61966-2-1)."""
    high = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, linear * 12.92, high).astype(np.float32)
