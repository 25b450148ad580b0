"""Search for the roll of a camera and the kernel that goes with it (`rolled`), coarse to fine.

A trial of one roll costs little in a picture of half the size, where a long kernel is short, too,
and its faint parts are seen. There the search begins with nothing, from several starts, each of
which goes its own way; the best of what they find is improved in finer pictures. Beside it, kernels
found at full resolution are begun with, as short ones do not show in half the size. Every search
goes in steps along and across the path, by the scores of the motions in the picture that they are
tried in (see `hypotheses`); its end is compared with others' by that in the full picture.

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
from .whole_kernels import HALF, STARTS, curve_steps, kernel_steps, read

Place = tuple[float, float]

# Of `STARTS`: those that begin in half the size.
_BEGINNING = (1, 2, 4, 5)
# Sides of the pictures that the search goes on in, by the full one's, and the least in px: in
# smaller ones, what is found is mostly chance.
_SCALES, LEAST_SIDE = (HALF, math.sqrt(0.5), 1.0), 100
# Scales and starts, among `STARTS`, that a kernel is sought again by.
_IMPROVING = ((1.0, 1), (1.0, 3), (math.sqrt(0.5), 1), (math.sqrt(0.5), 2))
# Of what is found in one picture, so many are improved in the next.
_KEPT = 2
# Displacement by roll at the corners, by that of the principal point, of the first steps of the
# search, how much larger they are across the path at most, and the shortest by the first.
_STEP, _MOST_ACROSS, _LEAST_STEP = 0.3, 4.0, 0.5
_DIRECTIONS = [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)]
# After the first ones, and after the first of what is nearly right.
_MORE_TRIALS, _NEAR_TRIALS = 10, 6
# Of those that are tried at once, the share that is judged exactly where none is nearly right.
_LOOKED_AT = 0.5
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


Judge = Callable[[View, int, Tensor], Steps[Hypothesis]]
ExactJudge = Callable[[View, Hypothesis], Steps[Hypothesis]]


def quickly(view: View, number: int, curve: Tensor) -> Steps[Hypothesis]:
    """A curve of a start, judged by a view, not exactly."""
    return judged_steps(view, view.camera, number, curve)


def hardly(view: View, number: int, curve: Tensor) -> Steps[Hypothesis]:
    """The same for what will be judged exactly whatever the quick judge says."""
    return judged_steps(view, view.camera, number, curve, judge=likelihood_steps)


def exactly(view: View, number: int, curve: Tensor) -> Steps[Hypothesis]:
    """A curve, judged both ways."""
    judged = yield from within(quickly(view, number, curve), 0, 0.4)
    return (yield from within(exactly_steps(view, judged), 0.4, 1))


def coarse_to_fine_steps(
    view: View, firsts: Sequence[Rolling]
) -> Steps[tuple[list[Hypothesis], Rolling]]:
    """Search in finer and finer pictures.

    Parameters
    ----------
    view : View
        The full picture.
    firsts : sequence of Rolling
        Kernels found in it, to begin with beside those of half the size.

    Yields
    ------
    Progress

    Returns
    -------
    found : list of Hypothesis
        All ends of the ways, judged by the full picture.
    best : Rolling
        The best of the ends that were reached in the full picture itself.
    """
    scales = _SCALES if HALF * min(view.grey.shape) >= LEAST_SIDE else _SCALES[-1:]
    found: list[Hypothesis] = []
    ends: list[tuple[Hypothesis, Rolling]] = []
    for i, scale in enumerate(scales):
        small = view.scaled(scale)
        works = [
            _way_steps(view, small, rolling.resized(small.sides_by(view)), near=True)
            for _, rolling in ends[:_KEPT]
        ]
        if scale == HALF:
            works += [_beginning_steps(view, small, number) for number in _BEGINNING]
        if scale == 1:
            slopes = [rolling.slope for _, rolling in ends[:_KEPT]]
            works += [_way_steps(view, view, first, slopes) for first in firsts]
        searching = side_by_side(works)
        # All take about the same time.
        begin, stop = i / len(scales), (i + 1) / len(scales)
        of_all = yield from within(searching, begin, stop, message=_MESSAGE)
        ends = [end for of_one in of_all for end in of_one]
        found += [hypothesis for hypothesis, _ in ends]
        ends.sort(key=lambda end: -end[0].score)
    return found, ends[0][1]


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
        by = small.sides_by(view)
        works.append(_way_steps(view, small, Rolling(number, drawn(by * curve), slope), near=True))
    of_all = yield from within(side_by_side(works), 0.05, 1, message=_MESSAGE)
    return [same, *(hypothesis for of_one in of_all for hypothesis, _ in of_one)]


def search_steps(
    view: View,
    first: Rolling,
    slopes: Sequence[Tensor] = (),
    *,
    near: bool = False,
    judge: Judge = quickly,
    judge_exactly: ExactJudge = exactly_steps,
) -> Steps[Rolling]:
    """Find the roll and the kernel of the motion that a picture speaks for most.

    Of several trials, the half that the quick judge likes best is judged exactly; it does not tell
    what is nearly right apart.

    Parameters
    ----------
    view : View
    first : Rolling
        What to begin with, in px of the view.
    slopes : sequence of Tensor
        Others that may be right; without any, those all around the first one are tried.
    near : bool
        Whether it is nearly right: its kernel is only improved, and no other roll tried at first.
    judge, judge_exactly : callable

    Yields
    ------
    Progress

    Returns
    -------
    Rolling
    """
    axes = _steps_of(first.kernel) / view.field
    # The likeness of wrong ones says little: those around must be looked at, too.
    places = [(0.0, 0.0)]
    if not near:
        away = (slope - first.slope for slope in slopes)
        others = [(float(x), float(y)) for x, y in (d @ torch.linalg.inv(axes) for d in away)]
        places += others or _DIRECTIONS
    most = len(places) + (_NEAR_TRIALS if near else _MORE_TRIALS)
    seen: dict[Place, tuple[float, Rolling]] = {}

    def trial(kernel: Tensor, place: Place) -> Steps[tuple[Hypothesis, Rolling]]:
        slope = first.slope + place[0] * axes[0] + place[1] * axes[1]
        finding = rolled_kernel(view, kernel, slope, first.start, coarse=not near)
        found = yield from announced(finding, "estimate", 0, 0.7, _MESSAGE)
        rolling = replace(first, kernel=found, slope=slope)
        curve = yield from within(rolling.curve_steps(quick=True), 0.7, 0.8)
        return (yield from within(judge(view, first.number, curve), 0.8, 1)), rolling

    def try_steps(kernel: Tensor, new: list[Place]) -> Steps[None]:
        begin, end = (n / most for n in (len(seen), len(seen) + len(new)))
        halfway = (begin + end) / 2
        trying = side_by_side([trial(kernel, place) for place in new])
        tried = yield from within(trying, begin, halfway)
        seen.update({p: (-math.inf, r) for p, (_, r) in zip(new, tried, strict=True)})
        likely = list(range(len(new)))
        if not near:
            likely.sort(key=lambda i: -tried[i][0].score)
            likely = likely[: math.ceil(_LOOKED_AT * len(new))]
        judging = side_by_side([judge_exactly(view, tried[i][0]) for i in likely])
        judged = yield from within(judging, halfway, end)
        seen.update({new[i]: (h.score, tried[i][1]) for i, h in zip(likely, judged, strict=True)})

    def score(place: Place) -> float:
        return seen[place][0]

    yield from try_steps(first.kernel, places)
    place = max(seen, key=score)
    step = _LEAST_STEP if near else 1.0
    while step >= _LEAST_STEP and len(seen) < most:
        around = [(place[0] + step * x, place[1] + step * y) for x, y in _DIRECTIONS]
        new = [other for other in around if other not in seen][: most - len(seen)]
        yield from try_steps(seen[place][1].kernel, new)
        best = max(seen, key=score)
        if score(best) > score(place) + _BETTER:
            place = best
        else:
            step /= 2
    return seen[place][1]


def _beginning_steps(
    view: View, small: View, number: int
) -> Steps[list[tuple[Hypothesis, Rolling]]]:
    """One way from the kernel that a start finds in a reduced picture."""
    finding = kernel_steps(small, STARTS[number], HALF)
    kernel = yield from within(finding, 0, 0.1)
    first = Rolling(number, kernel, torch.zeros(2))
    return (yield from within(_way_steps(view, small, first), 0.1, 1))


def _way_steps(
    view: View, small: View, first: Rolling, slopes: Sequence[Tensor] = (), *, near: bool = False
) -> Steps[list[tuple[Hypothesis, Rolling]]]:
    """One way in a reduced picture; its end, judged by the full one, and in px of that.

    At full resolution, what the network takes its kernel for beside it.
    """
    judge = hardly if near else quickly
    searching = search_steps(small, first, slopes, near=near, judge=judge)
    end = yield from within(searching, 0, 0.9)
    up = view.sides_by(small)
    curves = [(yield from within(end.curve_steps(), 0.9, 0.95))]
    if small is view:
        curves.append(with_roll(read(end.kernel), end.slope))
    ends = []
    for i, curve in enumerate(curves):
        begin, stop = (0.95 + 0.05 * (i + k) / len(curves) for k in (0, 1))
        hypothesis = yield from within(exactly(view, first.number, up * curve), begin, stop)
        ends.append((hypothesis, end.resized(up)))
    return ends


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
