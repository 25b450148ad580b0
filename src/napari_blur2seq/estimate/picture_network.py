r"""A network from one picture to the camera's curve.

The picture, of any size, grey or in colour, becomes a grid of features that each see some
hundred pixels. Beside each goes where it lies, as a ray
:math:`((x - c_x) / f, (y - c_y) / f)`: what is a roll in the middle is a shift at the edge. A
few learned queries look at all of them, and each becomes an ordered curve of pitch, yaw and
roll, a cosine series as in `curve`, in pixels, with the path error that is to be expected of it.

Blur that is longer than what a feature sees is short in a smaller picture, so the network looks
at several sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..camera import Camera
from .kernel_network import COEFFICIENTS, HYPOTHESES

# Pixels of the picture a side of a cell.
CELL = 16
_LEAST_ROLL_ARM = 0.05
_SCALES = (1.0, 0.5, 0.25)
# Sides of the smallest picture, px, that is worth a look.
_LEAST_SIDE = 64


class _Block(nn.Module):
    """``x + conv(gelu(conv(x)))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.conv2.weight, std=1e-3)  # near the identity at first

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.conv2(F.gelu(self.conv1(x)))
        return result


class PictureNetwork(nn.Module):
    """Pictures to ordered curves with their expected errors.

    Parameters
    ----------
    channels : tuple of int
        Features at 1/2, 1/4, 1/8 and 1/16 of the resolution; the last a multiple of 8.
    """

    def __init__(self, channels: tuple[int, ...] = (48, 96, 160, 256)) -> None:
        super().__init__()
        levels: list[nn.Module] = []
        before = 3
        for width in channels:
            levels.append(
                nn.Sequential(nn.Conv2d(before, width, 4, stride=2, padding=1), _Block(width))
            )
            before = width
        self.levels = nn.ModuleList(levels)
        self.last = nn.Sequential(_Block(before), _Block(before))
        self.place = nn.Sequential(nn.Linear(5, before), nn.GELU(), nn.Linear(before, before))
        self.norm = nn.LayerNorm(before)
        self.queries = nn.Parameter(torch.randn(HYPOTHESES, before) / math.sqrt(before))
        self.looks = nn.ModuleList(
            nn.TransformerDecoderLayer(
                before, 8, 2 * before, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(3)
        )
        self.curve = nn.Sequential(
            nn.LayerNorm(before),
            nn.Linear(before, 2 * before),
            nn.GELU(),
            nn.Linear(2 * before, COEFFICIENTS * 3 + 1),
        )

    @staticmethod
    def channels_of(state: Mapping[str, Tensor]) -> tuple[int, ...]:
        """Widths of the network that weights belong to; empty if they are of another kind."""
        names = (f"levels.{level}.0.weight" for level in range(len(state)))
        return tuple(len(state[name]) for name in names if name in state)

    def forward(
        self, pictures: Tensor, focal_length: Tensor, principal_point: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Curves and the errors to be expected of them.

        Parameters
        ----------
        pictures : Tensor
            Shape (B, C, H, W), C 1 or 3, range [0, 1], at least 32 px a side.
        focal_length, principal_point : Tensor
            Pixels, shapes (B,) and (B, 2).

        Returns
        -------
        curves : Tensor
            Shape (B, M, K, 3), px; roll as the angle times the focal length.
        errors : Tensor
            Logarithm of the expected path error in px, shape (B, M).
        """
        count, _, height, width = pictures.shape
        x = pictures.expand(-1, 3, -1, -1)
        x = x - x.mean((2, 3), keepdim=True)
        x = x / x.flatten(1).std(1).clamp_min(0.02)[:, None, None, None]
        x = F.pad(x, (0, -width % CELL, 0, -height % CELL), mode="replicate")
        for level in self.levels:
            x = level(x)
        x = self.last(x)
        rows, columns = (torch.arange(n, device=x.device) for n in x.shape[-2:])
        middles = (CELL - 1) / 2 + CELL * torch.stack(
            torch.meshgrid(columns, rows, indexing="xy"), -1
        ).reshape(-1, 2)
        rays = (middles - principal_point[:, None]) / focal_length[:, None, None]
        focal = focal_length.log()[:, None, None].expand(-1, len(middles), 1)
        place = self.place(torch.cat([rays, rays.square(), focal - 6], 2))
        tokens = self.norm(x.flatten(2).transpose(1, 2) + place)
        queries = self.queries.expand(count, -1, -1)
        for look in self.looks:
            queries = look(queries, tokens)
        values = self.curve(queries).float()
        curves = values[..., :-1].reshape(count, HYPOTHESES, COEFFICIENTS, 3)
        # Seen from further out, the same roll is a longer way.
        arm = rays.square().sum(2).mean(1).sqrt().clamp_min(_LEAST_ROLL_ARM)
        factors = torch.stack([torch.ones_like(arm), torch.ones_like(arm), 1 / arm], 1)
        return curves * factors[:, None, None], values[..., -1]


@torch.no_grad()
def picture_curves(
    network: PictureNetwork, picture: Tensor, camera: Camera
) -> tuple[Tensor, Tensor]:
    """The best curve of each size at which the network looks, the most certain first.

    Parameters
    ----------
    network : PictureNetwork
    picture : Tensor
        Shape (C, H, W), C 1 or 3, range [0, 1], on the network's device.
    camera : Camera
        Of the picture.

    Returns
    -------
    curves : Tensor
        Shape (S, K, 3), px of the picture.
    errors : Tensor
        Path errors in px to be expected, shape (S,).
    """
    found = []
    height, width = picture.shape[-2:]
    for scale in _SCALES:
        size = (round(height * scale), round(width * scale))
        if scale < 1 and min(size) < _LEAST_SIDE:
            break
        small = picture[None]
        if scale < 1:
            small = F.interpolate(small, size=size, mode="bicubic", antialias=True)
        seen = camera.scaled(scale, scale, size)
        focal = small.new_tensor([seen.focal_length])
        centre = small.new_tensor([seen.principal_point])
        curves, errors = network(small, focal, centre)
        best = int(errors[0].argmin())
        found.append((curves[0, best] / scale, errors[0, best].exp() / scale))
    found.sort(key=lambda one: float(one[1]))
    curves, errors = (torch.stack(values) for values in zip(*found, strict=True))
    return curves, errors
