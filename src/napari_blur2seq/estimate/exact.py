r"""What all of a picture says of a trajectory, restored with it by the exact blur.

The judge looks at tiles with one kernel each, restored in haste. Through a wide lens the blur
changes within a tile, so that the true motion is held for no better than wrong ones; here it is
restored as `restore_steps` does with the sparse prior. A network of the judge's kind, which has
learned from such restorations, tells how much nearer to the sharp picture they are. Beside it
counts how little they leave unexplained, and how few and sharp their edges are,

.. math:: \log\big(\mathrm{MSE}(A u - v) + c\,\sigma^2\big)
          + 3 \log\frac{\|\nabla u\|_1}{\|\nabla u\|_2},

much as in the cost of `judge`: the true motion nearly always costs least. All this takes up to ten
times as long as the judge, and is for choosing among few: a descent finds its faults.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ..motion_blur import MotionBlur
from ..progress import Progress, Steps, announced, within
from ..restoration.half_quadratic import reach_at_corners, restore_steps
from ..restoration.local_blur import LocalBlur
from ..restoration.merged_poses import merged_blur
from ..restoration.sparse import SparseGradientPrior
from ..trajectory import Trajectory
from .judge import CELL, Judge, Verdict, gain_in_cells, norm_ratio, whole_gain
from .view import View

# Pictures are reduced to so many.
EXACT_PIXELS = 160_000
# Poses: as many as px, so that the exact blur leaves no gaps, and no fewer than show where the
# camera dwells.
_LEAST_POSES = 64
# Px, of all points, and of the extent: poses nearer to each other are sampled as one.
_MERGED, _MERGED_SHARE = 0.7, 0.05
# Steps of the restoration: eight choose alike.
_ITERATIONS = 5
# dB; 2 to 8 choose alike.
_COST_WEIGHT = 4.0
# dB for a hundredth.
_LIKELIHOOD_WEIGHT = 0.1
# c and 3 above: without the former, no motion at all would explain a picture best, noise included.
# Where less than the noise is left unexplained, the ratio tells more: short motions leave least.
_NOISE, _RATIO = 0.3, 3.0
# Px on every side that are left out.
_BORDER = 8
_MESSAGE = "Restoring with a trajectory"


@dataclass(frozen=True)
class ExactVerdict:
    """What is to be expected of a trajectory.

    Attributes
    ----------
    gain : float
        In PSNR over the blurry picture, dB, of a restoration with the sparse prior.
    low_gain : float
        The gain that nine of ten cells of 16 px exceed, dB.
    cost : float
        See the module's text; lower is better.
    """

    gain: float
    low_gain: float
    cost: float

    @property
    def score(self) -> float:
        """Of several trajectories of one picture, the best has the highest, dB."""
        return self.gain - _COST_WEIGHT * self.cost


@cache
def shipped_exact_judge() -> Judge:
    """The network whose weights are in the package."""
    from ..models.registry import load_exact_judge

    return load_exact_judge()


def exact_restoration_steps(
    view: View, motion: Trajectory, *, among_lenses: bool = False
) -> Steps[tuple[Tensor, Tensor]]:
    """A picture restored with a motion, and what that leaves unexplained, (H, W) each.

    Parameters
    ----------
    view : View
        The picture, of `EXACT_PIXELS`.
    motion : Trajectory
        As a camera of any resolution saw it.
    among_lenses : bool
        Whether it is compared with motions through a wider lens.

    Yields
    ------
    Progress
    """
    poses = motion.resample(max(_LEAST_POSES, math.ceil(motion.extent)))
    seen = Trajectory.from_camera(poses.rotations, view.camera)
    blurry = view.grey[None]
    prior = SparseGradientPrior(iterations=_ITERATIONS)
    # Through a long lens the blur changes little from place to place. But what is foretold differs
    # by up to 0.6 dB with the way in which it is computed.
    operator = _merged if view.varies or among_lenses else LocalBlur
    restoring = restore_steps(blurry, seen, prior, noise=view.noise, operator=operator)
    restored = yield from within(restoring, 0, 0.95, "estimate", _MESSAGE)
    blurring = operator(seen, blurry.device, blurry.dtype).parts(restored[None])
    again = yield from announced(blurring, "estimate", 0.95, 1, _MESSAGE)
    return restored[0], (again[0] - blurry)[0]


def exact_verdict_steps(
    view: View, motion: Trajectory, *, among_lenses: bool = False
) -> Steps[ExactVerdict]:
    """Judge a motion; parameters as for `exact_restoration_steps`.

    Yields
    ------
    Progress

    Returns
    -------
    ExactVerdict
    """
    restoring = exact_restoration_steps(view, motion, among_lenses=among_lenses)
    restored, residual = yield from within(restoring, 0, 0.95)
    yield Progress("estimate", 0.95, _MESSAGE)
    # Where the scene is not in the picture, what a motion explains depends on how long it is.
    reach = reach_at_corners(Trajectory.from_camera(motion.rotations, view.camera))
    unseen = min(max(reach, _BORDER), min(view.grey.shape) // 3)
    unexplained = _inner(residual, unseen).square().mean() + _NOISE * view.noise**2
    cost = float(unexplained.log() + _RATIO * norm_ratio(_inner(restored, _BORDER)).log())
    height, width = (n // CELL * CELL for n in restored.shape)
    pictures = [p[:height, :width] for p in (view.grey, restored.clamp(0, 1), residual)]
    noise = torch.tensor([view.noise])
    logs = shipped_exact_judge()(*(p[None, None] for p in pictures), noise)
    low_gain = float(gain_in_cells(logs).quantile(0.1))
    return ExactVerdict(float(whole_gain(logs)), low_gain, cost)


def exact_score(verdict: Verdict, exact: ExactVerdict) -> float:
    """The same with what the power spectrum says, whose tiles depend on the lens."""
    return exact.score + _LIKELIHOOD_WEIGHT * verdict.likelihood


def _inner(picture: Tensor, border: int) -> Tensor:
    return picture[..., border:-border, border:-border]


def _merged(motion: Trajectory, device: torch.device, dtype: torch.dtype) -> MotionBlur:
    return merged_blur(motion, device, dtype, max(_MERGED, _MERGED_SHARE * motion.extent))
