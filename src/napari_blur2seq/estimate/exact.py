r"""What a trajectory leaves unexplained when all of the picture is restored with it.

.. math:: \log\big(\mathrm{MSE}(A u - v) + c\,\sigma^2\big)
          + 3 \log\frac{\|\nabla u\|_1}{\|\nabla u\|_2},

much as the cost of `judge`, of the picture :math:`u` that `restore_steps` makes with the sparse
prior. The judge looks at tiles with one kernel each, restored in haste. Through a wide lens the
blur changes within a tile, so that the true motion is held for no better than wrong ones; here it
nearly always costs least. It takes up to ten times as long, and is for choosing among few: a
descent finds its faults.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..motion_blur import MotionBlur
from ..progress import Steps, announced, within
from ..restoration.half_quadratic import corners_of, reach_at_corners, restore_steps
from ..restoration.local_blur import LocalBlur
from ..restoration.sparse import SparseGradientPrior
from ..trajectory import Trajectory
from .judge import Verdict, norm_ratio
from .view import View

# Pictures are reduced to so many.
EXACT_PIXELS = 160_000
# Poses: as many as px, so that the exact blur leaves no gaps, and no fewer than show where the
# camera dwells.
_LEAST_POSES = 64
# Px, of all points: poses nearer to each other are sampled as one.
_MERGED = 0.7
# Steps of the restoration: eight choose alike.
_ITERATIONS = 5
# dB; 8 to 12 choose alike.
_WEIGHT = 8.0
# Beside it, of the gain that the judge foretells, and of the likelihood, dB for a hundredth.
_GAIN_WEIGHT, _LIKELIHOOD_WEIGHT = 0.25, 0.1
# c and 3 above: without the former, no motion at all would explain a picture best, noise included.
# Where less than the noise is left unexplained, the ratio tells more: short motions leave least.
_NOISE, _RATIO = 0.3, 3.0
# Px on every side that are left out.
_BORDER = 8
_MESSAGE = "Restoring with a trajectory"


def exact_cost_steps(view: View, motion: Trajectory) -> Steps[float]:
    """Cost of a motion, lower is better.

    Parameters
    ----------
    view : View
        The picture, of `EXACT_PIXELS`, as all of it is restored.
    motion : Trajectory
        As a camera of any resolution saw it.

    Yields
    ------
    Progress

    Returns
    -------
    float
    """
    poses = motion.resample(max(_LEAST_POSES, math.ceil(motion.extent)))
    seen = Trajectory.from_camera(poses.rotations, view.camera)
    blurry = view.grey[None]
    prior = SparseGradientPrior(iterations=_ITERATIONS)
    # Through a long lens the blur changes little from place to place.
    operator = _merged if view.varies else LocalBlur
    restoring = restore_steps(blurry, seen, prior, noise=view.noise, operator=operator)
    restored = yield from within(restoring, 0, 0.95, "estimate", _MESSAGE)
    blurring = operator(seen, blurry.device, blurry.dtype).parts(restored[None])
    again = yield from announced(blurring, "estimate", 0.95, 1, _MESSAGE)
    # Where the scene is not in the picture, what a motion explains depends on how long it is.
    unseen = min(max(reach_at_corners(seen), _BORDER), min(blurry.shape[1:]) // 3)
    unexplained = _inner(again[0] - blurry, unseen).square().mean() + _NOISE * view.noise**2
    return float(unexplained.log() + _RATIO * norm_ratio(_inner(restored, _BORDER)).log())


def exact_score(verdict: Verdict, cost: float) -> float:
    """`Verdict.score` where the exact cost takes the place of the classical one, dB."""
    beside = _GAIN_WEIGHT * verdict.gain + _LIKELIHOOD_WEIGHT * verdict.likelihood
    return beside - _WEIGHT * cost


def _inner(picture: Tensor, border: int) -> Tensor:
    return picture[..., border:-border, border:-border]


def _merged(motion: Trajectory, device: torch.device, dtype: torch.dtype) -> MotionBlur:
    """The exact blur, with poses that follow each other within a part of a px taken for one."""
    paths = motion.paths([*corners_of(motion.image_shape), motion.principal_point])
    groups, first = [0], 0
    for i in range(1, len(motion)):
        apart = np.linalg.norm(paths[i] - paths[first], axis=-1).max() > _MERGED
        first = i if apart else first
        groups.append(groups[-1] + apart)
    counts = np.bincount(groups)
    sums = [np.bincount(groups, axis) for axis in motion.rotations.T]
    poses = Trajectory.from_camera(np.stack(sums, 1) / counts[:, None], motion.camera)
    return MotionBlur(poses, device, dtype, weights=torch.from_numpy(counts / len(motion)))
