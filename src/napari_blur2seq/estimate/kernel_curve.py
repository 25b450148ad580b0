r"""The smooth, ordered curve that a blur kernel is the picture of.

A curve is rendered as a kernel, its poses as Gaussians of a width :math:`s` of a pixel or less,
and fitted to the one :math:`k` that is given:

.. math:: \min_{a, s} \frac{\|R(a, s) - g * k\|^2}{\|g * k\|^2} + w\,\rho(a)

over the cosine coefficients :math:`a` of both displacements (see `curve`), with a narrow
Gaussian :math:`g` and the mean squared order :math:`\rho` of the terms by their power. A kernel
is wider than the path: of the pixels it is made of, and of the error of its estimate. What such
a smooth curve does not explain is mostly that.

Whether a stroke was made once or there and back, no descent finds out. It starts from what the
network takes the kernel for (`kernel_network`), from the shortest path through its mass, and from
Lissajous figures along its axes; the lowest end counts.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..progress import Parts
from .curve import MOST_COEFFICIENTS, cosine_basis, trace_kernel
from .descent import descend
from .kernel_network import network_curves

_POSES = 64
_STEPS, _QUICK_STEPS, _RATE = 120, 60, 0.35
# w above: a third to twice as much makes little difference.
_SMOOTHNESS = 0.02
# Spread of g, first s, and the least and the most, px.
_SOFTNESS, _FIRST_WIDTH, _WIDTHS = 0.6, 1.0, (0.6, 2.0)
# Logarithm of the width for a px of the descent.
_WIDTH_RATE = 0.3
_MARGIN = 4
# Of a kernel that is drawn: poses, so many that none of a long one lie apart, and their width, px.
_DRAWN, _DRAWN_WIDTH = 400, 0.8
# Orders along the longer and the shorter axis.
_FIGURES = [(1, 2), (1, 3), (2, 1), (2, 3)]


@torch.no_grad()
def kernel_curve(kernel: Tensor, *, quick: bool = False) -> Parts[Tensor]:
    """The curve (without roll) of one kernel, with pauses.

    Parameters
    ----------
    kernel : Tensor
        Odd sides, non-negative, shape (s, s).
    quick : bool
        Whether fewer steps from what the network takes it for will do, in a quarter of the time.

    Returns
    -------
    Tensor
        Cosine coefficients of pitch, yaw and roll in px, shape (16, 3).
    """
    kernel = F.pad(kernel / kernel.sum(), (_MARGIN,) * 4)
    middle, spread = _moments(kernel)
    curves = _paths(list(network_curves([kernel])[0]))
    if not quick:
        curves = torch.cat([_figures(spread), curves, _paths([trace_kernel(kernel)])])
    first = torch.cat([middle.expand(len(curves), 1, 2), curves], 1)
    width = first.new_zeros(len(first), 1, 2)
    basis = torch.cat([torch.ones(_POSES, 1), cosine_basis(_POSES, MOST_COEFFICIENTS)], 1)
    orders = torch.arange(MOST_COEFFICIENTS + 1.0)
    target = _smoothed(kernel)
    power = target.square().sum()

    def objective(values: Tensor) -> Tensor:
        path, widths = values[:, :-1], values[:, -1, 0]
        widths = (_FIRST_WIDTH * (_WIDTH_RATE * widths).exp()).clamp(*_WIDTHS)
        rendered = _rendered(torch.einsum("tk,skc->stc", basis, path), widths, len(kernel))
        unexplained = (rendered - target).square().sum((1, 2)) / power
        strength = path.square().sum(2)
        rough = (strength * orders.square()).sum(1) / (strength[:, 1:].sum(1) + 1)
        return unexplained + _SMOOTHNESS * rough

    starts = torch.cat([first, width], 1)
    steps = _QUICK_STEPS if quick else _STEPS
    values = yield from descend(objective, starts, steps=steps, rate=_RATE)
    x, y = values[objective(values).argmin(), 1:-1].unbind(1)
    # Yaw moves the picture along +x, pitch along -y.
    return torch.stack([-y, x, torch.zeros_like(x)], 1)


def drawn(curve: Tensor) -> Tensor:
    """The kernel of a curve (K, 3) in px, without its roll: odd sides, sum 1, room around it."""
    path = cosine_basis(_DRAWN, len(curve)).to(curve) @ torch.stack([curve[:, 1], -curve[:, 0]], 1)
    side = 2 * math.ceil(float(path.abs().max()) + _MARGIN) + 1
    kernel = _rendered(path[None], path.new_tensor([_DRAWN_WIDTH]), side)[0]
    return kernel / kernel.sum()


def _paths(curves: list[Tensor]) -> Tensor:
    """Displacements along x and y of curves, as many terms as are fitted; shape (S, K, 2)."""
    paths = torch.zeros(len(curves), MOST_COEFFICIENTS, 2)
    for path, curve in zip(paths, curves, strict=True):
        terms = curve[:MOST_COEFFICIENTS]
        path[: len(terms), 0], path[: len(terms), 1] = terms[:, 1], -terms[:, 0]
    return paths


def _moments(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Middle (2,), (x, y) in px, and covariance (2, 2) of a kernel of sum 1."""
    position = torch.arange(len(kernel), dtype=kernel.dtype) - len(kernel) // 2
    pixels = torch.stack(torch.meshgrid(position, position, indexing="xy"), -1)
    middle = (kernel[..., None] * pixels).sum((0, 1))
    apart = pixels - middle
    return middle, torch.einsum("yx,yxi,yxj->ij", kernel, apart, apart)


def _figures(spread: Tensor) -> Tensor:
    """Figures along the axes of a covariance; shape (S, K, 2)."""
    variances, axes = torch.linalg.eigh(spread)
    short, long = (2 * variances.clamp_min(0.05)).sqrt()
    figures = torch.zeros(2 * len(_FIGURES), MOST_COEFFICIENTS, 2)
    for i, (along, across) in enumerate(_FIGURES):
        for figure, sign in zip(figures[2 * i : 2 * i + 2], (1, -1), strict=True):
            figure[along - 1, 1], figure[across - 1, 0] = long, sign * short
    turned: Tensor = figures @ axes.T
    return turned


def _rendered(points: Tensor, widths: Tensor, side: int) -> Tensor:
    """Kernels (S, side, side) of points (S, T, 2) in px from the middle."""
    position = torch.arange(side) - side // 2
    apart = (points[..., None] - position) / widths[:, None, None, None]
    profiles = torch.exp(-0.5 * apart.square())
    profiles = profiles / profiles.sum(-1, keepdim=True).clamp_min(1e-6)
    x, y = profiles.unbind(2)
    result: Tensor = torch.einsum("sty,stx->syx", y, x) / points.shape[1]
    return result


def _smoothed(kernel: Tensor) -> Tensor:
    radius = int(3 * _SOFTNESS + 1)
    position = torch.arange(-radius, radius + 1)
    profile = torch.exp(-0.5 * (position / _SOFTNESS).square())
    profile = profile / profile.sum()
    result = F.conv2d(kernel[None, None], profile[None, None, None], padding=(0, radius))
    return F.conv2d(result, profile[None, None, :, None], padding=(radius, 0))[0, 0]
