"""Motions that may be the true one: what each is worth, and whether the best is believed.

What the picture says of one motion is its score; smooth ones are likelier than rough ones. Beside
it counts that wrong motions seldom agree with each other, and that what is long and found once is
often chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from ..camera import Camera
from ..metrics import path_error
from ..progress import Steps
from ..trajectory import Trajectory
from .certainty import FEW, Certainty, is_lonely
from .curve import mean_order, to_trajectory
from .exact import ExactVerdict, exact_score, exact_verdict_steps
from .judge import Verdict
from .sample import verdict_steps
from .view import View

# Poses of a trajectory, more where its curve has more terms.
_DENSE = 64
# Poses of trajectories that are compared.
_COMPARED = 32
# Extent in px below which a motion is short: all find the same one in a picture that is sharp
# already, and what its kernel shows beyond a smooth curve is mostly noise.
SHORT = 8
# Number of the start of motions that were sought from what all others had found: they say nothing
# for those.
SOUGHT = 200
# Path error of another motion, as a share of that of no motion.
_UNLIKE = 0.4
# dB for each other start that found the same motion, and at most, if there are few: wrong ones
# seldom agree.
_AGREEMENT, _MOST_AGREEMENT = 1.0, 2.0
# A long motion that no other start found may be one of chance, as smooth and sharp pictures have:
# by how much it must be better than others, dB.
_LONELY_PRICE = 1.0
# It must promise so much, dB, and make the picture's spectrum so much likelier, hundredths, or less
# if it makes nearly all of the picture better.
_CLEAR_GAIN, _LIKELIER, _NEARLY_ALL_LIKELIER = 1.8, 6.0, 3.0
# Or both judges must promise much: of fine texture, the exact one does alone.
_BOTH_GAIN = 4.0
# But no right one has promised so much: regular texture, as of bricks, deceives all judges.
_TOO_GOOD = 12.0
# Of the shorter side: so long a motion leaves too little of the picture to speak for it, unless
# another start found the same; or, in between, nearly the same, and it promises much.
_LONG, _TOO_LONG = 0.1, 0.15
# dB for each of the cosine terms that a motion has in the mean: of two that explain the picture as
# well, the smoother one is nearer to the truth.
_ROUGHNESS = 0.05
# The same where it is judged exactly, whose cost every turn of a motion can please.
_ROUGHNESS_BESIDE = 0.4
# dB: what is expected to gain less is not worth the risk (in pictures that are sharp, up to 1 dB is
# foretold of 1 px), unless another start found the same motion, and the loss that is foretold is
# not larger.
LEAST_GAIN = 1.0
_MOST_LOSS = 3.0
# Px, the shorter side: in smaller pictures starts agree by chance, too, and all must promise that.
_SMALL = 200
# One that few others found may not make a tenth of the picture worse by more, dB, unless it
# promises so much.
_MOST_LOW_LOSS, _MUCH = 1.0, 4.0
# Of the picture's shorter side.
_LONGEST = 0.6


# How a motion is judged that is not judged exactly.
QuickJudge = Callable[[View, Trajectory], Steps[Verdict]]


@dataclass(frozen=True)
class Hypothesis:
    """A motion and what the picture says of it.

    Attributes
    ----------
    start : int
        What found it: those of different starts are independent of each other.
    curve : Tensor
        Cosine coefficients, px, shape (K, 3).
    motion : Trajectory
        The curve as the camera of its view sees it.
    verdict : Verdict
        Of the judge.
    origin : Hypothesis, optional
        What it was made from by a fit.
    exact : ExactVerdict, optional
        None where it was not looked at.
    """

    start: int
    curve: Tensor
    motion: Trajectory
    verdict: Verdict
    origin: Hypothesis | None = None
    exact: ExactVerdict | None = None

    @cached_property
    def score(self) -> float:
        """Of several hypotheses, all judged exactly or none, the best has the highest, dB."""
        if self.exact is None:
            return self.verdict.score - _ROUGHNESS * mean_order(self.curve)
        rough = _ROUGHNESS_BESIDE * mean_order(self.curve)
        return exact_score(self.verdict, self.exact) - rough

    @property
    def score_among_lenses(self) -> float:
        """The same for hypotheses of several lenses, judged exactly or hopeless."""
        if self.exact is None:
            return -math.inf
        return self.exact.score - _ROUGHNESS_BESIDE * mean_order(self.curve)

    @property
    def is_judged(self) -> bool:
        """Whether more is known of it than how likely it makes the power spectrum."""
        return self.exact is not None or not math.isnan(self.verdict.gain)

    @property
    def foretold(self) -> Verdict | ExactVerdict:
        """The better founded of the verdicts."""
        return self.verdict if self.exact is None else self.exact

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

    def is_like(self, other: Hypothesis) -> bool:
        """Whether both are about the same motion."""
        return path_error(self.compared, other.compared) <= self.unlike

    def agreement(self, others: Sequence[Hypothesis]) -> float:
        """How many other starts found about the same motion.

        Each counts for less, the more it differs. What was fitted has moved away from the others,
        so that what it was made from counts, too.
        """
        found: dict[int, float] = {}
        for other in others:
            if other.start not in (self.start, SOUGHT) and self.unlike > 0:
                near = 1 - path_error(self.compared, other.compared) / self.unlike
                found[other.start] = max(near, found.get(other.start, 0.0))
        whole = sum(found.values())
        return whole if self.origin is None else max(whole, self.origin.agreement(others))

    def standing(self, others: Sequence[Hypothesis]) -> float:
        """Score, dB, with what is known beside the picture."""
        agreement, starts = self.agreement(others), self._starts_of(others)
        bonus = min(_AGREEMENT * agreement, _MOST_AGREEMENT * max(starts, FEW) / FEW)
        if self.motion.extent >= SHORT and is_lonely(agreement, starts):
            bonus = -_LONELY_PRICE
        return self.score + bonus

    def certainty(self, others: Sequence[Hypothesis], at_rest: float, scale: float) -> Certainty:
        """What speaks for it.

        Parameters
        ----------
        others : sequence of Hypothesis
        at_rest : float
            Likelihood of the power spectrum if nothing moves.
        scale : float
            Px of its view in one px of the picture.
        """
        apart = [path_error(self.motion, h.motion) for h in others if h.start != self.start]
        return Certainty(
            extent=self.motion.extent / scale,
            spread=min(apart, default=self.motion.extent) / scale,
            agreement=self.agreement(others),
            expected_gain=self.foretold.gain,
            low_gain=self.foretold.low_gain,
            likelihood_gain=self.verdict.likelihood - at_rest,
            field=self.motion.camera.field,
            starts=self._starts_of(others),
            quick_gain=self.verdict.gain,
            sought=self.start == SOUGHT,
        )

    def _starts_of(self, others: Sequence[Hypothesis]) -> int:
        return len({h.start for h in others} - {self.start, SOUGHT})


def is_believed(certainty: Certainty, image_shape: tuple[int, int], scale: float) -> bool:
    """Whether the picture is likely to become better by a motion; `scale` as for `certainty`."""
    return certainty.extent > 0 and certainty.expected_gain > _least_gain(
        certainty, min(image_shape), scale
    )


def is_clear(certainty: Certainty) -> bool:
    """Whether other starts found the same and it promises more than any of a sharp picture."""
    return certainty.confirmed and certainty.expected_gain >= _CLEAR_GAIN


def _least_gain(certainty: Certainty, side: int, scale: float) -> float:
    """What must be expected of a motion for it to be believed, dB."""
    # In a picture that is sharp already, all find the same short one.
    if certainty.extent * scale >= SHORT:
        # A sharp picture's spectrum is unlikely if it is said to be blurred.
        if certainty.confirmed and certainty.likelihood_gain > 0:
            return LEAST_GAIN if side < _SMALL else -_MOST_LOSS
        if certainty.extent > _LONG * side:
            doubtful = certainty.lonely or certainty.low_gain <= 0
            return math.inf if doubtful or certainty.extent > _TOO_LONG * side else _MUCH
        if certainty.lonely:
            if certainty.expected_gain > _TOO_GOOD:
                return math.inf
            likelier = _NEARLY_ALL_LIKELIER if certainty.low_gain > 0 else _LIKELIER
            if certainty.likelihood_gain >= likelier:
                return _MUCH if certainty.sought else _CLEAR_GAIN
            return _BOTH_GAIN if certainty.quick_gain >= _BOTH_GAIN else math.inf
    return _MUCH if certainty.low_gain < -_MOST_LOW_LOSS else LEAST_GAIN


def dense(curve: Tensor, camera: Camera) -> Trajectory:
    """The trajectory of a curve, in poses enough for all its terms."""
    return to_trajectory(curve, camera, max(_DENSE, len(curve) + 1))


def judged_steps(
    seen: View,
    camera: Camera,
    start: int,
    curve: Tensor,
    *,
    judge: QuickJudge = verdict_steps,
) -> Steps[Hypothesis]:
    """A curve of a camera, judged by what is `seen`."""
    motion = dense(curve, camera)
    as_seen = Trajectory.from_camera(motion.rotations, seen.camera)
    if as_seen.extent > _LONGEST * min(seen.grey.shape):
        verdict = Verdict(-math.inf, math.inf, 0.0, -math.inf)
    else:
        verdict = yield from judge(seen, as_seen)
    return Hypothesis(start, curve, motion, verdict)


def exactly_steps(
    small: View, hypothesis: Hypothesis, *, among_lenses: bool = False
) -> Steps[Hypothesis]:
    """The same hypothesis, judged exactly in a view of `EXACT_PIXELS`."""
    if hypothesis.exact is not None or math.isinf(hypothesis.verdict.score):
        return hypothesis
    judging = exact_verdict_steps(small, hypothesis.motion, among_lenses=among_lenses)
    return replace(hypothesis, exact=(yield from judging))
