"""Search for the roll of a camera and the kernel that goes with it (`rolled`), coarse to fine.

A trial of one roll costs little in a picture of half the size, where a long kernel is short, too,
and its faint parts are seen. There the search begins with nothing, from several starts, each of
which goes its own way. The best of these ways are followed, and what they lead to is improved in
finer pictures. Every way goes in steps along and across the path, by the scores of the motions in
the picture that they are tried in, restored exactly (see `hypotheses`); its end is compared with
others' by that in the full picture. With the roll that is found, kernels that the full picture has
shown without any are improved, too: if they agree, it is sure.

A motion that is nearly right is improved in the same way, by several starts from its own kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..parallel import side_by_side
from ..progress import Steps, announced, within
from .hypotheses import Hypothesis, exactly_steps, judged_steps
from .kernel_curve import drawn
from .rolled import resized, rolled_kernel, slope_of, with_roll
from .sample import likelihood_steps
from .uniform import Start
from .view import View
from .whole_kernels import (
    HALF,
    STARTS,
    curve_steps,
    curves_steps,
    kernel_steps,
    quick_curves_steps,
)

Place = tuple[float, float]

# Of `STARTS`: those that begin in half the size.
_BEGINNING = (1, 2, 4, 5)
# Sides of the pictures that the search begins in, by the full one's, and the least in px: in
# smaller ones, what is found is mostly chance.
_SCALES, LEAST_SIDE = (HALF, math.sqrt(0.5)), 100
# Scales and starts, among `STARTS`, that a kernel is sought again by.
_IMPROVING = ((1.0, 1), (1.0, 3), (math.sqrt(0.5), 1), (math.sqrt(0.5), 2))
# Of the ways that are begun, so many are followed to their ends, and on to the next picture: of
# thirty pictures, the way that was best after five trials was among the best two after one.
_FOLLOWED = 2
# Displacement by roll at the corners, by that of the principal point, of the first steps of the
# search, how much larger they are across the path at most, and the shortest by the first.
_STEP, _MOST_ACROSS, _LEAST_STEP = 0.3, 4.0, 0.5
_DIRECTIONS = [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)]
# After the first ones of a way.
_MORE_TRIALS = 6
# dB
_BETTER = 0.02
_MESSAGE = "Searching for the roll of the camera"


@dataclass(frozen=True)
class Rolling:
    """A motion that may be: the kernel at the principal point, and the roll that goes with it.

    Attributes
    ----------
    number : int
        Of its start, among `STARTS`.
    kernel : Tensor
        Odd sides, sum 1.
    slope : Tensor
        Roll for one px of displacement along x and y, shape (2,); see `rolled`.
    """

    number: int
    kernel: Tensor
    slope: Tensor

    @property
    def start(self) -> Start:
        return STARTS[self.number]

    def resized(self, factor: float) -> Rolling:
        """The same in a picture whose sides are changed by a factor."""
        return self if factor == 1 else replace(self, kernel=resized(self.kernel, factor))

    def curve_steps(self, *, quick: bool = False) -> Steps[Tensor]:
        """Its curve (K, 3) in px."""
        curve = yield from curve_steps(self.kernel, quick=quick)
        return with_roll(curve, self.slope)

    def curves_steps(self) -> Steps[list[Tensor]]:
        """Its curve, and what the network takes its kernel for beside it."""
        seen, curve = yield from curves_steps(self.kernel)
        return [with_roll(curve, self.slope), with_roll(seen, self.slope)]


Judge = Callable[[View, int, Tensor], Steps[Hypothesis]]


def hardly(view: View, number: int, curve: Tensor) -> Steps[Hypothesis]:
    """A curve of a start; nothing but its likelihood is looked at."""
    return judged_steps(view, view.camera, number, curve, judge=likelihood_steps)


def exactly(view: View, number: int, curve: Tensor) -> Steps[Hypothesis]:
    """A curve, judged exactly."""
    likely = yield from within(hardly(view, number, curve), 0, 0.2)
    return (yield from within(exactly_steps(view, likely), 0.2, 1))


def begins_in_half(view: View) -> bool:
    """Whether a picture is so large that the search begins with nothing, in half its size."""
    return HALF * min(view.grey.shape) >= LEAST_SIDE


def coarse_to_fine_steps(
    view: View, kernels: Sequence[Tensor]
) -> Steps[tuple[list[Hypothesis], Rolling]]:
    """Search in finer and finer pictures, of those that `begins_in_half` holds for.

    Parameters
    ----------
    view : View
        The full picture.
    kernels : sequence of Tensor
        Found in it by the first of `STARTS` from nothing, one each.

    Yields
    ------
    Progress

    Returns
    -------
    found : list of Hypothesis
        What all led to, judged by the full picture: exactly, if it was followed.
    best : Rolling
        The best of the ends that were reached in the full picture itself.
    """
    half, middle = (view.scaled(scale) for scale in _SCALES)
    beginning = side_by_side([_from_nothing_steps(half, number) for number in _BEGINNING])
    ways = yield from within(beginning, 0, 0.2, message=_MESSAGE)
    ways.sort(key=lambda way: -way.score)
    works = [_followed_steps(view, way) for way in ways[:_FOLLOWED]]
    ends = yield from within(_sorted_steps(works), 0.2, 0.45)
    leaving = side_by_side([_so_far_steps(view, way) for way in ways[_FOLLOWED:]])
    left = yield from within(leaving, 0.45, 0.45, message=_MESSAGE)
    works = [_nearby_steps(view, middle, rolling) for _, rolling in ends]
    later = yield from within(_sorted_steps(works), 0.45, 0.65)
    _, best = later[0]
    # By itself, so that its trials run beside each other.
    last = yield from within(_nearby_steps(view, view, best), 0.65, 0.88)
    works = [_with_slope_steps(view, Rolling(i, k, best.slope)) for i, k in enumerate(kernels)]
    last += yield from within(_sorted_steps(works), 0.88, 1)
    _, end = max(last, key=lambda reached: reached[0].score)
    return [*(hypothesis for hypothesis, _ in (*ends, *later, *last)), *left], end


def from_kernels_steps(
    view: View, firsts: Sequence[Rolling]
) -> Steps[tuple[list[Hypothesis], Rolling]]:
    """The same in a small picture, beginning with kernels that were found in it."""
    ends = yield from _sorted_steps([_from_kernel_steps(view, first) for first in firsts])
    return [hypothesis for hypothesis, _ in ends], ends[0][1]


def improved_steps(view: View, curve: Tensor) -> Steps[list[Hypothesis]]:
    """A motion that is nearly right, and what becomes of it when its kernel is sought again.

    Several starts go their own way from there, some of them in a reduced picture.

    Parameters
    ----------
    view : View
    curve : Tensor
        Cosine coefficients of pitch, yaw and roll in px, shape (K, 3).

    Yields
    ------
    Progress

    Returns
    -------
    list of Hypothesis
        All judged exactly; that of the motion itself is the first.
    """
    same = yield from within(exactly(view, 0, curve), 0, 0.05)
    slope, works = slope_of(curve), []
    for scale, number in _IMPROVING:
        small = view.scaled(scale)
        kernel = drawn(small.sides_by(view) * curve)
        works.append(_way_steps(view, Way(small, Rolling(number, kernel, slope), near=True)))
    ends = yield from within(_sorted_steps(works), 0.05, 1)
    return [same, *(hypothesis for hypothesis, _ in ends)]


class Way:
    """Trials of rolls, and kernels for them, in search of the motion a picture speaks for most.

    Parameters
    ----------
    view : View
        The picture.
    first : Rolling
        What to begin with, in its px.
    near : bool
        Whether that is nearly right: its kernel is only improved, and no other roll tried at first.
    judge : callable
        Scores the curves of what is tried.
    """

    def __init__(
        self, view: View, first: Rolling, *, near: bool = False, judge: Judge = exactly
    ) -> None:
        self.view = view
        self._first, self._near, self._judge = first, near, judge
        self._axes = _steps_of(first.kernel) / view.field
        self._seen: dict[Place, tuple[float, Rolling]] = {}

    @property
    def score(self) -> float:
        """The best so far, dB."""
        return self._score(self._place)

    @property
    def best(self) -> Rolling:
        """What has it."""
        return self._seen[self._place][1]

    def begin_steps(self) -> Steps[None]:
        """The first trial."""
        yield from self._try_steps(self._first.kernel, [(0.0, 0.0)])

    def look_around_steps(self) -> Steps[None]:
        """Those around the first one, which all must be looked at where nothing is nearly right."""
        yield from self._try_steps(self._first.kernel, _DIRECTIONS)

    def go_on_steps(self) -> Steps[None]:
        """The other ones, from the best to better ones."""
        begun = len(self._seen)
        place, step = self._place, _LEAST_STEP if self._near else 1.0
        while step >= _LEAST_STEP and (tried := len(self._seen) - begun) < _MORE_TRIALS:
            around = [(place[0] + step * x, place[1] + step * y) for x, y in _DIRECTIONS]
            new = [other for other in around if other not in self._seen][: _MORE_TRIALS - tried]
            begin, end = (n / _MORE_TRIALS for n in (tried, tried + len(new)))
            if new:
                yield from within(self._try_steps(self._seen[place][1].kernel, new), begin, end)
            if self.score > self._score(place) + _BETTER:
                place = self._place
            else:
                step /= 2

    @property
    def _place(self) -> Place:
        return max(self._seen, key=self._score)

    def _score(self, place: Place) -> float:
        return self._seen[place][0]

    def _try_steps(self, kernel: Tensor, places: list[Place]) -> Steps[None]:
        finding = side_by_side([self._rolling_steps(kernel, place) for place in places])
        rollings = yield from within(finding, 0, 0.5, message=_MESSAGE)
        following = quick_curves_steps([rolling.kernel for rolling in rollings])
        curves = yield from within(following, 0.5, 0.6)
        works = [
            self._judge(self.view, rolling.number, with_roll(curve, rolling.slope))
            for rolling, curve in zip(rollings, curves, strict=True)
        ]
        judged = yield from within(side_by_side(works), 0.6, 1)
        for place, hypothesis, rolling in zip(places, judged, rollings, strict=True):
            self._seen[place] = hypothesis.score, rolling

    def _rolling_steps(self, kernel: Tensor, place: Place) -> Steps[Rolling]:
        """What is found with the slope of a place."""
        start, number = self._first.start, self._first.number
        slope = self._first.slope + place[0] * self._axes[0] + place[1] * self._axes[1]
        finding = rolled_kernel(self.view, kernel, slope, start, coarse=not self._near)
        found = yield from announced(finding, "estimate", 0, 1, _MESSAGE)
        return Rolling(number, found, slope)


# Hypotheses of a full picture, and what they are the curves of, in its px.
_Ends = list[tuple[Hypothesis, Rolling]]


def _sorted_steps(works: Sequence[Steps[_Ends]]) -> Steps[_Ends]:
    """What all works end with, the best first."""
    of_all = yield from within(side_by_side(works), 0, 1, message=_MESSAGE)
    ends = [end for of_one in of_all for end in of_one]
    return sorted(ends, key=lambda end: -end[0].score)


def _from_nothing_steps(small: View, number: int) -> Steps[Way]:
    """A way begun from the kernel that a start finds in a reduced picture."""
    finding = kernel_steps(small, STARTS[number], HALF)
    kernel = yield from within(finding, 0, 0.5)
    way = Way(small, Rolling(number, kernel, torch.zeros(2)))
    yield from within(way.begin_steps(), 0.5, 1)
    return way


def _from_kernel_steps(view: View, first: Rolling) -> Steps[_Ends]:
    """A way from a kernel, which may be far from right, to its end."""
    way = Way(view, first)
    yield from within(way.begin_steps(), 0, 0.1)
    return (yield from within(_followed_steps(view, way), 0.1, 1))


def _followed_steps(view: View, way: Way) -> Steps[_Ends]:
    """A way that was begun far from right to its end."""
    yield from within(way.look_around_steps(), 0, 0.4)
    return (yield from within(_end_steps(view, way), 0.4, 1))


def _nearby_steps(view: View, small: View, rolling: Rolling) -> Steps[_Ends]:
    """What is nearly right, in px of the full picture, improved in a reduced one."""
    first = rolling.resized(small.sides_by(view))
    return (yield from _way_steps(view, Way(small, first, near=True)))


def _way_steps(view: View, way: Way) -> Steps[_Ends]:
    """A way that begins nearly right, from its beginning to its end."""
    yield from within(way.begin_steps(), 0, 0.1)
    return (yield from within(_end_steps(view, way), 0.1, 1))


def _with_slope_steps(view: View, first: Rolling) -> Steps[_Ends]:
    """What becomes of a kernel of the full picture with a slope."""
    finding = rolled_kernel(view, first.kernel, first.slope, first.start)
    kernel = yield from announced(finding, "estimate", 0, 0.4, _MESSAGE)
    rolling = replace(first, kernel=kernel)
    curve = yield from within(rolling.curve_steps(), 0.4, 0.5)
    return [((yield from within(exactly(view, first.number, curve), 0.5, 1)), rolling)]


def _end_steps(view: View, way: Way) -> Steps[_Ends]:
    """The end of a way that was begun, judged by the full picture, and in px of that."""
    yield from within(way.go_on_steps(), 0, 0.8)
    end, up = way.best, view.sides_by(way.view)
    if way.view is view:
        curves = yield from within(end.curves_steps(), 0.8, 0.9)
    else:
        curves = [(yield from within(end.curve_steps(), 0.8, 0.9))]
    judging = side_by_side([exactly(view, end.number, up * curve) for curve in curves])
    judged = yield from within(judging, 0.9, 1)
    return [(hypothesis, end.resized(up)) for hypothesis in judged]


def _so_far_steps(view: View, way: Way) -> Steps[Hypothesis]:
    """What a way has led to so far, hardly judged by the full picture."""
    best, up = way.best, view.sides_by(way.view)
    curve = yield from within(best.curve_steps(quick=True), 0, 0.5)
    return (yield from within(hardly(view, best.number, up * curve), 0.5, 1))


def _steps_of(kernel: Tensor) -> Tensor:
    """Slopes (2, 2) along the path and across it that matter about as much."""
    positions = torch.arange(kernel.shape[0]) - kernel.shape[0] // 2
    y, x = torch.meshgrid(positions, positions, indexing="ij")
    pixels = torch.stack([x, y], -1).float()
    pixels = pixels - (kernel[..., None] * pixels).sum((0, 1))
    spread = torch.einsum("yx,yxi,yxj->ij", kernel, pixels, pixels)
    variances, directions = torch.linalg.eigh(spread)
    across, along = variances.clamp_min(0.1).sqrt().unbind()
    ratio = float((along / across).clamp_max(_MOST_ACROSS))
    return _STEP * torch.stack([directions[:, 1], ratio * directions[:, 0]])
