r"""One rotation curve from the kernels of several parts of the picture.

Where the camera rolls, no single kernel blurs the whole picture, but one nearly does in a
small enough part. Each part's own curve :math:`p_n(t)` of displacements, up to its direction
in time, is a linear function of the camera's: for the middle :math:`x_n` of the part

.. math:: p_n(t) = J(x_n)\, r(t),

with :math:`J` the displacement of the point by a small pitch, yaw and roll. The directions
are those under which one :math:`r` fits all parts best.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ..camera import Camera
from .curve import displacements

_SHARE = 0.6
# Roll is only believed where the parts ask for it.
_ROLL_RIDGE = 0.02


def quadrants(shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Rows and columns of the four overlapping parts of a picture (H, W)."""
    (top, bottom), (left, right) = (
        (slice(0, int(length * _SHARE)), slice(length - int(length * _SHARE), length))
        for length in shape
    )
    return [(top, left), (top, right), (bottom, left), (bottom, right)]


def joined(curves: list[Tensor], points: Tensor, camera: Camera) -> list[tuple[float, Tensor]]:
    """Rotation curves (K, 3) for all choices of the parts' directions in time, best first.

    Each comes with its disagreement: the share of the parts' power that it leaves out.
    """
    order = max(len(curve) for curve in curves)
    principal = points.new_tensor([camera.principal_point])
    forward = responses(principal, camera)[0]
    shifts = torch.zeros(len(curves), order, 2)
    for shift, curve in zip(shifts, curves, strict=True):
        shift[: len(curve)] = curve @ forward.T
    # Backwards in time, cos(pi k t) changes sign for odd k.
    backwards = torch.tensor([(-1.0) ** k for k in range(1, order + 1)])[:, None]
    design = responses(points, camera).reshape(-1, 3)
    ridge = torch.diag(torch.tensor([0.0, 0.0, _ROLL_RIDGE]))
    solve = torch.linalg.inv(design.T @ design + ridge) @ design.T
    power = float(shifts.square().sum().clamp_min(1e-9))
    found = []
    for turned in itertools.product((False, True), repeat=len(curves) - 1):
        turns = (False, *turned)
        paths = [s * backwards if t else s for s, t in zip(shifts, turns, strict=True)]
        target = torch.stack(paths, 1).reshape(order, -1)
        curve = target @ solve.T
        found.append((float((target - curve @ design.T).square().sum()) / power, curve))
    return sorted(found, key=lambda f: f[0])


def agreeing(curves: list[list[Tensor]], points: Tensor, camera: Camera) -> Tensor:
    """Of several curves for each part, one for all parts but one: those that agree best.

    Wrong curves seldom agree on one motion of the camera.

    Parameters
    ----------
    curves : list of list of Tensor
        Candidates for each of N parts.
    points : Tensor
        Middle of each part, shape (N, 2).
    camera : Camera

    Returns
    -------
    Tensor
        Coefficients of pitch, yaw and roll in px, shape (K, 3).
    """
    found = []
    for left_out in range(len(curves)):
        parts = [i for i in range(len(curves)) if i != left_out]
        for choice in itertools.product(*(curves[i] for i in parts)):
            found.append(joined(list(choice), points[parts], camera)[0])
    return min(found, key=lambda f: f[0])[1]


def responses(points: Tensor, camera: Camera) -> Tensor:
    """Displacement of each point for one px of pitch, yaw and roll; shape (N, 2, 3)."""
    step = 0.5
    axes = step * torch.eye(3)[:, None]  # three curves of a single coefficient
    moved = displacements(axes, torch.ones(1, 1), points, camera)[:, 0]
    return (moved / step).permute(1, 2, 0)
