"""Trajectory from one picture: kernels, curves, regions, choice.

1. Kernels of the whole picture and of its four quadrants, coarse to fine, from several
   starts (`uniform`), and ordered curves through each (`kernel_network`, `curve`).
2. Rotations, roll included, that join the quadrants (`quadrants`).
3. The best of all these (`judge`), fitted to the correlations of overlapping
   regions (`regions`).
4. The best of what is now there; no motion if it is not expected to make the picture better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import Camera
from ..metrics import path_error
from ..progress import Progress, Steps, announced, within
from ..restoration.half_quadratic import SATURATED, estimate_noise
from ..trajectory import Trajectory
from .curve import MOST_COEFFICIENTS, fit, to_trajectory, trace_kernel
from .judge import Verdict, verdict_steps
from .kernel_network import network_curve
from .quadrants import agreeing, joined, quadrants
from .regions import gather
from .uniform import MAX_SIZE, uniform_kernel

# Ridge and share of edges of the kernels; none is best for all pictures.
WHOLE_STARTS = ((0.5, 2.0), (0.1, 4.0))
QUADRANT_STARTS = ((0.5, 2.0), (0.1, 4.0), (1.0, 1.0))
_REFINED = 3
_JUDGED_SIDE = 512
# Poses of a trajectory, more where its curve has more terms.
DENSE = 64
# Extent in px of the shortest motion whose kernel is worth following point by point.
_LEAST_TRACED = 8
# Kernels are found and curves judged in a smaller picture than the last fit's.
_START_PIXELS = 300_000
_FINE_PIXELS = 700_000
_REGION_ROUNDS = 3
# Between the widest lens of a phone and a picture's cutout there is about this factor.
_LONGER = 4.0
# dB: what is expected to gain less is not worth the risk.
_LEAST_GAIN = 0.2
_EDGE_WEIGHT = 2e-3


@dataclass(frozen=True)
class Estimate:
    """A trajectory and how far it can be trusted.

    Attributes
    ----------
    trajectory : Trajectory
        Centred, densely sampled.
    moves : bool
        False if no motion that was found is expected to make the picture better.
    spread : float
        Path error in px to the nearest hypothesis of another start.
    candidates : list of dict
        Extent (px) and expected gain (dB) of every hypothesis of the last choice.
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


def _longer(camera: Camera) -> Camera:
    """A camera that turns less for the same blur in the middle."""
    return Camera(_LONGER * camera.focal_length, camera.principal_point, camera.image_shape)


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

    def with_longer_lens(self) -> _View:
        return replace(self, camera=_longer(self.camera))

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

    def verdict_steps(self, curve: Tensor) -> Steps[Verdict]:
        trajectory = _dense(curve, self.camera)
        if trajectory.extent > 0.6 * min(self.grey.shape):
            return Verdict(-math.inf, math.inf)
        return (yield from verdict_steps(self.grey[None], trajectory, self.noise))


@dataclass(frozen=True)
class _Hypothesis:
    start: int
    curve: Tensor
    verdict: Verdict


def _dense(curve: Tensor, camera: Camera) -> Trajectory:
    return to_trajectory(curve, camera, max(DENSE, len(curve) + 1))


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
    curve = curve[:MOST_COEFFICIENTS]
    first = _dense(curve, view.camera).extent
    for j in range(_REGION_ROUNDS):
        begin, halfway, end = ((j + k) / _REGION_ROUNDS for k in (0, 0.5, 1))
        current = _dense(curve, view.camera)
        message = "Looking at the edges of the regions"
        parts = gather(view.grey, view.mask, current, _EDGE_WEIGHT / 1.2**j)
        evidence = yield from announced(parts, "estimate", begin, halfway, message)
        message = "Fitting the trajectory to the regions"
        fitting = fit(curve[None], evidence, view.camera, steps=100, rate=0.35, smoothness=0.1)
        fitted, _ = yield from announced(fitting, "estimate", halfway, end, message)
        # Regions without texture hold nothing back; a motion twice as long is not finer.
        if _dense(fitted[0], view.camera).extent > 2 * first + 4:
            break
        curve = fitted[0]
    return curve


def estimate_steps(
    image: Tensor, camera: Camera, *, focal_length_known: bool = True
) -> Steps[Estimate]:
    """Estimate the trajectory of a picture (C, H, W) in [0, 1]; see the module's text.

    Parameters
    ----------
    image : Tensor
    camera : Camera
    focal_length_known : bool
        Whether the lens may not be a longer one, whose blur is the same all over the picture.

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

    def judged(
        start: int, curve: Tensor, begin: float, end: float, where: _View
    ) -> Steps[_Hypothesis]:
        judging = where.verdict_steps(curve)
        verdict = yield from within(judging, begin, end, "estimate", "Judging a trajectory")
        return _Hypothesis(start, curve, verdict)

    # The shares of the work are as measured.
    first: list[_Hypothesis] = []
    for i, (ridge, edges) in enumerate(WHOLE_STARTS):
        begin = 0.09 * i
        steps = _kernel_steps(view, ridge, edges, MAX_SIZE)
        kernel = yield from within(steps, begin, begin + 0.08)
        # The network knows what motions look like, the trace keeps what this one is like:
        # of a short motion, that is mostly noise.
        curves = [network_curve(kernel)]
        if _dense(curves[0], view.camera).extent >= _LEAST_TRACED:
            curves.append(trace_kernel(kernel))
        for j, curve in enumerate(curves):
            now = begin + 0.08 + 0.005 * j
            first.append((yield from judged(i, curve, now, now + 0.005, view)))
    if not focal_length_known:
        best = max(first, key=lambda h: h.verdict.score)
        far = view.with_longer_lens()
        seen = yield from judged(best.start, best.curve, 0.18, 0.185, far)
        if seen.verdict.score > best.verdict.score:
            view, fine, camera = far, fine.with_longer_lens(), _longer(camera)
            again = [h for h in first if h is not best]
            first = [seen]
            for j, other in enumerate(again):
                now = 0.185 + 0.005 * j
                first.append((yield from judged(other.start, other.curve, now, now + 0.005, view)))
    middle = fine.middle()
    joined = yield from within(_join_steps(view), 0.2, 0.52)
    for i, curve in enumerate(joined):
        begin, end = (0.52 + 0.08 * (i + k) / len(joined) for k in (0, 1))
        first.append((yield from judged(len(WHOLE_STARTS) + i, curve, begin, end, view)))
    first.sort(key=lambda h: -h.verdict.score)
    best = first[0]
    hypotheses = [(yield from judged(best.start, best.curve * finer, 0.6, 0.64, middle))]
    for i, start in enumerate(first[:_REFINED]):
        begin, end = (0.64 + 0.36 * (i + k) / _REFINED for k in (0, 1))
        refining = _refine_steps(fine, start.curve * finer)
        curve = yield from within(refining, begin, end - 0.03)
        hypotheses.append((yield from judged(start.start, curve, end - 0.03, end, middle)))
    chosen = max(hypotheses, key=lambda h: h.verdict.score)
    motion = _dense(chosen.curve, fine.camera)
    moves = motion.extent > 0 and chosen.verdict.gain > _LEAST_GAIN
    # The same motion found in another way.
    others = [_dense(h.curve * finer, fine.camera) for h in first]
    spread = min(
        path_error(motion, other)
        for h, other in zip(first, others, strict=True)
        if h.start != chosen.start
    )
    factor = fine.camera.focal_length / camera.focal_length
    candidates = [
        {
            "extent_px": _dense(h.curve, fine.camera).extent / factor,
            "expected_gain_db": h.verdict.gain,
        }
        for h in hypotheses
    ]
    rotations = motion.rotations if moves else np.zeros_like(motion.rotations)
    trajectory = Trajectory.from_camera(rotations, camera)
    return Estimate(trajectory, moves, spread / factor, candidates)
