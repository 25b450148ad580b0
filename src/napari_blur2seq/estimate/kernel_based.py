"""Trajectory from one picture: kernels, curves, regions, choice.

1. Kernels of the whole picture and of its four quadrants, coarse to fine, from several
   starts (`uniform`), and ordered curves through each (`kernel_network`, `curve`), made finer
   by the picture's power spectrum (`spectrum`). Beside them or in their place, what a network
   reads from the picture itself (`picture_network`).
2. Rotations, roll included: one kernel whose plane is sheared from place to place (`rolled`),
   and those that join the quadrants (`quadrants`).
3. The best of all these (`judge`; where the blur changes from place to place, `exact`, too),
   fitted to the correlations of overlapping regions (`regions`) and to the power spectrum again.
4. The best of what is now there, among motions that are nearly alike by `exact`; no motion if it
   is not expected to make the picture better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..camera import Camera
from ..metrics import path_error
from ..parallel import side_by_side
from ..progress import Progress, Steps, announced, within
from ..trajectory import Trajectory
from .certainty import Certainty
from .curve import MOST_COEFFICIENTS, fit, mean_order, to_trajectory, trace_kernel
from .exact import EXACT_PIXELS, EXACT_WEIGHT, exact_cost_steps
from .judge import Verdict
from .kernel_network import network_curve
from .picture_network import PictureNetwork, picture_curves
from .quadrants import agreeing, joined, quadrants
from .regions import gather
from .rolled import resized, rolled_kernel, search_steps, with_roll
from .sample import verdict_steps
from .spectrum import fit_to_spectrum, likelihood_parts
from .uniform import MAX_SIZE, Start, uniform_kernel
from .view import FINE_PIXELS, View, longer, reduced

WHOLE_STARTS = (
    Start(0.5, 2, 0.1),
    Start(1, 1),
    Start(0.5, 2, lights=False),
    Start(0.1, 4, 0.1, lights=False),
)
QUADRANT_STARTS = WHOLE_STARTS[:3]
_REFINED = 3
# Of the best hypotheses, so many are judged by the exact blur.
_LOOKED_AT = 8
# Px: for longer motions, pictures are judged reduced. The judge's tiles hold little else than what
# has come from beyond them, and it has seen few that long.
_LONG = 32
# Number of the first start that is not a kernel's.
_READ = 100
# Poses of a trajectory, more where its curve has more terms.
DENSE = 64
# Poses of trajectories that are compared.
_COMPARED = 32
# Extent in px of the shortest motion whose kernel is worth following point by point.
_LEAST_TRACED = 8
# The kernels of quadrants are found in a smaller picture than that of the whole, whose details
# decide how sharp the result is.
_QUADRANT_PIXELS = 300_000
_REGION_ROUNDS = 3
# dB by which such a motion must be better than those without: it was sought by the judge.
_ROLL_PRICE = 0.3
# dB: what is expected to gain less is not worth the risk, unless another start found the same
# motion, and the loss that is foretold is not larger.
_LEAST_GAIN = 0.2
_MOST_LOSS = 3.0
# A long motion that no other start found may be one of chance, as smooth and sharp pictures have:
# by how much it must be better than others, and what it must promise, dB.
_LONELY = 0.3
_LONELY_PRICE = 1.0
_LONELY_GAIN = 3.0
# Less is enough, dB, if it is short beside the picture's shorter side, is to make nearly all of the
# picture better, and makes its spectrum so much likelier, hundredths: smooth pictures gain up to 5.
_CLEAR_GAIN, _SHORT, _LIKELIER = 1.8, 0.1, 6.0
# Of the shorter side: so long a motion leaves too little of the picture to speak for it, unless
# another start found the same.
_TOO_LONG = 0.15
# dB for each of the cosine terms that a motion has in the mean: of two that explain the picture as
# well, the smoother one is nearer to the truth.
_ROUGHNESS = 0.05
# One that few others found may not make a tenth of the picture worse by more, dB.
_MOST_LOW_LOSS = 1.0
# dB for each other start that found the same motion, and at most: wrong ones seldom agree.
_AGREEMENT, _MOST_AGREEMENT = 1.0, 2.0
# dB by which a wide lens must be better than a long one, whose blur is alike all over the picture:
# as alike as it was taken for when the kernels were found.
_WIDER = 0.3
# Path error of another motion, as a share of that of no motion.
_UNLIKE = 0.4
_EDGE_WEIGHT = 2e-3


@dataclass(frozen=True)
class Estimate:
    """A trajectory and how far it can be trusted.

    Attributes
    ----------
    trajectory : Trajectory
        Centred, densely sampled.
    moves : bool
        False if no motion that was found is likely to make the picture better.
    certainty : Certainty
        What speaks for it.
    candidates : list of dict
        Extent (px) and expected gain (dB) of every hypothesis of the last choice.
    """

    trajectory: Trajectory
    moves: bool
    certainty: Certainty
    candidates: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class _Hypothesis:
    start: int
    curve: Tensor
    # The curve as the camera of its view sees it.
    motion: Trajectory
    verdict: Verdict
    # What it was made from by a fit.
    origin: _Hypothesis | None = None
    # dB that it must be better by.
    price: float = 0.0
    # See `exact`.
    exact_cost: float = 0.0

    @property
    def score(self) -> float:
        """Of several hypotheses, all with an exact cost or none, the best has the highest, dB."""
        return self.verdict.score - EXACT_WEIGHT * self.exact_cost

    @cached_property
    def compared(self) -> Trajectory:
        """The motion in so few poses that it is compared with others."""
        return self.motion.resample(_COMPARED)

    @cached_property
    def unlike(self) -> float:
        """Path error, px, of motions that have nothing to do with it."""
        camera = self.motion.camera
        still = Trajectory.zero(camera.image_shape, _COMPARED, camera.focal_length)
        return _UNLIKE * path_error(self.compared, still)

    def is_like(self, other: _Hypothesis) -> bool:
        return path_error(self.compared, other.compared) <= self.unlike

    def agreement(self, others: list[_Hypothesis]) -> float:
        """How many other starts found about the same motion.

        Each counts for less, the more it differs. What was fitted has moved away from the others,
        so that what it was made from counts, too.
        """
        found: dict[int, float] = {}
        for other in others:
            if other.start != self.start and self.unlike > 0:
                near = 1 - path_error(self.compared, other.compared) / self.unlike
                found[other.start] = max(near, found.get(other.start, 0.0))
        whole = sum(found.values())
        return whole if self.origin is None else max(whole, self.origin.agreement(others))


def _judged_steps(seen: View, camera: Camera, start: int, curve: Tensor) -> Steps[_Hypothesis]:
    """A curve of a camera, judged by what is `seen`."""
    motion = _dense(curve, camera)
    return _Hypothesis(start, curve, motion, (yield from _verdict_steps(seen, motion)))


def _whole_steps(view: View, start: Start) -> Steps[tuple[Tensor, list[Tensor]]]:
    """The kernel of the whole picture from one start, and the curves through it."""
    kernel = yield from within(_kernel_steps(view, start, MAX_SIZE), 0, 0.8)
    curves = _curves(kernel, view.camera)
    curves.append((yield from within(_fit_steps(view, curves[-1]), 0.8, 1)))
    return kernel, curves


def _fitted_steps(view: View, seen: View, hypothesis: _Hypothesis) -> Steps[_Hypothesis]:
    """What a hypothesis becomes when it is fitted to the regions and to the power spectrum."""
    curve = yield from within(_refine_steps(view, hypothesis.curve), 0, 0.6)
    curve = yield from within(_fit_steps(view, curve), 0.6, 0.9)
    judging = _judged_steps(seen, view.camera, hypothesis.start, curve)
    fitted = yield from within(judging, 0.9, 1)
    return replace(fitted, origin=hypothesis, price=hypothesis.price)


def _verdict_steps(seen: View, motion: Trajectory) -> Steps[Verdict]:
    motion = Trajectory.from_camera(motion.rotations, seen.camera)
    if motion.extent > 0.6 * min(seen.grey.shape):
        return Verdict(-math.inf, math.inf, 0.0, -math.inf)
    return (yield from verdict_steps(seen, motion))


def _seen(image: Tensor, camera: Camera, view: View, longest: float) -> View:
    """What motions of at most so many px are judged by."""
    pixels = view.grey.numel()
    if longest <= _LONG or pixels <= EXACT_PIXELS:
        return view
    return View.of(image, camera, max(EXACT_PIXELS, int(pixels * (_LONG / longest) ** 2)))


def _exactly_steps(small: View, hypothesis: _Hypothesis) -> Steps[_Hypothesis]:
    """The same hypothesis with its exact cost."""
    if math.isinf(hypothesis.verdict.score):
        return hypothesis
    cost = yield from exact_cost_steps(small, hypothesis.motion)
    return replace(hypothesis, exact_cost=cost)


def _dense(curve: Tensor, camera: Camera) -> Trajectory:
    return to_trajectory(curve, camera, max(DENSE, len(curve) + 1))


def _kernel_steps(view: View, start: Start, size: int) -> Steps[Tensor]:
    kernel = torch.ones(1, 1)
    mask = view.mask if start.lights else torch.ones_like(view.mask)
    for fraction, kernel in uniform_kernel(view.grey, mask, start, size):
        message = f"Estimating the blur kernel ({kernel.shape[0]} px)"
        yield Progress("estimate", fraction, message)
    return kernel


def _curves(kernel: Tensor, camera: Camera) -> list[Tensor]:
    """Curves through a kernel, the last one the most detailed."""
    # The network knows what motions look like, the trace keeps what this one is like: of a short
    # motion, that is mostly noise.
    curves = [network_curve(kernel)]
    if _dense(curves[0], camera).extent >= _LEAST_TRACED:
        curves.append(trace_kernel(kernel))
    return curves


def _quadrant_steps(view: View, start: Start, size: int) -> Steps[Tensor]:
    return network_curve((yield from _kernel_steps(view, start, size)))


def _join_steps(view: View) -> Steps[list[Tensor]]:
    """Curves with roll that join the kernels of the quadrants."""
    height, width = view.grey.shape
    # A quadrant's edges are too few for a kernel as large as half of it.
    size = min(height, width) // 5
    parts = quadrants((height, width))
    count = len(QUADRANT_STARTS)
    works = [
        _quadrant_steps(view.part(*where), start, size)
        for where in parts
        for start in QUADRANT_STARTS
    ]
    message = "Estimating the blur kernels of the quadrants"
    found = yield from within(side_by_side(works), 0, 0.95, message=message)
    curves = [found[i : i + count] for i in range(0, len(found), count)]
    yield Progress("estimate", 0.95, "Joining the quadrants")
    middles = [[(s.start + s.stop) / 2 for s in (columns, rows)] for rows, columns in parts]
    points = torch.tensor(middles)
    alike = [joined([part[j] for part in curves], points, view.camera)[0][1] for j in range(count)]
    return [*alike, agreeing(curves, points, view.camera)]


def _roll_steps(small: View, view: View, kernel: Tensor, start: Start) -> Steps[list[Tensor]]:
    """Curves of a camera whose roll goes with its path, from a kernel of the whole picture.

    The roll is searched for in a `small` view.
    """

    def judge(kernel: Tensor, slope: Tensor) -> Steps[float]:
        hypotheses = []
        for curve in _curves(kernel, small.camera):
            rolled = with_roll(curve, slope)
            hypotheses.append((yield from _judged_steps(small, small.camera, 0, rolled)))
        better = max(hypotheses, key=lambda h: h.score)
        return (yield from _exactly_steps(small, better)).score

    smaller = small.camera.focal_length / view.camera.focal_length
    searching = search_steps(small, resized(kernel, smaller), start, judge)
    slope, found = yield from within(searching, 0, 0.8)
    if smaller < 1:
        polishing = rolled_kernel(view, resized(found, 1 / smaller), slope, start)
        message = "Estimating the blur kernel of a rolling camera"
        found = yield from announced(polishing, "estimate", 0.8, 0.9, message)
    curves = [with_roll(curve, slope) for curve in _curves(found, view.camera)]
    fitted = yield from within(_fit_steps(view, curves[-1]), 0.9, 1)
    return [*curves, fitted]


def _refine_steps(view: View, curve: Tensor) -> Steps[Tensor]:
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


def _fit_steps(view: View, curve: Tensor) -> Steps[Tensor]:
    fitting = fit_to_spectrum(view, curve)
    return (yield from announced(fitting, "estimate", 0, 1, "Fitting to the power spectrum"))


def estimate_steps(
    image: Tensor,
    camera: Camera,
    *,
    focal_length_known: bool = True,
    kernels: bool = True,
    network: PictureNetwork | None = None,
) -> Steps[Estimate]:
    """Estimate the trajectory of a picture (C, H, W) in [0, 1]; see the module's text.

    Parameters
    ----------
    image : Tensor
    camera : Camera
    focal_length_known : bool
        Whether the lens may not be a longer one, whose blur is the same all over the picture.
    kernels : bool
        Whether blur kernels are estimated; needed without a network.
    network : PictureNetwork, optional
        Reads curves from the picture.

    Yields
    ------
    Progress
        Events of the stage ``"estimate"``.

    Returns
    -------
    Estimate
    """
    image = image.cpu()
    view = View.of(image, camera, FINE_PIXELS)

    def judged(
        motions: list[tuple[int, Tensor]], begin: float, end: float
    ) -> Steps[list[_Hypothesis]]:
        works = [_judged_steps(seen, view.camera, start, curve) for start, curve in motions]
        judging = side_by_side(works)
        return (yield from within(judging, begin, end, "estimate", "Judging trajectories"))

    def exactly(
        hypotheses: list[_Hypothesis], begin: float, end: float
    ) -> Steps[list[_Hypothesis]]:
        looking = side_by_side([_exactly_steps(reduced_view, h) for h in hypotheses])
        return (yield from within(looking, begin, end))

    # The shares of the work are as measured.
    motions: list[tuple[int, Tensor]] = []
    whole: list[Tensor] = []
    if kernels:
        works = [_whole_steps(view, start) for start in WHOLE_STARTS]
        for i, (kernel, curves) in enumerate((yield from within(side_by_side(works), 0, 0.38))):
            whole.append(kernel)
            motions += [(i, curve) for curve in curves]
    if network is not None:
        read, _ = picture_curves(network, reduced(image, FINE_PIXELS)[0], view.camera)
        motions += [(_READ + i, curve) for i, curve in enumerate(read)]
    longest = max(_dense(curve, view.camera).extent for _, curve in motions)
    seen = _seen(image, camera, view, longest)
    found = yield from judged(motions, 0.38, 0.41)
    if not focal_length_known:
        best = max(found, key=lambda h: h.verdict.score)
        wide = view, seen
        view, seen = view.with_longer_lens(), seen.with_longer_lens()
        (through,) = yield from judged([(best.start, best.curve)], 0.41, 0.42)
        if through.verdict.score_among_lenses > best.verdict.score_among_lenses - _WIDER:
            camera = longer(camera)
            again = [(h.start, h.curve) for h in found if h is not best]
            found = [through, *(yield from judged(again, 0.42, 0.46))]
        else:
            view, seen = wide
    if kernels:
        small = View.of(image, camera, _QUADRANT_PIXELS)
        larger = view.camera.focal_length / small.camera.focal_length
        joining = yield from within(_join_steps(small), 0.46, 0.59)
        motions = [(len(WHOLE_STARTS) + i, curve * larger) for i, curve in enumerate(joining)]
        found += yield from judged(motions, 0.59, 0.62)

    def standing(hypothesis: _Hypothesis, others: list[_Hypothesis]) -> float:
        agreement = hypothesis.agreement(others)
        long = hypothesis.motion.extent >= _LEAST_TRACED
        bonus = min(_AGREEMENT * agreement, _MOST_AGREEMENT)
        if long and agreement < _LONELY:
            bonus = -_LONELY_PRICE
        return (
            hypothesis.score + bonus - hypothesis.price - _ROUGHNESS * mean_order(hypothesis.curve)
        )

    reduced_view = View.of(image, camera, EXACT_PIXELS)
    if kernels and view.varies:
        of_whole = [h for h in found if h.start < len(WHOLE_STARTS)]
        origin = max(of_whole, key=lambda h: standing(h, found))
        yield Progress("estimate", 0.62, "Comparing trajectories")
        rolling = _roll_steps(reduced_view, view, whole[origin.start], WHOLE_STARTS[origin.start])
        motions = [(origin.start, c) for c in (yield from within(rolling, 0.62, 0.77))]
        for rolled in (yield from judged(motions, 0.77, 0.8)):
            found.append(replace(rolled, origin=origin, price=_ROLL_PRICE))
    # Of the curves of one motion, those that agree most are the smoothest, not the best: which are
    # looked into, the picture alone decides.
    found.sort(key=lambda h: -standing(h, []))
    likely = found[:_LOOKED_AT]
    if view.varies:
        likely = yield from exactly(likely, 0.8, 0.85)
        likely.sort(key=lambda h: -standing(h, []))
    fitting = side_by_side([_fitted_steps(view, seen, h) for h in likely[:_REFINED]])
    fitted = yield from within(fitting, 0.85, 0.95)
    if view.varies:
        hypotheses = [likely[0], *(yield from exactly(fitted, 0.95, 1))]
        leader = chosen = max(hypotheses, key=lambda h: standing(h, found))
    else:
        # Where the judge sees as well, only motions that are nearly alike are told apart by the
        # exact blur: it favours short ones where the blur is long.
        leader = max([likely[0], *fitted], key=lambda h: standing(h, found))
        hypotheses = [h for h in (*likely, *fitted) if h is leader or leader.is_like(h)]
        hypotheses = yield from exactly(hypotheses, 0.95, 1)
        yield Progress("estimate", 1.0, "Comparing trajectories")
        chosen = max(hypotheses, key=lambda h: standing(h, found))
    yield Progress("estimate", 1.0, "Comparing trajectories")
    still = Trajectory.zero(seen.camera.image_shape, 2, seen.camera.focal_length)
    looking = likelihood_parts(seen, still)
    at_rest = yield from announced(looking, "estimate", 1, 1, "Comparing trajectories")
    factor = view.camera.focal_length / camera.focal_length

    def certainty_of(hypothesis: _Hypothesis) -> Certainty:
        motion, verdict = hypothesis.motion, hypothesis.verdict
        # The same motion found in another way.
        others = [path_error(motion, h.motion) for h in found if h.start != hypothesis.start]
        return Certainty(
            extent=motion.extent / factor,
            spread=min(others, default=motion.extent) / factor,
            agreement=hypothesis.agreement(found),
            expected_gain=verdict.gain,
            low_gain=verdict.low_gain,
            likelihood_gain=verdict.likelihood - at_rest,
        )

    def believed(certainty: Certainty) -> bool:
        least = _least_gain(certainty, camera, factor)
        return certainty.extent > 0 and certainty.expected_gain > least

    candidates = [
        {
            "extent_px": h.motion.extent / factor,
            "expected_gain_db": h.verdict.gain,
        }
        for h in hypotheses
    ]
    certainty, motion = certainty_of(chosen), chosen.motion
    # The best of motions alike is believed no sooner than the one that they are like.
    moves = believed(certainty) and (motion is leader.motion or believed(certainty_of(leader)))
    rotations = motion.rotations if moves else np.zeros_like(motion.rotations)
    trajectory = Trajectory.from_camera(rotations, camera)
    return Estimate(trajectory, moves, certainty, candidates)


def _least_gain(certainty: Certainty, camera: Camera, factor: float) -> float:
    """What the judge must expect of a motion for it to be believed, dB."""
    # In a picture that is sharp already, all find the same short one.
    if certainty.extent * factor < _LEAST_TRACED:
        return _LEAST_GAIN
    if certainty.confirmed:
        return -_MOST_LOSS
    if certainty.extent > _TOO_LONG * min(camera.image_shape):
        return math.inf
    if certainty.agreement < _LONELY:
        short = certainty.extent <= _SHORT * min(camera.image_shape)
        clear = certainty.low_gain > 0 and certainty.likelihood_gain >= _LIKELIER
        return _CLEAR_GAIN if short and clear else _LONELY_GAIN
    if certainty.low_gain < -_MOST_LOW_LOSS:
        return _LONELY_GAIN
    return _LEAST_GAIN
