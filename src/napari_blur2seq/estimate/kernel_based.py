"""Trajectory from one picture: kernels, curves, regions, choice.

1. Rotations, roll included, where the lens is wide: one kernel whose plane is sheared from region
   to region (`rolled`), from coarse to fine (`roll_search`). Whether it is, the picture tells where
   nothing is known (`lens`).
2. Where it is not, kernels of the whole picture, coarse to fine, from several starts (`uniform`),
   and the smooth, ordered curve of each (`kernel_curve`). If one of them is long, the same in half
   the size, where it is short; the best of these are drawn and improved at full resolution. In a
   small picture, they come first, and the search for roll begins with the best two. Beside them or
   in their place, what a network reads from the picture itself (`picture_network`). Through a long
   lens, too, what all these become when they are sought by the power spectrum (`spectral_search`)
   and improved by edges.
3. The best of all these (`judge` and, unless the blur is long, `exact`),
   fitted to the correlations of overlapping regions (`regions`) and to the picture's power spectrum
   (`spectrum`).
4. The best of what is now there, of long ones by `exact` only among those that are nearly alike; no
   motion if it is not expected to make the picture better (`hypotheses`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..camera import Camera
from ..parallel import side_by_side
from ..progress import Progress, Steps, announced, within
from ..restoration.noise_level import noise_level
from ..trajectory import Trajectory
from .certainty import Certainty, typical
from .curve import MOST_COEFFICIENTS, fit
from .exact import EXACT_PIXELS
from .hypotheses import (
    SOUGHT,
    Hypothesis,
    QuickJudge,
    dense,
    exactly_steps,
    is_believed,
    is_clear,
    judged_steps,
)
from .lens import wide_search_steps
from .picture_network import PictureNetwork, picture_curves
from .regions import gather
from .roll_search import Rolling, begins_in_half, coarse_to_fine_steps, from_kernels_steps
from .rolled import resized, rolled_kernel
from .sample import likelihood_steps, verdict_steps
from .spectral_search import likely_curves_steps
from .spectrum import fit_to_spectrum, likelihood_parts
from .view import FINE_PIXELS, View, longer, reduced
from .whole_kernels import (
    HALF,
    LONG_STARTS,
    STARTS,
    WHOLE_STARTS,
    curves_steps,
    half_steps,
    kernel_steps,
    up_steps,
)

# Px: where no motion that is found is longer, there is none.
_LOOK_AGAIN = 24
# Px, the shorter side in half the size: smaller pictures say too little, and what is found in them
# is mostly chance.
_LEAST_HALF = 200
# So many of them are followed up to full resolution.
_FOLLOWED = 4
# So many are fitted, fewer where what is found was searched for among many already.
_FITTED = {False: 3, True: 2}
# Kernels of so many starts are begun with if the camera rolls and the picture is small.
_ROLLED = 2
# Of the best hypotheses, so many are judged by the exact blur: through a wide lens, or a long one.
_LOOKED_AT = {True: 8, False: 12}
# Px: for longer motions, pictures are judged reduced. The judge's tiles hold little else than what
# has come from beyond them, and it has seen few that long.
_LONG = 32
# But not to fewer pixels than that, nor those that are no larger than for the exact blur.
_LEAST_PIXELS = 30_000
# Number of the first start that is not a kernel's.
_READ = 100
# Of the likeliest motions that the power spectrum leads to, so many are improved; px, the shorter
# side: what smaller pictures say of it is mostly chance.
_MOST_LIKELY, _LEAST_SIDE = 6, 200
_REGION_ROUNDS = 3
# dB by which a wide lens must be better than a long one, whose blur is alike all over the picture:
# as alike as it was taken for when the kernels were found.
_WIDER = 0.3
_EDGE_WEIGHT = 2e-3
# Shares of all work at which the parts of the estimate end, as measured: the search through a wide
# lens, where the lens is known and where it is not, and the shares of what is left then.
_WIDE_END = {True: 0.82, False: 0.5}
_ENDS = (0.24, 0.28, 0.36, 0.38, 0.42, 0.72, 0.95)
_ROLLING_ENDS = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.83)
_COMPARING = Progress("estimate", 1.0, "Comparing trajectories")

# Curves and the numbers of the starts that found them.
_Motions = list[tuple[int, Tensor]]


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
    search = _Search(image.cpu(), camera, lens_known=focal_length_known)
    begun = 0.0
    if kernels and search.may_be_wide:
        begun = _WIDE_END[focal_length_known]
        yield from within(search.wide_steps(), 0, begun)
    ends = (begun + (1 - begun) * end for end in (_ROLLING_ENDS if search.rolls else _ENDS))
    first, found, judged, followed, seen, rolled, fitted = ends
    motions: _Motions = []
    if kernels and not search.rolls:
        motions += yield from within(search.kernel_steps(), 0, first)
        motions += yield from within(search.long_steps(motions), first, found)
    if network is not None:
        motions += search.read(network)
    if motions:
        yield from within(search.first_steps(motions), found, judged)
        yield from within(search.follow_steps(), judged, followed)
        if not search.lens_known:
            yield from within(search.lens_steps(), followed, seen)
    if kernels and not search.rolls:
        further = search.roll_steps() if search.view.varies else search.likely_steps()
        yield from within(further, seen, rolled)
    likely, finer = yield from within(search.fit_steps(), rolled, fitted)
    return (yield from within(search.choice_steps(likely, finer), fitted, 1))


class _Search:
    """The motions of one picture, as they are found, made finer, and compared.

    Parameters
    ----------
    image : Tensor
        Shape (C, H, W).
    camera : Camera
    lens_known : bool
        Whether a longer lens may not take its place.

    Attributes
    ----------
    view : View
        What motions are fitted to.
    seen : View
        What they are judged by.
    lens_known : bool
        Whether it is the camera's lens that they are seen through; becomes true when it is chosen.
    rolls : bool
        Whether all motions of kernels come from the search for roll.
    found : list of Hypothesis
        What there is before the fits.
    """

    def __init__(self, image: Tensor, camera: Camera, *, lens_known: bool) -> None:
        self._image, self._camera, self._noise = image, camera, noise_level(image)
        self.view = self.seen = self._small(FINE_PIXELS)
        # What is restored to judge exactly.
        self._exact_view = self._small(EXACT_PIXELS)
        if lens_known and self.view.varies:
            self.seen = self._exact_view
        self.lens_known, self.rolls = lens_known, False
        self.found: list[Hypothesis] = []
        self._kernels: list[Tensor] = []

    @property
    def may_be_wide(self) -> bool:
        """Whether the search for roll comes before everything else."""
        return self.view.varies and begins_in_half(self._exact_view)

    def _small(self, pixels: int) -> View:
        return View.of(self._image, self._camera, pixels, self._noise)

    def _judged_steps(
        self, motions: _Motions, judge: QuickJudge = verdict_steps
    ) -> Steps[list[Hypothesis]]:
        works = [judged_steps(self.seen, self.view.camera, *m, judge=judge) for m in motions]
        judging = side_by_side(works)
        return (yield from within(judging, 0, 1, "estimate", "Judging trajectories"))

    def _exactly_steps(self, hypotheses: list[Hypothesis]) -> Steps[list[Hypothesis]]:
        works = [exactly_steps(self._exact_view, h) for h in hypotheses]
        return (yield from side_by_side(works))

    def wide_steps(self) -> Steps[None]:
        """Search for roll, and choose the lens if it is not known."""
        view = self._exact_view
        finding = side_by_side([kernel_steps(view, start) for start in WHOLE_STARTS])
        kernels = yield from within(finding, 0, 0.15)
        search = coarse_to_fine_steps if self.lens_known else wide_search_steps
        found = yield from within(search(view, kernels), 0.15, 0.87)
        if found is None:
            self._take_longer_lens()
            if view.grey.shape == self.view.grey.shape:
                self._kernels = kernels
        else:
            self.rolls, self.seen, self.lens_known = True, view, True
            yield from within(self._rolled_steps(*found), 0.87, 1)

    def _take_longer_lens(self) -> None:
        self._camera, self.lens_known = longer(self._camera), True
        views = self.view, self.seen, self._exact_view
        self.view, self.seen, self._exact_view = (view.with_longer_lens() for view in views)

    def kernel_steps(self) -> Steps[_Motions]:
        """What the kernels of the whole picture show."""
        if not self._kernels:
            finding = side_by_side([kernel_steps(self.view, start) for start in WHOLE_STARTS])
            self._kernels = yield from within(finding, 0, 0.95)
        following = side_by_side([curves_steps(kernel) for kernel in self._kernels])
        found = yield from within(following, 0.95, 1)
        return [(i, curve) for i, curves in enumerate(found) for curve in curves]

    def long_steps(self, motions: _Motions) -> Steps[_Motions]:
        """What kernels of the picture in half its size show, if there are long motions."""
        longest = max(dense(curve, self.view.camera).extent for _, curve in motions)
        if longest < _LOOK_AGAIN or HALF * min(self.view.grey.shape) < _LEAST_HALF:
            return []
        small = self.view.scaled(HALF)
        found = yield from side_by_side([half_steps(small, start) for start in LONG_STARTS])
        up = self.view.sides_by(small)
        self._kernels += [resized(kernel, up) for kernel, _ in found]
        return [(len(WHOLE_STARTS) + i, up * curve) for i, (_, curve) in enumerate(found)]

    def follow_steps(self) -> Steps[None]:
        """Add what the best of these motions become at full resolution."""
        of_half = [h for h in self.found if len(WHOLE_STARTS) <= h.start < len(STARTS)]
        of_half.sort(key=lambda h: -h.standing(self.found))
        followed = of_half[:_FOLLOWED]
        works = [up_steps(self.view, h.curve, STARTS[h.start]) for h in followed]
        yield replace(_COMPARING, fraction=0.0)
        ends = yield from within(side_by_side(works), 0, 0.8)
        for h, (kernel, _) in zip(followed, ends, strict=True):
            self._kernels[h.start] = kernel
        motions = [(h.start, curve) for h, (_, curve) in zip(followed, ends, strict=True)]
        self.found += yield from within(self._judged_steps(motions), 0.8, 1)

    def read(self, network: PictureNetwork) -> _Motions:
        """What a network reads from the picture."""
        small, _ = reduced(self._image, FINE_PIXELS)
        curves, _ = picture_curves(network, small, self.view.camera)
        return [(_READ + i, curve) for i, curve in enumerate(curves)]

    def first_steps(self, motions: _Motions) -> Steps[None]:
        """Judge the first motions; how long they are decides what all are judged by."""
        longest = max(dense(curve, self.view.camera).extent for _, curve in motions)
        pixels = self.view.grey.numel()
        if longest > _LONG and pixels > EXACT_PIXELS and not self.rolls:
            fewer = max(_LEAST_PIXELS, int(pixels * (_LONG / longest) ** 2))
            self.seen = self._small(min(fewer, self.seen.grey.numel()))
        self.found += yield from self._judged_steps(motions)

    def lens_steps(self) -> Steps[None]:
        """Take a longer lens if it explains the picture about as well."""
        best = max(self.found, key=lambda h: h.verdict.score)
        seen, camera = self.seen.with_longer_lens(), longer(self.view.camera)
        judging = judged_steps(seen, camera, best.start, best.curve)
        through = yield from within(judging, 0, 0.2)
        if through.verdict.score_among_lenses > best.verdict.score_among_lenses - _WIDER:
            self._take_longer_lens()
            again = [(h.start, h.curve) for h in self.found if h is not best]
            self.found = [through, *(yield from within(self._judged_steps(again), 0.2, 1))]

    def roll_steps(self) -> Steps[None]:
        """Add what is found if the camera rolls, beginning with kernels of a small picture."""
        view = self._exact_view
        yield replace(_COMPARING, fraction=0.0)
        firsts = self._best_kernels(view.sides_by(self.view))
        found = yield from within(from_kernels_steps(view, firsts), 0, 0.85)
        yield from within(self._rolled_steps(*found), 0.85, 1)

    def likely_steps(self) -> Steps[None]:
        """Add what the power spectrum says, begun from what there is."""
        yield replace(_COMPARING, fraction=0.0)
        curves = [h.curve for h in self.found if math.isfinite(h.verdict.score)]
        if self._is_small or not curves:
            return
        likely = yield from within(likely_curves_steps(self.view, curves, _MOST_LIKELY), 0, 0.5)
        # Of mirror images, too.
        firsts = [sign * curve for curve in likely for sign in (1, -1)]
        scale = self._exact_view.sides_by(self.view)
        works = []
        for curve in firsts:
            is_long = dense(curve, self.view.camera).extent > _LONG
            start = LONG_STARTS[0] if is_long else WHOLE_STARTS[0]
            works.append(up_steps(self.view, curve, start, (scale,)))
        ends = yield from within(side_by_side(works), 0.5, 0.8)
        motions = [(SOUGHT, curve) for _, curve in ends]
        self.found += yield from within(self._judged_steps(motions), 0.8, 1)

    def _rolled_steps(self, ends: list[Hypothesis], end: Rolling) -> Steps[None]:
        """Add what a search for roll in the picture that is judged exactly has found."""
        up = self.view.sides_by(self._exact_view)
        motions = [(h.start, up * h.curve) for h in ends]
        judged = yield from within(self._judged_steps(motions, likelihood_steps), 0, 0.1)
        self.found += [replace(h, exact=e.exact) for h, e in zip(judged, ends, strict=True)]
        if up > 1:
            self.found += yield from within(self._finer_steps(end.resized(up)), 0.1, 1)

    def _best_kernels(self, factor: float) -> list[Rolling]:
        """Kernels of the starts that are best so far, resized, without roll."""
        best: dict[int, Hypothesis] = {}
        for h in sorted(self.found, key=lambda h: -h.standing(self.found)):
            if h.start < len(self._kernels):
                best.setdefault(h.start, h)
        return [
            Rolling(start, resized(self._kernels[start], factor), torch.zeros(2))
            for start in list(best)[:_ROLLED]
        ]

    def _finer_steps(self, found: Rolling) -> Steps[list[Hypothesis]]:
        """What a kernel that was found in a reduced picture becomes, judged exactly."""
        polishing = rolled_kernel(self.view, found.kernel, found.slope, found.start, coarse=False)
        message = "Estimating the blur kernel of a rolling camera"
        kernel = yield from announced(polishing, "estimate", 0, 0.4, message)
        finer = replace(found, kernel=kernel)
        curves = yield from within(finer.curves_steps(), 0.4, 0.6)
        motions = [(found.number, curve) for curve in curves]
        judged = yield from within(self._judged_steps(motions, likelihood_steps), 0.6, 0.7)
        return (yield from within(self._exactly_steps(judged), 0.7, 1))

    @property
    def _is_small(self) -> bool:
        return min(self.view.grey.shape) < _LEAST_SIDE

    @cached_property
    def _both_see(self) -> bool:
        """Whether, through a long lens, the exact judge sees as well as the other.

        It favours short motions of a long blur. To be asked once all is found.
        """
        if self.view.varies or self._is_small:
            return False
        judged = [h for h in self.found if h.is_judged]
        best = max(judged, key=lambda h: h.standing([]), default=None)
        return best is None or best.motion.extent <= _LONG

    def _standing(self, hypothesis: Hypothesis, others: list[Hypothesis]) -> float:
        """By both judges, if both see well, dB: what deceives one seldom deceives the other."""
        standing = hypothesis.standing(others)
        if hypothesis.exact is None or not self._both_see:
            return standing
        return standing + hypothesis.verdict.score

    def fit_steps(self) -> Steps[tuple[list[Hypothesis], list[Hypothesis]]]:
        """The likeliest motions, and what the best of them become when they are fitted."""
        # Of the curves of one motion, those that agree most are the smoothest, not the best: which
        # are looked into, the picture alone decides.
        plain = [h for h in self.found if h.exact is None and h.is_judged]
        plain.sort(key=lambda h: -h.standing([]))
        likely = plain[: _LOOKED_AT[self.view.varies]]
        if self.view.varies or self._both_see:
            likely = yield from within(self._exactly_steps(likely), 0, 0.3)
            likely += [h for h in self.found if h.exact is not None]
            likely.sort(key=lambda h: -self._standing(h, []))
        works = [_fitted_steps(self.view, self.seen, h) for h in likely[: _FITTED[self.rolls]]]
        fitted = yield from within(side_by_side(works), 0.3, 1)
        return likely, fitted

    def choice_steps(self, likely: list[Hypothesis], fitted: list[Hypothesis]) -> Steps[Estimate]:
        """The best of all, and whether it is believed."""

        def standing(hypothesis: Hypothesis) -> float:
            return self._standing(hypothesis, self.found)

        if self.view.varies:
            exact = yield from within(self._exactly_steps(fitted), 0, 0.7)
            hypotheses = [*likely, *exact]
            chosen = max(hypotheses, key=standing)
            # Whether it is believed, both judges are asked.
            judging = self._judged_steps([(chosen.start, chosen.curve)])
            (judged,) = yield from within(judging, 0.7, 1)
            chosen = replace(chosen, verdict=judged.verdict)
            alike = [chosen]
        elif self._both_see:
            hypotheses = [*likely, *(yield from self._exactly_steps(fitted))]
            chosen = max(hypotheses, key=standing)
            alike = [h for h in hypotheses if h is chosen or chosen.is_like(h)]
        else:
            # Only motions that are nearly alike are told apart by the exact blur.
            leader = max([likely[0], *fitted], key=standing)
            alike = [h for h in (*likely, *fitted) if h is leader or leader.is_like(h)]
            hypotheses = yield from self._exactly_steps(alike)
            yield _COMPARING
            chosen = max(hypotheses, key=standing)
        yield _COMPARING
        still = Trajectory.zero(self.seen.camera.image_shape, 2, self.seen.camera.focal_length)
        looking = likelihood_parts(self.seen, still)
        at_rest = yield from announced(looking, "estimate", 1, 1, _COMPARING.message)
        scale = self.view.camera.focal_length / self._camera.focal_length
        shape = self._camera.image_shape
        certainty, motion = chosen.certainty(self.found, at_rest, scale), chosen.motion
        moves = is_believed(certainty, shape, scale)
        # What is foretold of one motion is uncertain, of several that are alike much less.
        certainties = []
        for hypothesis in alike:
            certainties.append(hypothesis.certainty(self.found, at_rest, scale))
            yield _COMPARING
        common = typical(certainty, certainties)
        moves = moves and (is_clear(certainty) or is_believed(common, shape, scale))
        rotations = motion.rotations if moves else np.zeros_like(motion.rotations)
        trajectory = Trajectory.from_camera(rotations, self._camera)
        candidates = [
            {"extent_px": h.motion.extent / scale, "expected_gain_db": h.foretold.gain}
            for h in hypotheses
        ]
        return Estimate(trajectory, moves, certainty, candidates)


def _fitted_steps(view: View, seen: View, hypothesis: Hypothesis) -> Steps[Hypothesis]:
    """What a hypothesis becomes when it is fitted to the picture and to its power spectrum."""
    curve = hypothesis.curve
    if hypothesis.motion.extent > _LONG and not view.varies:
        # Regions are too small for it.
        start = LONG_STARTS[hypothesis.start % len(LONG_STARTS)]
        _, curve = yield from within(up_steps(view, curve, start, (1.0,)), 0, 0.6)
    else:
        curve = yield from within(_refine_steps(view, curve), 0, 0.6)
    curve = yield from within(_fit_steps(view, curve), 0.6, 0.9)
    judge = likelihood_steps if view.varies else verdict_steps
    judging = judged_steps(seen, view.camera, hypothesis.start, curve, judge=judge)
    fitted = yield from within(judging, 0.9, 1)
    return replace(fitted, origin=hypothesis)


def _refine_steps(view: View, curve: Tensor) -> Steps[Tensor]:
    """Curve fitted to what the regions of the picture show, from a first one."""
    curve = curve[:MOST_COEFFICIENTS]
    first = dense(curve, view.camera).extent
    for j in range(_REGION_ROUNDS):
        begin, halfway, end = ((j + k) / _REGION_ROUNDS for k in (0, 0.5, 1))
        current = dense(curve, view.camera)
        message = "Looking at the edges of the regions"
        parts = gather(view.grey, view.mask, current, _EDGE_WEIGHT / 1.2**j)
        evidence = yield from announced(parts, "estimate", begin, halfway, message)
        message = "Fitting the trajectory to the regions"
        fitting = fit(curve[None], evidence, view.camera, steps=100, rate=0.35, smoothness=0.1)
        fitted, _ = yield from announced(fitting, "estimate", halfway, end, message)
        # Regions without texture hold nothing back; a motion twice as long is not finer.
        if dense(fitted[0], view.camera).extent > 2 * first + 4:
            break
        curve = fitted[0]
    return curve


def _fit_steps(view: View, curve: Tensor) -> Steps[Tensor]:
    fitting = fit_to_spectrum(view, curve)
    return (yield from announced(fitting, "estimate", 0, 1, "Fitting to the power spectrum"))
