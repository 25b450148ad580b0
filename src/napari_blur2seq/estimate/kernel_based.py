"""Trajectory from one picture without any training: kernel, curve, regions, choice.

1. One uniform kernel, coarse to fine, from several starts (`uniform`).
2. Ordered curves of pitch and yaw through it (`curve.fit_kernel`).
3. The curve with roll, fitted to the correlations of overlapping regions (`regions`).
4. The hypothesis, zero motion included, under which the picture is most plausible
   (`implausibility_steps`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from ..camera import Camera
from ..fourier import differences
from ..metrics import path_error
from ..motion_blur import MotionBlur
from ..progress import Progress, Steps, announced, within
from ..restoration.half_quadratic import SATURATED, estimate_noise, restore_steps
from ..restoration.sparse import SparseGradientPrior
from ..trajectory import Trajectory
from .curve import fit, fit_kernel, to_trajectory
from .regions import gather
from .uniform import uniform_kernel

# Ridge and share of edges of each start: none is best for all pictures.
STARTS = ((0.5, 2.0), (0.1, 4.0), (1.0, 1.0))
DENSE = 64
_KERNEL_PIXELS = 700_000
_REGION_ROUNDS = 3
_ALLOWANCE = 1.2
_DISAGREEMENT = 0.4
_EDGE_WEIGHT = 2e-3
_JUDGED_SIDE = 512
# No hypothesis is judged by less: real pictures have errors other than noise.
_LEAST_NOISE = 0.01


@dataclass(frozen=True)
class Estimate:
    """A trajectory and how far it can be trusted.

    Attributes
    ----------
    trajectory : Trajectory
        Centred, densely sampled.
    moves : bool
        False if no motion explains the picture better than a camera at rest.
    spread : float
        Path error in px to the nearest hypothesis of another start.
    candidates : list of dict
        Extent (px) and cost of every hypothesis.
    """

    trajectory: Trajectory
    moves: bool
    spread: float
    candidates: list[dict[str, float]] = field(default_factory=list)


def grey_and_mask(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the channels, and 1 where no saturated pixel is near; both (H, W)."""
    saturated = (image >= SATURATED).any(0, keepdim=True)[None].to(image.dtype)
    near = F.max_pool2d(saturated, 5, stride=1, padding=2)[0, 0]
    return image.mean(0), 1 - near


def reduced(image: Tensor, pixels: int) -> tuple[Tensor, float]:
    """Picture (C, H, W) reduced to at most `pixels`, and the factor of its sides."""
    height, width = image.shape[-2:]
    factor = min(1.0, math.sqrt(pixels / (height * width)))
    if factor == 1:
        return image, 1.0
    size = (round(height * factor), round(width * factor))
    small = F.interpolate(image[None], size=size, mode="bicubic", antialias=True)[0]
    return small.clamp(0, 1), size[1] / width


def middle(image: Tensor, trajectory: Trajectory) -> tuple[Tensor, Trajectory]:
    """The middle of a picture (C, H, W), at most `_JUDGED_SIDE` px a side, and its trajectory."""
    height, width = image.shape[-2:]
    top, left = max(0, height - _JUDGED_SIDE) // 2, max(0, width - _JUDGED_SIDE) // 2
    cut = image[:, top : height - top, left : width - left]
    cx, cy = trajectory.principal_point
    camera = Camera(trajectory.focal_length, (cx - left, cy - top), (cut.shape[1], cut.shape[2]))
    return cut, Trajectory.from_camera(trajectory.rotations, camera, trajectory.times)


def implausibility_steps(grey: Tensor, trajectory: Trajectory, noise: float) -> Steps[float]:
    r"""Cost of a hypothesis: what it leaves unexplained, and how unlike a photograph the result is.

    .. math:: \log\big(\mathrm{MSE}(A u - v) + \sigma^2\big)
              + 3 \log\frac{\|\nabla u\|_1}{\|\nabla u\|_2}

    with :math:`u` restored with the sparse prior. The norm ratio is smallest for pictures of
    few, sharp edges: a wrong trajectory adds ringing, no trajectory leaves edges soft
    (Krishnan, Tay and Fergus, *Blind deconvolution using a normalized sparsity measure*,
    CVPR 2011).

    Parameters
    ----------
    grey : Tensor
        Shape (1, H, W), range [0, 1].
    trajectory : Trajectory
        Hypothesis.
    noise : float
        Standard deviation of the noise.
    """
    noise = max(noise, _LEAST_NOISE)
    prior = SparseGradientPrior()
    restored = yield from restore_steps(grey, trajectory, prior, noise=2 * noise)
    inner = slice(12, -12)
    residual = (MotionBlur(trajectory, grey.device)(restored[None])[0] - grey)[:, inner, inner]
    dx, dy = differences(restored[:, 8:-8, 8:-8])
    magnitude = (dx.square() + dy.square()).sqrt()
    sparsity = magnitude.mean() / magnitude.square().mean().sqrt()
    return float((residual.square().mean() + noise**2).log() + 3 * sparsity.log())


def _spread(chosen: Trajectory, *families: list[Trajectory]) -> float:
    """Path error in px to the nearest hypothesis of the same kind from another start."""
    family = next((f for f in families if any(h is chosen for h in f)), families[0])
    return min(path_error(chosen, other) for other in family if other is not chosen)


def estimate_steps(image: Tensor, camera: Camera) -> Steps[Estimate]:
    """Estimate the trajectory of a picture (C, H, W) in [0, 1]; see the module's text.

    Yields
    ------
    Progress
        Events of the stage ``"estimate"``.

    Returns
    -------
    Estimate
    """
    small, factor = reduced(image.cpu(), _KERNEL_PIXELS)
    small_shape = (small.shape[-2], small.shape[-1])
    grey, mask = grey_and_mask(small)
    noise = max(estimate_noise(small), 1 / 255)
    small_camera = camera if factor == 1 else camera.scaled(factor, factor, small_shape)
    rest = Trajectory.zero(small_shape, DENSE, small_camera.focal_length)
    uniform: list[Trajectory] = []
    regional: list[Trajectory] = []
    share = 0.8 / len(STARTS)
    for i, (ridge, edges) in enumerate(STARTS):
        done = i * share
        for fraction, kernel in uniform_kernel(grey, mask, ridge, edges):
            message = (
                f"Estimating the blur kernel ({kernel.shape[0]} px), start {i + 1} of {len(STARTS)}"
            )
            yield Progress("estimate", done + 0.6 * share * fraction, message)
        curve = fit_kernel(kernel)
        uniform.append(to_trajectory(curve, small_camera, DENSE))
        for j in range(_REGION_ROUNDS):
            start, stop = (done + share * (0.6 + 0.4 * (j + k) / _REGION_ROUNDS) for k in (0, 1))
            halfway = (start + stop) / 2
            current = to_trajectory(curve, small_camera, DENSE)
            message = "Looking at the edges of the regions"
            parts = gather(grey, mask, current, _EDGE_WEIGHT / 1.2**j)
            evidence = yield from announced(parts, "estimate", start, halfway, message)
            message = "Fitting the trajectory to the regions"
            fitting = fit(curve[None], evidence, small_camera, steps=100, rate=0.35, smoothness=0.1)
            fitted, _ = yield from announced(fitting, "estimate", halfway, stop, message)
            finer = fitted[0]
            # Regions without texture hold nothing back; a motion twice as long is not finer.
            if to_trajectory(finer, small_camera, DENSE).extent > 2 * uniform[-1].extent + 4:
                break
            curve = finer
        regional.append(to_trajectory(curve, small_camera, DENSE))
    longest = 0.6 * min(small_shape)
    moving = [h for h in (*uniform, *regional) if h.extent < longest]
    hypotheses = [rest, *moving]
    costs: list[float] = []
    for i, hypothesis in enumerate(hypotheses):
        steps = implausibility_steps(*middle(grey[None], hypothesis), noise)
        start, stop = (0.8 + 0.2 * (i + k) / len(hypotheses) for k in (0, 1))
        label = f"Judging hypothesis {i + 1} of {len(hypotheses)}"
        costs.append((yield from within(steps, start, stop, "estimate", label)))
    best = min(range(1, len(hypotheses)), key=costs.__getitem__, default=0)
    chosen = hypotheses[best]
    spread = _spread(chosen, uniform, regional)
    agreement = spread / max(path_error(chosen, rest), 1e-6)
    # Real pictures are never explained exactly; the more two starts tell the same story,
    # the more it may leave than the picture as it is, which explains itself.
    allowance = _ALLOWANCE * max(0.0, 1 - agreement / _DISAGREEMENT)
    moves = chosen.extent > 0 and costs[best] < costs[0] + allowance
    if not moves:
        chosen = rest
    trajectory = Trajectory.from_camera(chosen.rotations, camera)
    candidates = [
        {"extent_px": hypothesis.extent / factor, "cost": cost}
        for hypothesis, cost in zip(hypotheses, costs, strict=True)
    ]
    return Estimate(trajectory, moves, spread / factor, candidates)
