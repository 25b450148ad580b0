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
from collections.abc import Sequence

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
_LEAST_LOGARITHM = -30.0
# Of a kernel that is drawn: poses, so many that none of a long one lie apart, and their width, px.
_DRAWN, _DRAWN_WIDTH = 400, 0.8
# Orders along the longer and the shorter axis.
_FIGURES = [(1, 2), (1, 3), (2, 1), (2, 3)]


def kernel_curve(kernel: Tensor, *, quick: bool = False) -> Parts[Tensor]:
    """The curve of one kernel; see `kernel_curves`."""
    (curve,) = yield from kernel_curves([kernel], quick=quick)
    return curve


@torch.no_grad()
def kernel_curves(kernels: Sequence[Tensor], *, quick: bool = False) -> Parts[list[Tensor]]:
    """The curves (without roll) of kernels, all at once, with pauses.

    Parameters
    ----------
    kernels : sequence of Tensor
        Odd sides, non-negative, shape (s, s).
    quick : bool
        Whether fewer steps from what the network takes them for will do, in a quarter of the time.

    Returns
    -------
    list of Tensor
        Cosine coefficients of pitch, yaw and roll in px, shape (16, 3).
    """
    margin = max(len(kernel) for kernel in kernels) // 2 + _MARGIN
    kernels = [F.pad(k / k.sum(), (margin - len(k) // 2,) * 4) for k in kernels]
    starts = torch.stack([_starts(kernel, quick) for kernel in kernels])
    count, each = starts.shape[:2]
    targets = torch.stack([_smoothed(kernel) for kernel in kernels])
    fit = CurveFit(targets.repeat_interleave(each, 0))
    steps = _QUICK_STEPS if quick else _STEPS
    values = yield from descend(fit.gradients, starts.flatten(0, 1), steps=steps, rate=_RATE)
    best = fit.objective(values).reshape(count, each).argmin(1)
    x, y = values.reshape(starts.shape)[torch.arange(count), best, 1:-1].unbind(2)
    # Yaw moves the picture along +x, pitch along -y.
    return list(torch.stack([-y, x, torch.zeros_like(x)], 2))


def drawn(curve: Tensor) -> Tensor:
    """The kernel of a curve (K, 3) in px, without its roll: odd sides, sum 1, room around it."""
    path = cosine_basis(_DRAWN, len(curve)).to(curve) @ torch.stack([curve[:, 1], -curve[:, 0]], 1)
    side = 2 * math.ceil(float(path.abs().max()) + _MARGIN) + 1
    kernel = _Rendered(path[None], path.new_tensor([_DRAWN_WIDTH]), side).kernels[0]
    return kernel / kernel.sum()


def _starts(kernel: Tensor, quick: bool) -> Tensor:
    """Values, as for `CurveFit`, to begin with; shape (S, K + 2, 2)."""
    middle, spread = _moments(kernel)
    curves = _paths(list(network_curves([kernel])[0]))
    if not quick:
        curves = torch.cat([_figures(spread), curves, _paths([trace_kernel(kernel)])])
    first = torch.cat([middle.expand(len(curves), 1, 2), curves], 1)
    return torch.cat([first, first.new_zeros(len(first), 1, 2)], 1)


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


class CurveFit:
    """The objective of curves, each of its own kernel of the targets (S, side, side), and its
    gradient, which autograd takes longer for.

    Values (S, K + 2, 2) are the place of each curve's middle and its cosine coefficients, along x
    and y in px, and then its width twice: a logarithm by `_WIDTH_RATE`, of which the first counts.
    """

    def __init__(self, targets: Tensor) -> None:
        self._targets, self._power = targets, targets.square().sum((1, 2))
        basis = cosine_basis(_POSES, MOST_COEFFICIENTS)
        self._basis = torch.cat([torch.ones(_POSES, 1), basis], 1)
        self._squared_orders = torch.arange(MOST_COEFFICIENTS + 1.0).square()[:, None]

    def objective(self, values: Tensor) -> Tensor:
        """Numbers (S,)."""
        rendered = _Rendered(self._points(values), self._widths(values), self._targets.shape[-1])
        unexplained = (rendered.kernels - self._targets).square().sum((1, 2)) / self._power
        power, rough = self._roughness(values)
        return unexplained + _SMOOTHNESS * rough / power

    def gradients(self, values: Tensor) -> Tensor:
        """The same shape as the values."""
        widths = self._widths(values)
        rendered = _Rendered(self._points(values), widths, self._targets.shape[-1])
        to_kernels = (2 / self._power[:, None, None]) * (rendered.kernels - self._targets)
        to_points, to_widths = rendered.backward(to_kernels)
        inside = (widths > _WIDTHS[0]) & (widths < _WIDTHS[1])
        power, rough = (v[:, None, None] for v in self._roughness(values))
        path = values[:, :-1]
        others = rough / power * (self._squared_orders > 0)
        smoother = (2 * _SMOOTHNESS) * path / power * (self._squared_orders - others)
        result = torch.zeros_like(values)
        result[:, :-1] = self._basis.T @ to_points + smoother
        result[:, -1, 0] = _WIDTH_RATE * widths * to_widths * inside
        return result

    def _points(self, values: Tensor) -> Tensor:
        return self._basis @ values[:, :-1]

    def _widths(self, values: Tensor) -> Tensor:
        return (_FIRST_WIDTH * (_WIDTH_RATE * values[:, -1, 0]).exp()).clamp(*_WIDTHS)

    def _roughness(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Power of the terms, and the same times their squared order, each (S,)."""
        squares = values[:, :-1].square()
        return squares[:, 1:].sum((1, 2)) + 1, (squares * self._squared_orders).sum((1, 2))


class _Rendered:
    """Kernels (S, side, side) of points (S, T, 2) in px from the middle, as wide as (S,)."""

    def __init__(self, points: Tensor, widths: Tensor, side: int) -> None:
        position = torch.arange(side) - side // 2
        self._widths = widths[:, None, None, None]
        self._apart = (points[..., None] - position) / self._widths
        # Numbers that are nearly zero take a hundred times as long.
        profiles = (-0.5 * self._apart.square()).clamp_min_(_LEAST_LOGARITHM).exp_()
        # Of each point along x and y, (S, T, 2, side).
        self._profiles = profiles / profiles.sum(-1, keepdim=True).clamp_min(1e-6)
        x, y = self._profiles.unbind(2)
        self.kernels: Tensor = y.transpose(1, 2) @ x / points.shape[1]

    def backward(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients to the points and the widths from that to the kernels."""
        x, y = self._profiles.unbind(2)
        to_profiles = torch.stack([y @ gradient, x @ gradient.transpose(1, 2)], 2) / x.shape[1]
        # The profiles' sums stay one.
        mean = (to_profiles * self._profiles).sum(-1, keepdim=True)
        moved = (to_profiles - mean) * self._profiles * self._apart / self._widths
        return -moved.sum(-1), (moved * self._apart).sum((1, 2, 3))


def _smoothed(kernel: Tensor) -> Tensor:
    radius = int(3 * _SOFTNESS + 1)
    position = torch.arange(-radius, radius + 1)
    profile = torch.exp(-0.5 * (position / _SOFTNESS).square())
    profile = profile / profile.sum()
    result = F.conv2d(kernel[None, None], profile[None, None, None], padding=(0, radius))
    return F.conv2d(result, profile[None, None, :, None], padding=(radius, 0))[0, 0]
