r"""A network from local blur kernels to the camera's curve.

The kernels of one or more regions, brought to rasters of one scale, and where they lie, as
rays :math:`((x - c_x) / f, (y - c_y) / f)`, go in. Out come a few ordered curves of pitch,
yaw and roll, cosine series as in `curve`, in pixels, and for each the path error that is to
be expected; the one that expects least is given. It was trained on rendered kernels with the
faults that estimated ones have (`training.kernels`): it knows what motions look like, and so
which part of a kernel is halo, ghost or noise, and where a tail is missing.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

RASTER = 32
COEFFICIENTS = 12
HYPOTHESES = 4
# Cells from the middle to what lies furthest out.
REACH = 13.0
_LEAST_ROLL_ARM = 0.05


def rasterise(points: Tensor, weights: Tensor, scale: Tensor, side: int = RASTER) -> Tensor:
    """Masses at points as rasters of square cells, split bilinearly; what lies outside is lost.

    Parameters
    ----------
    points : Tensor
        (x, y) in px from the middle of the raster, shape (B, M, 2).
    weights : Tensor
        Shape (B, M).
    scale : Tensor
        Pixels a cell, shape (B,).
    side : int
        Cells a side.

    Returns
    -------
    Tensor
        Shape (B, side, side).
    """
    count = len(points)
    cells = points / scale[:, None, None] + (side - 1) / 2
    low = cells.floor()
    part = cells - low
    result = points.new_zeros(count, side * side)
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = low[..., 0] + dx, low[..., 1] + dy
            share = (part[..., 0] if dx else 1 - part[..., 0]) * (
                part[..., 1] if dy else 1 - part[..., 1]
            )
            inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
            index = (row * side + column).long().where(inside, 0)
            result.scatter_add_(1, index, (share * weights).where(inside, 0.0))
    return result.reshape(count, side, side)


class _Region(nn.Module):
    """One kernel's raster (1, 32, 32) to a vector that still knows where its mass lies."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 24, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(48, 96, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(96 * 16, width),
        )

    def forward(self, rasters: Tensor) -> Tensor:
        result: Tensor = self.layers(rasters)
        return result


class KernelNetwork(nn.Module):
    """Kernels of N regions to ordered curves with their expected errors.

    Parameters
    ----------
    width : int
        Length of the vectors.
    layers : int
        Rounds in which the regions look at each other.
    """

    def __init__(self, width: int = 192, layers: int = 2) -> None:
        super().__init__()
        self.region = _Region(width)
        self.place = nn.Sequential(nn.Linear(6, width), nn.GELU(), nn.Linear(width, width))
        self.mixing = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.curves = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, HYPOTHESES * (COEFFICIENTS * 3 + 1)),
        )

    def forward(
        self, rasters: Tensor, rays: Tensor, scale: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Curves and the errors to be expected of them.

        Parameters
        ----------
        rasters : Tensor
            Shape (B, N, 32, 32), each of sum 1.
        rays : Tensor
            Where the regions lie, shape (B, N, 2).
        scale : Tensor
            Pixels a cell, shape (B,).
        known : Tensor
            Which regions have a kernel, bool, shape (B, N). One region alone says nothing
            about roll.

        Returns
        -------
        curves : Tensor
            Shape (B, M, K, 3), cells; roll as the angle times the focal length.
        errors : Tensor
            Logarithm of the expected path error in cells, shape (B, M).
        """
        count, regions = rasters.shape[:2]
        peak = rasters.flatten(2).amax(2).clamp_min(1e-6)[..., None, None]
        tokens = self.region((rasters / peak).reshape(-1, 1, RASTER, RASTER))
        logs = torch.stack([scale.log()[:, None].expand(count, regions), peak[..., 0, 0].log()], 2)
        place = torch.cat([rays, rays.square(), logs], 2)
        tokens = tokens.reshape(count, regions, -1) + self.place(place)
        if regions > 1:
            for layer in self.mixing:
                tokens = layer(tokens, src_key_padding_mask=~known)
        weights = known[..., None] / known.sum(1)[:, None, None]
        values = self.curves(self.norm((tokens * weights).sum(1)))
        values = values.reshape(count, HYPOTHESES, COEFFICIENTS * 3 + 1).float()
        curves = values[..., :-1].reshape(count, HYPOTHESES, COEFFICIENTS, 3)
        # Seen from further out, the same roll is a longer way.
        apart = (rays * known[..., None]).square().sum((1, 2)) / known.sum(1)
        arm = apart.sqrt().clamp_min(_LEAST_ROLL_ARM)
        roll = torch.where(known.sum(1) > 1, 1 / arm, 0.0)
        factors = torch.stack([torch.ones_like(roll), torch.ones_like(roll), roll], 1)
        return curves * factors[:, None, None], values[..., -1]


def centred_masses(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (M, 2), in px from the centre of mass, and shares of what is in a kernel."""
    rows, columns = kernel.nonzero(as_tuple=True)
    mass = kernel[rows, columns] / kernel.sum()
    points = torch.stack([columns, rows], 1).float()
    return points - (points * mass[:, None]).sum(0), mass


@torch.no_grad()
def network_curves(kernels: list[Tensor], rays: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Curves that explain all kernels at once, the most certain first.

    Parameters
    ----------
    kernels : list of Tensor
        Kernels of regions, each of odd sides and non-negative.
    rays : Tensor, optional
        ``((x - cx) / f, (y - cy) / f)`` of the regions' middles, shape (N, 2); needed for more
        than one kernel.

    Returns
    -------
    curves : Tensor
        Shape (M, K, 3), px.
    errors : Tensor
        Path errors in px to be expected, shape (M,).
    """
    network = _network()
    masses = [centred_masses(kernel) for kernel in kernels]
    reach = max(float(points.abs().max()) for points, _ in masses)
    scale = torch.tensor([max(1.0, reach / REACH)])
    rasters = torch.stack([rasterise(p[None], m[None], scale)[0] for p, m in masses])[None]
    places = torch.zeros(1, 2) if rays is None else rays.float()
    known = torch.ones(1, len(masses), dtype=torch.bool)
    curves, errors = network(rasters, places[None], scale, known)
    order = errors[0].argsort()
    return curves[0, order] * scale, errors[0, order].exp() * scale


@cache
def _network() -> KernelNetwork:
    from ..models.registry import load_kernel_network

    return load_kernel_network()
