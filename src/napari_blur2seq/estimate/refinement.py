r"""A trajectory made better by climbing: the judge's score as a function of the motion.

.. math:: \max_a\; g(a) - w\,c(a) + v\,l(a) - s\,\rho(a) - p\,\|d(a) - d(a_0)\|

over the first cosine coefficients :math:`a` of pitch, yaw and roll (see `curve`), with the gain
:math:`g` and the cost :math:`c` of `judge`, both of a quick restoration with the motion, the
likelihood :math:`l` of the power spectrum (`spectrum`), the
roughness :math:`\rho`, and the distance in px from the displacements of the start. The picture
is cut into tiles, each with the kernel of its middle, so that everything is a few Fourier
transforms, and the gradient goes through all of them: through the restoration's steps, the
kernels and the network.

Through a wide lens, the motion's kernel is sought again before (`roll_search`).

The gain alone is deceived within a few steps, the cost alone drifts, and both are flat
far from the truth: short steps from a good start pay, others do not, and a move must pay
for its length.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..metrics import path_error
from ..progress import Climbed, Parts, Progress, Steps, announced, within
from ..restoration.noise_level import noise_level
from ..trajectory import Trajectory
from .budget import STEPS, Budget
from .curve import centred_displacements, coefficients_of, cosine_basis, reach_of
from .exact import EXACT_PIXELS, exact_score, exact_verdict_steps
from .hypotheses import LEAST_GAIN
from .judge import LIKELIHOOD_WEIGHT
from .roll_search import LEAST_SIDE, improved_steps
from .sample import LENS_TILE, TILE, Sample, verdict_steps
from .spectrum import FIRST_ROUNDS, LATER_ROUNDS, Spectrum
from .view import FINE_PIXELS, View, longer

# Steps of one climb.
_CLIMB = 30
_TERMS = 16
# Of the curve that a kernel is drawn from.
_KERNEL_TERMS = 32
# How often it is sought again, at most.
_MOST_IMPROVEMENTS = 3
_POSES = 64
_RATE = 0.05
# Roll is seen from further away than pitch and yaw.
_ROLL_RATE = 2.0
_ROUGHNESS = 0.1
# dB a px: what gains less by moving is as likely a fault of the objective.
_PRICE = 1.0
_LEAST_DISTANCE = 0.05
# A climb ends that gained less than so many dB in so many steps.
_LEAST_RISE, _PATIENCE = 0.02, 10
# Another climb, or search for a kernel, follows one that gained this much, dB.
_WORTH_MORE = 0.5
# By so much must the exact cost fall.
_CONFIRMED = 0.01
# Factors of the focal length that are tried, and what one must gain, dB.
_LENSES = (0.5, 2.0, 4.0)
_CLEARLY = 0.5
# Steps from one preview to the next.
_LOOK = 5


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
        self._sample, self._camera = Sample(view, reach), view.camera
        self._spectrum = Spectrum(view, reach)
        self._basis = cosine_basis(poses, _TERMS)
        self._rounds = FIRST_ROUNDS

    @torch.enable_grad()
    def parts(
        self, coefficients: Tensor, rest: Tensor, first: Tensor | None = None
    ) -> Parts[tuple[float, Tensor, Tensor]]:
        """Score of the motion ``basis @ coefficients + rest``, and its slope.

        Pauses after every few tiles.

        Parameters
        ----------
        coefficients : Tensor
            Cosine coefficients of pitch, yaw and roll in px, shape (K, 3).
        rest : Tensor
            What they leave out of each pose, px, shape (T, 3).
        first : Tensor, optional
            Where another motion brings the tiles, which is to be gone from at a price only.

        Returns
        -------
        score : float
            dB.
        gradient : Tensor
            Of the score, shape (K, 3).
        moved : Tensor
            Displacements of the tiles' middles in px, zero on average, shape (N, T, 2).
        """
        values = coefficients.clone().requires_grad_(True)
        poses = self._basis @ values + rest
        moved = centred_displacements(poses, self._sample.middles, self._camera)
        score, slope = yield from self._sample.slope_parts(moved)
        roughness = (values.square().sum(1) * _orders().square()).sum()
        roughness = roughness / (coefficients.square().sum() + 1)
        likelihood = self._spectrum.likelihood(self._spectrum.moved(poses), self._rounds)
        self._rounds = LATER_ROUNDS
        more = LIKELIHOOD_WEIGHT * likelihood - _ROUGHNESS * roughness
        if first is not None:
            distance = ((moved - first).square().sum(-1).mean() + _LEAST_DISTANCE**2).sqrt()
            more = more - _PRICE * (distance - _LEAST_DISTANCE)
        (gradient,) = torch.autograd.grad([more, moved], values, [torch.ones_like(more), slope])
        return score + float(more.detach()), gradient, moved.detach()


@dataclass(frozen=True)
class Refinement:
    """A trajectory and how it was come by.

    Attributes
    ----------
    trajectory : Trajectory
        As many poses as the start it comes from.
    objective : list of float
        The objective in dB where the climb began and after every step that was kept, rising; the
        first alone if none was.
    start : int
        Number of the start it comes from.
    spread : float, optional
        Path error in px to the nearest of what the other starts led to, where there are any.
    kernel_scores : list of float
        Exact scores in dB of the start and of what better kernels made of it, rising; empty where
        none were sought.
    """

    trajectory: Trajectory
    objective: list[float]
    start: int = 0
    spread: float | None = None
    kernel_scores: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Found:
    """A motion as the camera of a view sees it, what would be given back, and how good it is."""

    start: int
    view: View
    # The same, reduced.
    small: View
    motion: Trajectory
    result: Trajectory
    score: float = -math.inf
    # See `exact`.
    exact_cost: float = 0.0
    objective: list[float] = field(default_factory=list)
    kernel_scores: list[float] = field(default_factory=list)


def refine_steps(
    image: Tensor,
    starts: Trajectory | Sequence[Trajectory],
    *,
    steps: int = STEPS,
    seconds: float | None = None,
    stop: threading.Event | None = None,
    fit_focal_length: bool = False,
    look: Callable[[Trajectory], NDArray[np.float32]] | None = None,
) -> Steps[Refinement]:
    """Climb from a trajectory of a picture (C, H, W) in [0, 1]; see the module's text.

    What is found is kept if the picture as a whole, too, is judged to be better for it. Each of
    several starts is climbed from once; where the best of them led to, the climb goes on.

    Parameters
    ----------
    image : Tensor
    starts : Trajectory or sequence of Trajectory
    steps : int
        At most so many in all: climbs of up to 30 follow each other while they pay.
    seconds : float, optional
        At most about so many in all, less what the caller spends between two events. The result
        then depends on how fast the machine is.
    stop : threading.Event, optional
        Set it to end the climbs; the best so far is what is found.
    fit_focal_length : bool
        Whether other focal lengths are tried. One is taken if it is clearly better.
    look : callable, optional
        Makes the preview of some events from the best trajectory so far.

    Yields
    ------
    Progress
        Events of the stage ``"refine"``, `Climbed` after every step.

    Returns
    -------
    Refinement
    """
    chosen = [starts] if isinstance(starts, Trajectory) else list(starts)
    budget = Budget(steps, math.inf if seconds is None else seconds, stop or threading.Event())
    climbing = _refine_steps(image.cpu(), chosen, budget, fit_focal_length, look)
    return (yield from budget.counting(climbing))


def _refine_steps(
    image: Tensor,
    starts: list[Trajectory],
    budget: Budget,
    fit_focal_length: bool,
    look: Callable[[Trajectory], NDArray[np.float32]] | None,
) -> Steps[Refinement]:
    count = len(starts)
    first = []
    noise = noise_level(image)
    for i, start in enumerate(starts):
        judging = _judged_steps(_seen(image, noise, start, i))
        first.append((yield from within(judging, 0.05 * i / count, 0.05 * (i + 1) / count)))
    # The last judgement, of what is found, takes as long as one of these.
    budget.spent += budget.spent / count
    if fit_focal_length:
        best = max(first, key=_score)
        first[best.start] = yield from within(_lens_steps(best), 0.05, 0.1)
    if look is not None:
        preview = look(max(first, key=_score).result)
        yield Progress("refine", 0.1, "Looking at the picture", preview)
    for i, found in enumerate(first):
        begin, end = (0.1 + 0.2 * (i + k) / count for k in (0, 1))
        first[i] = yield from within(_kernel_steps(found, budget), begin, end)
    objectives = []
    for found in first:
        objectives.append(_objective(found))
        yield Progress("refine", 0.3, "Looking at the picture")
    ends = []
    for i, found in enumerate(first):
        begin, end = (0.3 + 0.3 * (i + k) / count for k in (0, 1))
        climbing = _climb_steps(objectives[i], found, budget, 1 / (count - i), look)
        climbed = yield from within(climbing, begin, end)
        if count > 1:
            climbed = yield from within(_judged_steps(climbed), end, end)
        ends.append(climbed)
    best = max(ends, key=_score)
    gain, end = best.objective[-1] - best.objective[0], 0.6
    while gain >= _WORTH_MORE and not budget.over:
        # How many climbs will follow is not known.
        begin, end = end, (end + 0.95) / 2
        climbing = _climb_steps(objectives[best.start], best, budget, 1.0, look)
        climbed = yield from within(climbing, begin, end)
        gain = climbed.objective[-1] - climbed.objective[0]
        best = replace(climbed, objective=best.objective + climbed.objective[1:])
    best = yield from within(_judged_steps(best), 0.95, 1.0)
    unmoved = max(first, key=_score)
    # What is climbed on alone is no judge of where the climb has led to.
    confirmed = best.exact_cost < unmoved.exact_cost - _CONFIRMED
    if best.score <= unmoved.score or not confirmed:
        best = replace(unmoved, objective=ends[unmoved.start].objective[:1])
    others = [path_error(best.result, end.result) for end in ends if end.start != best.start]
    spread = min(others, default=None)
    return Refinement(best.result, best.objective, best.start, spread, best.kernel_scores)


def _seen(image: Tensor, noise: float, start: Trajectory, number: int) -> _Found:
    view = View.of(image, start.camera, FINE_PIXELS, noise)
    dense = start.resample(max(_POSES, len(start))).centered()
    motion = Trajectory.from_camera(dense.rotations, view.camera, dense.times)
    small = View.of(image, start.camera, EXACT_PIXELS, noise)
    return _Found(number, view, small, motion, start)


def _score(found: _Found) -> float:
    return found.score


def _kernel_steps(found: _Found, budget: Budget) -> Steps[_Found]:
    """The motion whose kernel is the best that is found near its own, if the lens is wide."""
    if not found.view.varies or min(found.small.grey.shape) < LEAST_SIDE:
        return found
    count, focal_length = len(found.motion), found.small.camera.focal_length
    poses = torch.tensor(found.motion.rotations, dtype=torch.float32) * focal_length
    curve, scores = coefficients_of(poses, min(_KERNEL_TERMS, count - 1)), list[float]()
    for i in range(_MOST_IMPROVEMENTS):
        begin, end = (0.9 * (i + k) / _MOST_IMPROVEMENTS for k in (0, 1))
        improving = within(improved_steps(found.small, curve), begin, end, "refine")
        hypotheses = yield from budget.limiting(improving)
        if hypotheses is None:
            break
        best = max(hypotheses, key=lambda hypothesis: hypothesis.score)
        scores = scores or [hypotheses[0].score]
        # Where nothing is to be seen, a wrong motion may well have the higher score.
        if best is hypotheses[0] or best.foretold.gain < LEAST_GAIN:
            break
        scores.append(best.score)
        curve = best.curve
        if scores[-1] < scores[-2] + _WORTH_MORE:
            break
    found = replace(found, kernel_scores=scores)
    if len(scores) < 2:
        return found
    moved = _moved(found, cosine_basis(count, len(curve)) @ curve / focal_length)
    return (yield from within(_judged_steps(moved), 0.9, 1.0))


def _judged_steps(found: _Found, *, among_lenses: bool = False) -> Steps[_Found]:
    message = "Judging the motion"
    judging = verdict_steps(found.view, found.motion, LENS_TILE if among_lenses else TILE)
    verdict = yield from within(judging, 0.0, 0.3, "refine", message)
    if among_lenses:
        return replace(found, score=verdict.score_among_lenses)
    looking = exact_verdict_steps(found.small, found.motion)
    exact = yield from within(looking, 0.3, 1.0, "refine", message)
    return replace(found, score=exact_score(verdict, exact), exact_cost=exact.cost)


def _lens_steps(found: _Found) -> Steps[_Found]:
    """The same motion of the picture's middle seen through the lens that suits it best."""
    share = 1 / (len(_LENSES) + 1)
    best = yield from within(_judged_steps(found, among_lenses=True), 0, share)
    least = best.score + _CLEARLY
    for i, factor in enumerate(_LENSES):
        motion, result = (_through(t, factor) for t in (found.motion, found.result))
        view, small = (v.with_longer_lens(factor) for v in (found.view, found.small))
        through = replace(found, view=view, small=small, motion=motion, result=result)
        judging = _judged_steps(through, among_lenses=True)
        other = yield from within(judging, (i + 1) * share, (i + 2) * share)
        if other.score > max(least, best.score):
            best = other
    return (yield from _judged_steps(best))


def _through(trajectory: Trajectory, factor: float) -> Trajectory:
    """The same shifts of the middle and the same roll through a lens longer by a factor."""
    rotations = trajectory.rotations / [factor, factor, 1.0]
    return Trajectory.from_camera(rotations, longer(trajectory.camera, factor), trajectory.times)


def _objective(found: _Found) -> Objective:
    return Objective(found.view, 1.2 * reach_of(found.motion), len(found.motion))


def _climb_steps(
    objective: Objective,
    found: _Found,
    budget: Budget,
    share: float,
    look: Callable[[Trajectory], NDArray[np.float32]] | None,
) -> Steps[_Found]:
    """Gradient ascent with momentum, with a share of the budget.

    The step of each coefficient is divided by the mean of its own gradient and of all
    coefficients', and is shorter for higher terms.
    """
    count, focal_length = len(found.motion), found.motion.focal_length
    steps = max(1, min(_CLIMB, round(share * budget.steps)))
    began, allowed = budget.spent, share * (budget.seconds - budget.spent)
    poses = torch.tensor(found.motion.rotations, dtype=torch.float32) * focal_length
    basis, values = cosine_basis(count, _TERMS), coefficients_of(poses, _TERMS)
    rest = poses - basis @ values
    rates = _RATE / _orders()[:, None].sqrt() * torch.tensor([1.0, 1.0, _ROLL_RATE])
    best, kept, seen = found, list[float](), 0
    highest, message = [], "Looking at the picture"
    first: Tensor | None = None
    mean, square = torch.zeros_like(values), torch.zeros_like(values)
    for step in range(1, steps + 2):
        begin, end = ((step + k) / (steps + 1) for k in (-1, 0))
        looking = objective.parts(values, rest, first)
        height, gradient, moved = yield from announced(looking, "refine", begin, end, message)
        first = moved if first is None else first
        if not kept or height > kept[-1]:
            kept.append(height)
            if step > 1:
                best = _moved(found, (basis @ values + rest) / focal_length)
        highest.append(kept[-1])
        preview = None
        if look is not None and step % _LOOK == 1 and (seen != len(kept) or not seen):
            preview, seen = look(best.result), len(kept)
        message = f"Step {step - 1} of {steps}: {kept[-1] - kept[0]:+.2f} dB"
        yield Climbed(
            "refine",
            end,
            message,
            preview,
            objective=height,
            best=kept[-1],
            trajectory=best.result,
        )
        used = max(step / steps, (budget.spent - began) / max(allowed, 1e-9))
        stalled = step > _PATIENCE and kept[-1] - highest[-1 - _PATIENCE] < _LEAST_RISE
        if used > 1 or stalled or budget.stop.is_set():
            break
        budget.steps -= 1
        mean.lerp_(gradient, 0.2)
        square.lerp_(gradient.square(), 0.05)
        size = (square / (1 - 0.95**step)).sqrt()
        size = 0.5 * (size + size.mean()) + 1e-8
        shorter = 0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * used))
        values = values + shorter * rates * mean / (1 - 0.8**step) / size
    return replace(best, objective=kept)


def _moved(found: _Found, rotations: Tensor) -> _Found:
    """Another motion in the form of one."""
    times = found.motion.times
    motion = Trajectory.from_camera(rotations.numpy(), found.motion.camera, times).centered()
    dense = Trajectory.from_camera(motion.rotations, found.result.camera, times)
    return replace(found, motion=motion, result=dense.resample(len(found.result)).centered())


def _orders() -> Tensor:
    return torch.arange(1.0, _TERMS + 1)
