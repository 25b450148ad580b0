r"""A trajectory made better by climbing: the judge's score as a function of the motion.

.. math:: \max_a\; g(a) - w\,c(a) - s\,\rho(a) - p\,\|d(a) - d(a_0)\|

over the first cosine coefficients :math:`a` of pitch, yaw and roll (see `curve`), with the gain
:math:`g` and the cost :math:`c` of `judge`, both of a quick restoration with the motion, the
roughness :math:`\rho`, and the distance in px from the displacements of the start. The picture
is cut into tiles, each with the kernel of its middle, so that everything is a few Fourier
transforms, and the gradient goes through all of them: through the restoration's steps, the
kernels and the network.

The gain alone is deceived within a few steps, the cost alone drifts, and both are flat
far from the truth: short steps from a good start pay, others do not, and a move must pay
for its length.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.fft import irfft2, rfft2

from ..fourier import fast_size, transfer_functions
from ..progress import Progress, Steps, within
from ..restoration.half_quadratic import SATURATED
from ..restoration.sparse import SparseGradientPrior
from ..trajectory import Trajectory
from .curve import cosine_basis, displacements
from .judge import (
    CELL,
    COST_WEIGHT,
    ITERATIONS,
    LEAST_NOISE,
    POWER,
    ROUNDS,
    log_ratio,
    norm_ratio,
    shipped_judge,
    verdict_steps,
)
from .kernel_network import rasterise
from .view import FINE_PIXELS, View

STEPS = 30
_TERMS = 16
_POSES = 64
_TILE = 160
_RATE = 0.05
# Roll is seen from further away than pitch and yaw.
_ROLL_RATE = 2.0
_ROUGHNESS = 0.1
# dB a px: what gains less by moving is as likely a fault of the objective.
_PRICE = 1.0
_LEAST_DISTANCE = 0.05
# Another climb follows one that gained this much, dB; when each begins, as a share of the work.
_WORTH_MORE = 0.5
_SHARES = (0.0, 0.5, 0.75, 0.9)


class Objective:
    """The score of motions of one picture, differentiable.

    Parameters
    ----------
    view : View
        The picture.
    reach : float
        Px that a point may be displaced from its middle place.
    poses : int
        Of the motions.
    """

    def __init__(self, view: View, reach: float, poses: int) -> None:
        height, width = view.grey.shape
        self._camera, self._reach = view.camera, math.ceil(reach) + 6
        margin = int(1.25 * self._reach) + 8
        side = max(_TILE, 2 * self._reach)
        inner = [min(side, length) // CELL * CELL for length in (height, width)]
        self._size = (fast_size(inner[0] + 2 * margin), fast_size(inner[1] + 2 * margin))
        tops, lefts = (
            _starts(length, part) for length, part in zip((height, width), inner, strict=True)
        )
        self._inner = (
            ...,
            slice(margin, margin + inner[0]),
            slice(margin, margin + inner[1]),
        )
        pictures, inside, middles = [], [], []
        for top in tops:
            for left in lefts:
                y = torch.arange(top - margin, top - margin + self._size[0])
                x = torch.arange(left - margin, left - margin + self._size[1])
                rows, columns = y.clamp(0, height - 1), x.clamp(0, width - 1)
                pictures.append(view.grey[rows][:, columns])
                seen = (rows == y).float()[:, None] * (columns == x).float()
                inside.append(seen)
                middles.append([left + (inner[1] - 1) / 2, top + (inner[0] - 1) / 2])
        self._observed, self._inside = torch.stack(pictures)[:, None], torch.stack(inside)[:, None]
        self._saturated = self._observed >= SATURATED
        self._middles = torch.tensor(middles)
        self._noise = torch.full((len(middles),), max(view.noise, 1 / 500))
        self._assumed = max(view.noise, LEAST_NOISE)
        self._basis = cosine_basis(poses, _TERMS)
        self._prior = SparseGradientPrior(power=POWER, rounds=ROUNDS)

    def __call__(self, coefficients: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """Score of the motion ``basis @ coefficients + rest``, and where it brings the tiles.

        Parameters
        ----------
        coefficients : Tensor
            Cosine coefficients of pitch, yaw and roll in px, shape (K, 3).
        rest : Tensor
            What they leave out of each pose, px, shape (T, 3).

        Returns
        -------
        score : Tensor
            dB.
        moved : Tensor
            Displacements of the tiles' middles in px, zero on average, shape (N, T, 2).
        """
        poses = self._basis @ coefficients + rest
        # Each pose is a curve of one coefficient.
        moved = displacements(poses[:, None], torch.ones(1, 1), self._middles, self._camera)
        moved = moved[:, 0].transpose(0, 1)
        moved = (moved - moved.mean(1, keepdim=True)).clamp(-self._reach, self._reach)
        weights = torch.full(moved.shape[:2], 1 / moved.shape[1])
        kernels = rasterise(moved, weights, torch.ones(len(moved)), 2 * self._reach + 5)
        restored, residual = self._quick_restoration(kernels)
        pictures = [p[self._inner] for p in (self._observed, restored.clamp(0, 1), residual)]
        logs = shipped_judge()(*pictures, self._noise)
        # Of all tiles together.
        gain = -10 / math.log(10) * log_ratio(torch.cat(logs.unbind(0), 1)[None])[0]
        unexplained = pictures[2].square().mean() + self._assumed**2
        cost = unexplained.log() + 3 * norm_ratio(pictures[1]).log()
        roughness = (coefficients.square().sum(1) * _orders().square()).sum()
        roughness = roughness / (coefficients.detach().square().sum() + 1)
        return gain - COST_WEIGHT * cost - _ROUGHNESS * roughness, moved

    def _quick_restoration(self, kernels: Tensor) -> tuple[Tensor, Tensor]:
        """As `judge.verdict_steps` restores, every tile with its own kernel; and the residual."""
        transfer = transfer_functions(kernels, self._size)[:, None]
        power = transfer.abs().square()
        last = 2 * self._assumed
        first = max(self._prior.known.first_sigma, last)
        picture = self._observed
        for k in range(ITERATIONS):
            level = first * (last / first) ** (k / (ITERATIONS - 1))
            residual = (self._observed - self._blurred(picture, transfer)) * self._inside
            # Above the clipping level any value is right, as in `restore_steps`.
            residual = torch.where(self._saturated, residual.clamp_min(0), residual)
            correction = rfft2(residual) * transfer.conj() / (power + (last / level) ** 2)
            picture = self._prior.denoise(picture + irfft2(correction, s=self._size), level)
        return picture, self._blurred(picture, transfer) - self._observed

    def _blurred(self, picture: Tensor, transfer: Tensor) -> Tensor:
        blurred: Tensor = irfft2(transfer * rfft2(picture), s=self._size)
        return blurred


@dataclass(frozen=True)
class Refinement:
    """A trajectory and how it was come by.

    Attributes
    ----------
    trajectory : Trajectory
        As many poses as before.
    objective : list of float
        The objective in dB at the start and after every step that was kept, rising; the start
        alone if the trajectory is the one there was.
    """

    trajectory: Trajectory
    objective: list[float]


def refine_steps(image: Tensor, trajectory: Trajectory, *, steps: int = STEPS) -> Steps[Refinement]:
    """Climb from a trajectory of a picture (C, H, W) in [0, 1]; see the module's text.

    What is found is kept if the picture as a whole, too, is judged to be better for it.

    Parameters
    ----------
    image : Tensor
    trajectory : Trajectory
    steps : int
        Of a climb; up to three follow each other while they pay.

    Yields
    ------
    Progress
        Events of the stage ``"refine"``.

    Returns
    -------
    Refinement
    """
    count = len(trajectory)
    view = View.of(image.cpu(), trajectory.camera, FINE_PIXELS).middle()
    dense = trajectory.resample(max(_POSES, count)).centered()
    before = Trajectory.from_camera(dense.rotations, view.camera)
    reach = float(np.abs(before.paths(before.grid())).max())
    objective = Objective(view, 1.2 * reach, len(before))
    after, values = before, list[float]()
    for begin, end in itertools.pairwise(_SHARES):
        climbing = _climb_steps(objective, after, steps)
        after, found = yield from within(climbing, begin, end)
        values += found[1:] if values else found
        if found[-1] - found[0] < _WORTH_MORE:
            break
    scores = []
    for i, motion in enumerate((before, after)):
        judging = verdict_steps(view.grey[None], motion, view.noise)
        begin = 0.9 + 0.05 * i
        verdict = yield from within(judging, begin, begin + 0.05, "refine", "Judging the motion")
        scores.append(verdict.score)
    if scores[1] <= scores[0]:
        return Refinement(trajectory, values[:1])
    refined = Trajectory.from_camera(after.rotations, trajectory.camera, dense.times)
    return Refinement(refined.resample(count).centered(), values)


def _climb_steps(
    objective: Objective, trajectory: Trajectory, steps: int
) -> Steps[tuple[Trajectory, list[float]]]:
    """Gradient ascent with momentum.

    The step of each coefficient is divided by the mean of its own gradient and of all
    coefficients', and is shorter for higher terms.
    """
    count, focal_length = len(trajectory), trajectory.focal_length
    poses = torch.tensor(trajectory.rotations, dtype=torch.float32) * focal_length
    basis = cosine_basis(count, _TERMS)
    values = 2 / count * basis.T @ poses
    rest = poses - basis @ values
    rates = _RATE / _orders()[:, None].sqrt() * torch.tensor([1.0, 1.0, _ROLL_RATE])
    best, kept = values, list[float]()
    _, first = objective(values, rest)
    mean, square = torch.zeros_like(values), torch.zeros_like(values)
    for step in range(1, steps + 2):
        with torch.enable_grad():
            current = values.clone().requires_grad_(True)
            score, moved = objective(current, rest)
            distance = ((moved - first).square().sum(-1).mean() + _LEAST_DISTANCE**2).sqrt()
            score = score - _PRICE * (distance - _LEAST_DISTANCE)
            (gradient,) = torch.autograd.grad(score, current)
        if not kept or float(score) > kept[-1]:
            best = values
            kept.append(float(score))
        message = f"Step {step} of {steps}: {kept[-1] - kept[0]:+.2f} dB"
        yield Progress("refine", step / (steps + 1), message)
        mean.lerp_(gradient, 0.2)
        square.lerp_(gradient.square(), 0.05)
        size = (square / (1 - 0.95**step)).sqrt()
        size = 0.5 * (size + size.mean()) + 1e-8
        shorter = 0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        values = values + shorter * rates * mean / (1 - 0.8**step) / size
    rotations = (basis @ best + rest) / focal_length
    return Trajectory.from_camera(rotations.numpy(), trajectory.camera).centered(), kept


def _orders() -> Tensor:
    return torch.arange(1.0, _TERMS + 1)


def _starts(length: int, part: int) -> list[int]:
    """Even starts of parts that leave out no more than a quarter of one."""
    count = max(1, math.ceil((length - part / 4) / part))
    if count == 1:
        return [(length - part) // 2]
    return [round(k * (length - part) / (count - 1)) for k in range(count)]
