r"""Smooth, ordered curves of camera rotation, fitted to what is seen of the blur.

Pitch, yaw and roll are cosine series in time,
:math:`r(t) = \sum_{k=1}^{K} a_k \cos(\pi k t)`, zero on average, given in pixels
(angle times focal length) so that all coefficients have the same scale.

The poses of a curve displace the image point :math:`x_n` by :math:`d_{jn}`. How well they
explain a region with the sharp gradients :math:`S` and the blurry ones :math:`B` needs no
picture any more, only two small tables: with the correlations
:math:`c_n(d) = \sum S(x) B(x + d)` and :math:`a_n(d) = \sum S(x) S(x + d)`,

.. math:: \Big\|\frac gT \sum_j S(\cdot - d_{jn}) - B\Big\|^2 =
          \frac{g^2}{T^2}\sum_{jj'} a_n(d_{jn} - d_{j'n})
          - \frac{2g}{T}\sum_j c_n(d_{jn}) + \text{const}.

Poses are drawn to where the correlation is high and keep each other apart. The best
gain :math:`g`, common to all regions, is put in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import Camera, rotation_matrices
from ..ordering import shortest_path
from ..progress import Parts
from ..trajectory import Trajectory
from .descent import descend, gradients

POSES = 48
MOST_COEFFICIENTS = 16
_LEAST_TRACED, _MOST_TRACED = 128, 160
_PATH_STARTS = 8


def cosine_basis(count: int, order: int) -> Tensor:
    """``cos(pi k t)``, k = 1..order, at the middles of `count` equal steps; (count, order)."""
    time = (torch.arange(count) + 0.5) / count
    return torch.stack([torch.cos(math.pi * k * time) for k in range(1, order + 1)], 1)


def to_trajectory(coefficients: Tensor, camera: Camera, count: int) -> Trajectory:
    """Trajectory of one curve; coefficients of shape (K, 3) in px."""
    rotations = cosine_basis(count, len(coefficients)) @ coefficients.cpu() / camera.focal_length
    return Trajectory.from_camera(rotations.numpy(), camera).centered()


def coefficients_of(poses: Tensor, order: int) -> Tensor:
    """The first cosine coefficients (order, 3) of poses (T, 3): the inverse of `cosine_basis`."""
    count = len(poses)
    coefficients: Tensor = 2 / count * cosine_basis(count, order).T @ poses
    return coefficients


def mean_order(coefficients: Tensor) -> float:
    """Root mean square order of the terms of a curve (K, 3), by their power."""
    power = coefficients.square().sum(1)
    orders = torch.arange(1.0, len(coefficients) + 1)
    return math.sqrt(float((power * orders.square()).sum() / (power.sum() + 1)))


@dataclass(frozen=True)
class Evidence:
    """Correlation tables of N regions: all that the fit needs to know of the picture.

    Attributes
    ----------
    cross : Tensor
        ``c_n``, shape (N, 2 r + 1, 2 r + 1), zero displacement in the middle.
    auto : Tensor
        ``a_n``, shape (N, 4 r + 1, 4 r + 1).
    points : Tensor
        Middle of each region, (x, y) in px, shape (N, 2).
    scale : float
        Divides the energies, so that they are of order one.
    """

    cross: Tensor
    auto: Tensor
    points: Tensor
    scale: float


def displacements(coefficients: Tensor, basis: Tensor, points: Tensor, camera: Camera) -> Tensor:
    """``H_j x - x`` in px of many curves (S, K, 3); shape (S, T, N, 2)."""
    f, centre = camera.focal_length, points.new_tensor(camera.principal_point)
    matrices = rotation_matrices(torch.einsum("tk,skc->stc", basis, coefficients) / f)
    rays = torch.cat([(points - centre) / f, torch.ones_like(points[:, :1])], 1)
    moved = torch.einsum("stij,nj->stni", matrices, rays)
    return (moved[..., :2] / moved[..., 2:] - rays[:, :2]) * f


def centred_displacements(poses: Tensor, points: Tensor, camera: Camera) -> Tensor:
    """``H_j x - x`` in px less their mean over time, of poses (..., T, 3) in px.

    Shape (..., N, T, 2).
    """
    # Each pose is a curve of one coefficient.
    moved = displacements(poses.reshape(-1, 1, 3), torch.ones(1, 1), points, camera)
    moved = moved.reshape(*poses.shape[:-1], len(points), 2).transpose(-3, -2)
    return moved - moved.mean(-2, keepdim=True)


def responses(points: Tensor, camera: Camera) -> Tensor:
    """Displacement of each point for one px of pitch, yaw and roll; shape (N, 2, 3)."""
    step = 0.5
    axes = step * torch.eye(3)[:, None]  # three curves of a single coefficient
    moved = displacements(axes, torch.ones(1, 1), points, camera)[:, 0]
    return (moved / step).permute(1, 2, 0)


def reach_of(trajectory: Trajectory) -> float:
    """Px that a point is displaced at most."""
    return float(np.abs(trajectory.paths(trajectory.grid())).max())


def _look_up(tables: Tensor, displacements: Tensor) -> Tensor:
    """Values of tables (N, s, s) at displacements (S, M, N, 2); shape (S, M, N)."""
    grid = displacements.permute(2, 0, 1, 3) / (tables.shape[-1] // 2)
    values = F.grid_sample(tables[:, None], grid, align_corners=True, padding_mode="border")
    return values[:, 0].permute(1, 2, 0)


def energy(coefficients: Tensor, basis: Tensor, evidence: Evidence, camera: Camera) -> Tensor:
    """Energy of each curve (S, K, 3) under the evidence; shape (S,)."""
    d = displacements(coefficients, basis, evidence.points, camera)
    count, poses, regions, _ = d.shape
    attraction = _look_up(evidence.cross, d).mean(1).sum(1)
    apart = (d[:, :, None] - d[:, None]).reshape(count, poses * poses, regions, 2)
    repulsion = _look_up(evidence.auto, apart).mean(1).sum(1)
    value = -attraction.clamp_min(1e-9).square() / repulsion.clamp_min(1e-9)
    return value / evidence.scale


def fit(
    coefficients: Tensor,
    evidence: Evidence,
    camera: Camera,
    *,
    steps: int,
    rate: float,
    smoothness: float,
) -> Parts[tuple[Tensor, Tensor]]:
    """Lower the energy of many curves at once by gradient descent, with pauses.

    Parameters
    ----------
    coefficients : Tensor
        Starts, shape (S, K, 3), px.
    evidence : Evidence
    camera : Camera
    steps : int
    rate : float
        Length of the first steps, px.
    smoothness : float
        Weight of the mean squared order of the series' terms, by their power.

    Returns
    -------
    coefficients : Tensor
        Shape (S, K, 3), px, lowest energy first.
    energies : Tensor
        Shape (S,).
    """
    basis = cosine_basis(POSES, coefficients.shape[1])
    orders = torch.arange(1, coefficients.shape[1] + 1)

    def objective(values: Tensor) -> Tensor:
        power = values.square().sum(2)
        rough = (power * orders.square()).sum(1) / (power.sum(1) + 1)
        return energy(values, basis, evidence, camera) + smoothness * rough

    descending = descend(gradients(objective), coefficients, steps=steps, rate=rate)
    values = yield from descending
    with torch.no_grad():
        final = objective(values)
    order = final.argsort()
    return values[order], final[order]


def trace_kernel(kernel: Tensor) -> Tensor:
    """The curve (without roll) that leaves nothing of a kernel out; shape (N - 1, 3), px.

    Points of equal mass in the order of the shortest open path through them, about two for
    each px of the longer way across, and all cosine terms that so many points have: where the
    camera dwells and turns sharply is kept, and so are the kernel's faults.
    """
    rows, columns = kernel.nonzero(as_tuple=True)
    across = int(max(rows.max() - rows.min(), columns.max() - columns.min()))
    count = min(max(_LEAST_TRACED, 2 * across), _MOST_TRACED)
    points = _equal_masses(kernel, count)
    points = points[torch.from_numpy(shortest_path(points.numpy(), _PATH_STARTS))]
    shift = 2 / count * cosine_basis(count, count - 1).T @ (points - points.mean(0))
    return torch.stack([-shift[:, 1], shift[:, 0], torch.zeros(count - 1)], 1)


def _equal_masses(kernel: Tensor, count: int, rounds: int = 40) -> Tensor:
    """Positions (count, 2), (x, y) from the middle in px, with about equal shares of the kernel."""
    middle = kernel.shape[0] // 2
    rows, columns = kernel.nonzero(as_tuple=True)
    mass = kernel[rows, columns]
    # Quarters of pixels, so that a short kernel can hold all points.
    parts = torch.tensor([[dx, dy] for dx in (-0.25, 0.25) for dy in (-0.25, 0.25)])
    pixels = (torch.stack([columns, rows], 1).float() - middle)[:, None] + parts
    pixels, mass = pixels.reshape(-1, 2), mass.repeat_interleave(4) / 4
    cumulative = mass.cumsum(0) / mass.sum()
    steps = (torch.arange(count) + 0.5) / count
    points = pixels[torch.searchsorted(cumulative, steps).clamp(max=len(pixels) - 1)]
    points = points + 1e-3 * torch.stack([steps, steps.flip(0)], 1)
    penalty = torch.zeros(count)
    scale = float((pixels - (pixels * mass[:, None]).sum(0)).square().sum(1).mean()) / count
    for _ in range(rounds):
        # Cells that hold too much pay more, so that masses even out (capacity by pricing).
        nearest = (torch.cdist(pixels, points).square() + penalty).argmin(1)
        share = torch.zeros(count).index_add_(0, nearest, mass)
        total = torch.zeros(count, 2).index_add_(0, nearest, pixels * mass[:, None])
        points = torch.where(share[:, None] > 0, total / share.clamp_min(1e-12)[:, None], points)
        penalty = penalty + 0.5 * scale * (share * count - 1)
    return points
