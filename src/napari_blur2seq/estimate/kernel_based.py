"""Trajectory from one picture: kernels, curves, regions, choice.

1. Kernels of the whole picture and of its four quadrants, coarse to fine, from several
   starts (`uniform`), and an ordered curve through each (`kernel_network`).
2. Rotations, roll included, that join the quadrants (`quadrants`).
3. The most plausible of all these (`implausibility_steps`), fitted to the correlations of
   overlapping regions (`regions`).
4. The most plausible of what is now there, zero motion included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
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
from .curve import fit, to_trajectory
from .kernel_network import network_curve
from .quadrants import agreeing, joined, quadrants
from .regions import gather
from .uniform import MAX_SIZE, uniform_kernel

# Ridge and share of edges of the kernels; none is best for all pictures.
WHOLE_STARTS = ((0.5, 2.0), (0.1, 4.0))
QUADRANT_STARTS = ((0.5, 2.0), (0.1, 4.0), (1.0, 1.0))
_REFINED = 2
_QUICK, _THOROUGH = 4, 6
_JUDGED_SIDE = 512
DENSE = 64
# Kernels are found and curves judged in a smaller picture than the last fit's.
_START_PIXELS = 300_000
_FINE_PIXELS = 700_000
_REGION_ROUNDS = 3
_ALLOWANCE = 1.2
_DISAGREEMENT = 0.4
_EDGE_WEIGHT = 2e-3
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


def implausibility_steps(
    grey: Tensor, trajectory: Trajectory, noise: float, iterations: int = 8
) -> Steps[float]:
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
    iterations : int
        Steps of the restoration.
    """
    noise = max(noise, _LEAST_NOISE)
    prior = SparseGradientPrior(iterations=iterations)
    restored = yield from restore_steps(grey, trajectory, prior, noise=2 * noise)
    inner = slice(12, -12)
    residual = (MotionBlur(trajectory, grey.device)(restored[None])[0] - grey)[:, inner, inner]
    dx, dy = differences(restored[:, 8:-8, 8:-8])
    magnitude = (dx.square() + dy.square()).sqrt()
    sparsity = magnitude.mean() / magnitude.square().mean().sqrt()
    return float((residual.square().mean() + noise**2).log() + 3 * sparsity.log())


@dataclass(frozen=True)
class _View:
    """A grey picture, where it can be trusted, and its camera."""

    grey: Tensor
    mask: Tensor
    camera: Camera
    noise: float

    @classmethod
    def of(cls, image: Tensor, camera: Camera, pixels: int) -> _View:
        small, factor = reduced(image, pixels)
        if factor != 1:
            camera = camera.scaled(factor, factor, (small.shape[-2], small.shape[-1]))
        return cls(*grey_and_mask(small), camera, max(estimate_noise(small), 1 / 255))

    def part(self, rows: slice, columns: slice) -> _View:
        """A part of the picture, seen as by a camera pointed at its middle."""
        grey, mask = self.grey[rows, columns], self.mask[rows, columns]
        height, width = grey.shape
        camera = Camera(self.camera.focal_length, (width / 2, height / 2), (height, width))
        return _View(grey, mask, camera, self.noise)

    def middle(self) -> _View:
        """At most `_JUDGED_SIDE` px a side of it."""
        height, width = self.grey.shape
        top, left = max(0, height - _JUDGED_SIDE) // 2, max(0, width - _JUDGED_SIDE) // 2
        where = slice(top, height - top), slice(left, width - left)
        cx, cy = self.camera.principal_point
        shape = (height - 2 * top, width - 2 * left)
        camera = Camera(self.camera.focal_length, (cx - left, cy - top), shape)
        return _View(self.grey[where], self.mask[where], camera, self.noise)

    def cost_steps(self, curve: Tensor, iterations: int) -> Steps[float]:
        trajectory = to_trajectory(curve, self.camera, DENSE)
        if trajectory.extent > 0.6 * min(self.grey.shape):
            return math.inf
        judging = implausibility_steps(self.grey[None], trajectory, self.noise, iterations)
        return (yield from judging)


@dataclass(frozen=True)
class _Hypothesis:
    start: int
    curve: Tensor
    cost: float


def _kernel_steps(view: _View, ridge: float, edges: float, size: int) -> Steps[Tensor]:
    kernel = torch.ones(1, 1)
    for fraction, kernel in uniform_kernel(view.grey, view.mask, ridge, edges, size):
        message = f"Estimating the blur kernel ({kernel.shape[0]} px)"
        yield Progress("estimate", fraction, message)
    return kernel


def _join_steps(view: _View) -> Steps[list[Tensor]]:
    """Curves with roll that join the kernels of the quadrants."""
    height, width = view.grey.shape
    # A quadrant's edges are too few for a kernel as large as half of it.
    size = min(height, width) // 5
    parts = quadrants((height, width))
    share = 0.95 / (len(parts) * len(QUADRANT_STARTS))
    curves: list[list[Tensor]] = []
    for i, where in enumerate(parts):
        curves.append([])
        for j, start in enumerate(QUADRANT_STARTS):
            begin = (i * len(QUADRANT_STARTS) + j) * share
            message = f"Estimating the blur kernels of quadrant {i + 1} of {len(parts)}"
            steps = _kernel_steps(view.part(*where), *start, size)
            kernel = yield from within(steps, begin, begin + share, message=message)
            curves[-1].append(network_curve(kernel))
    yield Progress("estimate", 0.95, "Joining the quadrants")
    middles = [[(s.start + s.stop) / 2 for s in (columns, rows)] for rows, columns in parts]
    points = torch.tensor(middles)
    alike = [
        joined([part[j] for part in curves], points, view.camera)[0][1]
        for j in range(len(QUADRANT_STARTS))
    ]
    return [*alike, agreeing(curves, points, view.camera)]


def _refine_steps(view: _View, curve: Tensor) -> Steps[Tensor]:
    """Curve fitted to what the regions of the picture show, from a first one."""
    first = to_trajectory(curve, view.camera, DENSE).extent
    for j in range(_REGION_ROUNDS):
        begin, halfway, end = ((j + k) / _REGION_ROUNDS for k in (0, 0.5, 1))
        current = to_trajectory(curve, view.camera, DENSE)
        message = "Looking at the edges of the regions"
        parts = gather(view.grey, view.mask, current, _EDGE_WEIGHT / 1.2**j)
        evidence = yield from announced(parts, "estimate", begin, halfway, message)
        message = "Fitting the trajectory to the regions"
        fitting = fit(curve[None], evidence, view.camera, steps=100, rate=0.35, smoothness=0.1)
        fitted, _ = yield from announced(fitting, "estimate", halfway, end, message)
        # Regions without texture hold nothing back; a motion twice as long is not finer.
        if to_trajectory(fitted[0], view.camera, DENSE).extent > 2 * first + 4:
            break
        curve = fitted[0]
    return curve


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
    image = image.cpu()
    view = _View.of(image, camera, _START_PIXELS)
    fine = _View.of(image, camera, _FINE_PIXELS)
    finer = fine.camera.focal_length / view.camera.focal_length

    middle = fine.middle()

    def judged(
        start: int, curve: Tensor, begin: float, end: float, *, thorough: bool = False
    ) -> Steps[_Hypothesis]:
        where, iterations = (middle, _THOROUGH) if thorough else (view, _QUICK)
        judging = where.cost_steps(curve, iterations)
        cost = yield from within(judging, begin, end, "estimate", "Judging a trajectory")
        return _Hypothesis(start, curve, cost)

    # The shares of the work are as measured.
    first: list[_Hypothesis] = []
    for i, (ridge, edges) in enumerate(WHOLE_STARTS):
        begin = 0.1 * i
        steps = _kernel_steps(view, ridge, edges, MAX_SIZE)
        curve = network_curve((yield from within(steps, begin, begin + 0.08)))
        first.append((yield from judged(i, curve, begin + 0.08, begin + 0.1)))
    joined = yield from within(_join_steps(view), 0.2, 0.52)
    for i, curve in enumerate(joined):
        begin, end = (0.52 + 0.08 * (i + k) / len(joined) for k in (0, 1))
        first.append((yield from judged(len(WHOLE_STARTS) + i, curve, begin, end)))
    first.sort(key=lambda h: h.cost)
    best = first[0]
    rest = yield from judged(-1, torch.zeros(1, 3), 0.6, 0.63, thorough=True)
    hypotheses = [(yield from judged(best.start, best.curve * finer, 0.63, 0.66, thorough=True))]
    for i, start in enumerate(first[:_REFINED]):
        begin, end = (0.66 + 0.34 * (i + k) / _REFINED for k in (0, 1))
        refining = _refine_steps(fine, start.curve * finer)
        curve = yield from within(refining, begin, end - 0.03)
        hypotheses.append((yield from judged(start.start, curve, end - 0.03, end, thorough=True)))
    chosen = min(hypotheses, key=lambda h: h.cost)
    # The same motion found in another way, refined or not.
    others = [_Hypothesis(h.start, h.curve * finer, h.cost) for h in first] + hypotheses
    paths = {id(h): to_trajectory(h.curve, fine.camera, DENSE) for h in (rest, *others)}
    motion = paths[id(chosen)]
    spread = min(path_error(motion, paths[id(h)]) for h in hypotheses if h.start != chosen.start)
    agreement = spread / max(path_error(motion, paths[id(rest)]), 1e-6)
    # Real pictures are never explained exactly; the more two starts tell the same story,
    # the more it may leave than the picture as it is, which explains itself.
    allowance = _ALLOWANCE * max(0.0, 1 - agreement / _DISAGREEMENT)
    moves = motion.extent > 0 and chosen.cost < rest.cost + allowance
    believed = motion if moves else paths[id(rest)]
    factor = fine.camera.focal_length / camera.focal_length
    candidates = [
        {"extent_px": paths[id(h)].extent / factor, "cost": h.cost} for h in (rest, *hypotheses)
    ]
    trajectory = Trajectory.from_camera(believed.rotations, camera)
    return Estimate(trajectory, moves, spread / factor, candidates)
