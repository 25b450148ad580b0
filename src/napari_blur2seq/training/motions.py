"""Random camera motions in batches, from recordings, simulated tremor and known trajectories.

A recording's rates are integrated once; a motion is then a few look-ups in a table, so that
thousands can be drawn in a second. Angles add up to first order only, which is all that
motions drawn at random, turned at random and scaled at random need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..camera import rotation_matrices
from ..errors import OptionError
from ..shake import GyroscopeLog, simulate_gyroscope
from ..trajectory import Trajectory

_STEP = 1e-3
_EXPOSURES = (0.02, 0.3)
_SIMULATED_RECORDINGS = 24
_SIMULATED_SECONDS = 10.0
_FOCAL_LENGTHS = (0.5, 6.0)
_MOST_CROPPED = 3.0
_GRID = (0.1, 0.5, 0.9)
_HELD_OUT = 0.2


@dataclass(frozen=True)
class _Path:
    """Angles (N, 3) at equal steps, and the range of steps in an exposure."""

    angles: NDArray[np.float64]
    shortest: float
    most: float = math.inf

    @property
    def longest(self) -> float:
        return min(self.most, len(self.angles) - 1.0)


class Motions:
    """Motions of random exposure, turned about random axes; their size is the caller's choice.

    Parameters
    ----------
    recordings : sequence of GyroscopeLog
        Parts without a gap are used.
    trajectories : sequence of Trajectory
        Their poses are drawn whole or in part.
    tremor : bool
        Whether simulated hand tremor is drawn, too.
    device : torch.device
        Where the motions are made.
    """

    def __init__(
        self,
        recordings: Sequence[GyroscopeLog] = (),
        trajectories: Sequence[Trajectory] = (),
        *,
        tremor: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        families = [
            [part for log in recordings for part in _integrated(log)],
            [part for log in _simulated() for part in _integrated(log)] if tremor else [],
            [_Path(t.rotations, (len(t) - 1) / 2) for t in trajectories if len(t) > 2],
        ]
        paths = [path for family in families for path in family]
        if not paths:
            raise OptionError("There is nothing to draw motions from; give a recording.")
        # Every family is as likely as the others, every second within it, too.
        weights = [len(p.angles) / sum(len(q.angles) for q in f) for f in families for p in f]
        lengths = np.array([len(path.angles) for path in paths])
        self._weights = torch.tensor(weights, device=device)
        self._angles = torch.from_numpy(np.concatenate([p.angles for p in paths]))
        self._angles = self._angles.float().to(device)
        self._first = torch.from_numpy(np.cumsum(lengths) - lengths).to(device)
        self._last = torch.from_numpy(lengths - 1).float().to(device)
        self._shortest = torch.tensor([path.shortest for path in paths], device=device)
        self._longest = torch.tensor([path.longest for path in paths], device=device)
        self.device = torch.device(device)

    def sample(self, count: int, poses: int, generator: torch.Generator) -> Tensor:
        """Rotation vectors in rad, zero on average, shape (count, poses, 3)."""
        run = torch.multinomial(self._weights, count, replacement=True, generator=generator)
        a, b = (_uniform(count, generator, self.device) for _ in range(2))
        last, shortest, longest = self._last[run], self._shortest[run], self._longest[run]
        exposure = shortest * (longest / shortest) ** a
        start = b * (last - exposure)
        share = torch.linspace(0, 1, poses, device=self.device)
        moment = start[:, None] + exposure[:, None] * share
        low = torch.minimum(moment.floor(), last[:, None] - 1).clamp_min(0)
        part = (moment - low)[..., None]
        index = self._first[run][:, None] + low.long()
        angles = torch.lerp(self._angles[index], self._angles[index + 1], part)
        angles = angles @ _random_axes(count, generator, self.device)
        return angles - angles.mean(1, keepdim=True)


def divided(
    recordings: Sequence[GyroscopeLog],
) -> tuple[list[GyroscopeLog], list[GyroscopeLog]]:
    """The first four fifths of each recording, and the last."""
    used, held = [], []
    for log in recordings:
        end = log.times[0] + (1 - _HELD_OUT) * (log.times[-1] - log.times[0])
        early = log.times <= end
        if min(early.sum(), (~early).sum()) < 2:
            raise OptionError("The gyroscope recording is too short to be divided.")
        used.append(GyroscopeLog(log.times[early], log.rates[early]))
        held.append(GyroscopeLog(log.times[~early], log.rates[~early]))
    return used, held


def random_cameras(
    count: int, shape: tuple[int, int], generator: torch.Generator, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Focal lengths and principal points of pictures (height, width) cut out of larger ones.

    Returns
    -------
    focal_length : Tensor
        Pixels, 0.5 to 6 widths of the larger picture, shape (count,).
    principal_point : Tensor
        (x, y) in px, shape (count, 2).
    """
    size = torch.tensor([shape[1], shape[0]], dtype=torch.float32, device=device)
    whole = _MOST_CROPPED ** _uniform(count, generator, device)
    place = _uniform((count, 2), generator, device) - 0.5
    least, most = _FOCAL_LENGTHS
    focal = least * (most / least) ** _uniform(count, generator, device)
    return focal * whole * size.max(), size / 2 + place * size * (whole[:, None] - 1)


def rays(points: Tensor, focal_length: Tensor, principal_point: Tensor) -> Tensor:
    """``((x - cx) / f, (y - cy) / f)`` of points (N, 2) or (B, N, 2); shape (B, N, 2)."""
    return (points - principal_point[:, None]) / focal_length[:, None, None]


def displacements(rotations: Tensor, rays: Tensor, focal_length: Tensor) -> Tensor:
    """``H_j x - x`` in px of a batch of motions.

    Parameters
    ----------
    rotations : Tensor
        Shape (B, T, 3), rad.
    rays : Tensor
        Shape (B, N, 2).
    focal_length : Tensor
        Shape (B,), px.

    Returns
    -------
    Tensor
        Shape (B, T, N, 2).
    """
    matrices = rotation_matrices(rotations)
    ones = torch.ones_like(rays[..., :1])
    moved = torch.einsum("btij,bnj->btni", matrices, torch.cat([rays, ones], -1))
    apart = moved[..., :2] / moved[..., 2:] - rays[:, None]
    return apart * focal_length[:, None, None, None]


def grid_points(shape: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """The 3x3 points (x, y) at which extents and errors are taken, shape (9, 2)."""
    y, x = (torch.tensor(_GRID, device=device) * (side - 1) for side in shape)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)


def extents(moved: Tensor) -> Tensor:
    """Largest distance between two displacements of a point; (B, T, N, 2) to (B,)."""
    paths = moved.transpose(1, 2)
    return torch.cdist(paths, paths).flatten(1).amax(1)


def with_extents(rotations: Tensor, rays: Tensor, focal_length: Tensor, extent: Tensor) -> Tensor:
    """The same motions scaled so that their extents at the rays are those asked for, in px."""
    for _ in range(4):  # all but linear in the angles
        now = extents(displacements(rotations, rays, focal_length))
        rotations = rotations * (extent / now.clamp_min(1e-6))[:, None, None]
    return rotations


def _simulated() -> list[GyroscopeLog]:
    generator = np.random.default_rng(0)
    return [
        simulate_gyroscope(
            _SIMULATED_SECONDS,
            frequency=generator.uniform(6, 14),
            tremor_share=generator.uniform(0, 0.8),
            roll_ratio=generator.uniform(0.2, 1.0),
            seed=seed,
        )
        for seed in range(_SIMULATED_RECORDINGS)
    ]


def _integrated(log: GyroscopeLog) -> list[_Path]:
    """Angles at steps of 1 ms in each part of a recording without a gap."""
    shortest, longest = (exposure / _STEP for exposure in _EXPOSURES)
    parts = []
    for begin, end in log.runs():
        times = np.arange(begin, end, _STEP)
        if len(times) <= shortest + 1:
            continue
        rates = np.stack([np.interp(times, log.times, axis) for axis in log.rates.T], axis=1)
        # When the camera turns one way, the picture turns the other.
        parts.append(_Path(-np.cumsum(rates, axis=0) * _STEP, shortest, longest))
    return parts


def _random_axes(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Orthogonal matrices (count, 3, 3): half of them keep the optical axis, half are any."""
    around = _uniform(count, generator, device) * (2 * torch.pi)
    zero = torch.zeros_like(around)
    axis = torch.stack([zero, zero, around], 1)
    any_axis = torch.randn(count, 3, 3, generator=generator, device=device)
    turned = torch.linalg.qr(any_axis).Q
    keeps = (_uniform(count, generator, device) < 0.5)[:, None, None]
    mirror = torch.sign(_uniform((count, 1, 3), generator, device) - 0.5)
    return torch.where(keeps, rotation_matrices(axis), turned) * mirror


def _uniform(
    shape: int | tuple[int, ...], generator: torch.Generator, device: torch.device | str
) -> Tensor:
    return torch.rand(shape, generator=generator, device=device)
