r"""How much noise is there in a picture that has been a file? A network that says so.

White noise shows in the finest detail, which blur has left nothing else in. JPEG takes that detail
away first, and so does a camera that smooths its noise: what is left of the noise, and what the
compression adds, is coarser than a pixel and does all the harm. Restored with the level of its
finest detail, such a picture comes out full of its own blocks.

In pictures of 8 bits, a network therefore looks at the finest detail and at the brightness, and
tells for cells of 32 px the variance that it expects of the error :math:`e`, the picture less what
the blurred scene without noise would be,

.. math:: s^2 = 4 \, C \, \operatorname{mean}\big((e * b)^2\big) ,

of the mean of the :math:`C` channels, averaged over :math:`b`, squares of 2 x 2 px: for noise that
is white and another in each channel, its variance; more for noise that is neither.

The finest detail is the more exact one of the two where noise is white. So, where :math:`s` is less
than 1.5 times what it tells, the latter is taken, and :math:`s` where it is more than 3 times as
much; in between, what lies in between.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .half_quadratic import NORMAL_MEDIAN, SATURATED, estimate_noise, fine_detail
from .tiles import spread

CELL = 32
_LEVELS = 255
# Less cannot be seen in pictures of 8 bits.
LEAST_LEVEL = 0.3 / _LEVELS
# Px: so many parts of a picture, of such a side, are looked at.
_SIDE, _PARTS = 256, 16
# Factors up to which both levels agree, and from which on they do not.
_AGREES, _DIFFERS = 1.5, 3.0
# Rounding to 8 bits leaves nothing in between, but for the digits of float32.
_ROUNDED = 1e-2


class NoiseNetwork(nn.Module):
    """Grey pictures to logarithms of the variance of their noise, cell by cell."""

    def __init__(self, channels: tuple[int, int, int] = (24, 32, 48)) -> None:
        super().__init__()
        a, b, c = channels
        # Output channels and stride of each convolution.
        layout = [(a, 1), (a, 1), (b, 2), (b, 1), (c, 2), (c, 1), (c, 2), (c, 1), (c, 2)]
        layers: list[nn.Module] = []
        before = 4 + 2
        for channel, stride in layout:
            layers += [nn.Conv2d(before, channel, 3, stride=stride, padding=1), nn.GELU()]
            before = channel
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logarithms of :math:`s^2 / C`.

        Parameters
        ----------
        pictures : Tensor
            Mean of the channels, shape (B, 1, H, W), range [0, 1], sides multiples of 32.

        Returns
        -------
        Tensor
            Shape (B, H / 32, W / 32).
        """
        detail = fine_detail(F.pad(pictures, (1,) * 4, mode="replicate")[:, 0])
        finest = detail.flatten(1).abs().median(1).values / NORMAL_MEDIAN
        finest = finest.clamp_min(LEAST_LEVEL)[:, None, None]
        # On this scale, white noise looks the same however strong it is.
        x = F.pixel_unshuffle(torch.asinh(detail / finest)[:, None], 2)
        level = finest[:, None].log().expand(-1, 1, *x.shape[-2:])
        x = torch.cat([x, F.avg_pool2d(pictures - 0.5, 2), level / 2 + 2], 1)
        result: Tensor = self.layers(x)[:, 0] + 2 * finest.log()
        return result


def noise_level(image: Tensor) -> float:
    """Standard deviation of white noise that does as much harm as that of (C, H, W) in [0, 1].

    Of pictures of 8 bits, also by what the network tells (see the module's text), of others by
    their finest detail alone.
    """
    finest = estimate_noise(image)
    if not _has_8_bits(image):
        return finest
    grey = image.mean(0).cpu()
    kept = (image < SATURATED).all(0).float().cpu()
    parts = _parts((grey.shape[0], grey.shape[1]))
    weights = F.avg_pool2d(torch.stack([kept[part] for part in parts])[:, None], CELL)[:, 0]
    if not weights.any():
        return finest
    with torch.no_grad():
        variance = _shipped()(torch.stack([grey[part] for part in parts])[:, None]).exp()
    mean = (variance * weights).sum() / weights.sum()
    return _between(max(finest, LEAST_LEVEL), float((len(image) * mean).sqrt()))


def _between(finest: float, told: float) -> float:
    share = math.log(told / finest / _AGREES) / math.log(_DIFFERS / _AGREES)
    return float(finest * (told / finest) ** min(max(share, 0.0), 1.0))


def _has_8_bits(image: Tensor) -> bool:
    levels = image * _LEVELS
    return bool((levels - levels.round()).abs().max() < _ROUNDED)


def _parts(shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Squares spread evenly over a picture: all of a small one but for less than a cell."""
    height, width = (min(_SIDE, length // CELL * CELL) for length in shape)
    tops, lefts = spread(
        shape, (height, width), [-(-shape[0] // height), -(-shape[1] // width)], _PARTS
    )
    return [(slice(y, y + height), slice(x, x + width)) for y in tops for x in lefts]


@cache
def _shipped() -> NoiseNetwork:
    from ..models.registry import load_noise_network

    return load_noise_network()
