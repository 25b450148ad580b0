"""What an estimate looks at: the picture in grey, reduced, without what is saturated."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from ..camera import Camera
from ..restoration.half_quadratic import SATURATED
from ..restoration.noise_level import noise_level

# A trajectory is fitted and judged in no larger picture.
FINE_PIXELS = 700_000
# Distance of the corners from the middle, by the focal length.
_LEAST_FIELD = 0.2
# Between the widest lens of a phone and a picture's cutout there is about this factor.
_LONGER = 4.0
_LEAST_NOISE = 1 / 255


def grey_and_mask(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the channels, and 1 where no saturated pixel is near; both (H, W)."""
    saturated = (image >= SATURATED).any(0, keepdim=True)[None].to(image.dtype)
    near = F.max_pool2d(saturated, 5, stride=1, padding=2)[0, 0]
    return image.mean(0), 1 - near


def reduced(image: Tensor, pixels: int) -> tuple[Tensor, float]:
    """Picture (C, H, W) reduced to at most `pixels`, and the factor of its sides."""
    height, width = image.shape[-2:]
    factor = min(1.0, math.sqrt(pixels / (height * width)))
    if factor == 1:
        return image, 1.0
    size = (round(height * factor), round(width * factor))
    return _resized(image, size), size[1] / width


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Picture (C, H, W), smaller."""
    return F.interpolate(image[None], size=size, mode="bicubic", antialias=True)[0].clamp(0, 1)


def longer(camera: Camera, factor: float = _LONGER) -> Camera:
    """A camera that turns less for the same blur in the middle."""
    return Camera(factor * camera.focal_length, camera.principal_point, camera.image_shape)


@dataclass(frozen=True)
class View:
    """A grey picture, where it can be trusted, its camera, and its noise."""

    grey: Tensor
    mask: Tensor
    camera: Camera
    noise: float

    @classmethod
    def of(cls, image: Tensor, camera: Camera, pixels: int, noise: float | None = None) -> View:
        """A picture (C, H, W), reduced to at most so many pixels.

        Its own `noise`, before, is measured where it is not given.
        """
        if noise is None:
            noise = noise_level(image)
        small, factor = reduced(image, pixels)
        if factor != 1:
            camera = camera.scaled(factor, factor, (small.shape[-2], small.shape[-1]))
        return cls(*grey_and_mask(small), camera, max(factor * noise, _LEAST_NOISE))

    @property
    def field(self) -> float:
        """See `Camera.field`."""
        return self.camera.field

    @property
    def varies(self) -> bool:
        """Whether the lens is so wide that the blur is another from place to place."""
        return self.field >= _LEAST_FIELD

    def scaled(self, factor: float) -> View:
        """The same reduced, its sides by a factor of at most 1."""
        if factor == 1:
            return self
        height, width = self.grey.shape
        size = (round(factor * height), round(factor * width))
        grey, mask = (_resized(p[None], size)[0] for p in (self.grey, self.mask))
        factor = size[1] / width
        camera = self.camera.scaled(factor, factor, size)
        noise = max(factor * self.noise, _LEAST_NOISE)
        return View(grey, mask, camera, noise)

    def sides_by(self, other: View) -> float:
        """Its sides by those of another view of the same picture."""
        return self.grey.shape[1] / other.grey.shape[1]

    def with_longer_lens(self, factor: float = _LONGER) -> View:
        return replace(self, camera=longer(self.camera, factor))
