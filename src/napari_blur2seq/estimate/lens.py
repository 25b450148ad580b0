"""Whether a picture was taken through a wide lens or a long one, where nobody says so.

Through a long lens the blur is the same all over the picture, and one kernel explains it. Through a
wide one it changes with the roll of the camera and towards the corners. Both are tried, and
compared by what the picture restores to by the exact blur, and in small tiles. As the search for
roll takes long, it is left out where that best kernel, improved, explains less with every small
roll.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..parallel import side_by_side
from ..progress import Steps, within
from ..trajectory import Trajectory
from .hypotheses import LEAST_GAIN, Hypothesis, exactly_steps, judged_steps
from .judge import Verdict
from .roll_search import Rolling, Way, coarse_to_fine_steps
from .sample import LENS_TILE, verdict_steps
from .view import View

# Px of a picture of `EXACT_PIXELS`: longer kernels are seldom right to the pixel, so that rolls are
# liked that only mend them.
_LONG = 32
# dB by which small rolls may explain less than none, and yet the right one more.
_LEAST = -0.8
# Weight of the judge's word: the search has not been after it.
_BESIDE = 2.0
_MESSAGE = "Looking for the lens"


def wide_search_steps(
    view: View, kernels: Sequence[Tensor]
) -> Steps[tuple[list[Hypothesis], Rolling] | None]:
    """Search for roll through a lens that may be wide.

    Parameters
    ----------
    view : View
        The picture, of `EXACT_PIXELS`, through the wide lens.
    kernels : sequence of Tensor
        Its kernels, as for `coarse_to_fine_steps`.

    Yields
    ------
    Progress

    Returns
    -------
    tuple of (list of Hypothesis, Rolling), or None
        As of `coarse_to_fine_steps`; None if the lens is a long one.
    """
    long = view.with_longer_lens()
    plain = [Rolling(i, kernel, torch.zeros(2)) for i, kernel in enumerate(kernels)]
    judging = side_by_side([_plain_steps(long, rolling) for rolling in plain])
    judged = yield from within(judging, 0, 0.1, message=_MESSAGE)
    best = max(judged, key=lambda h: h.score_among_lenses)
    if best.motion.extent > _LONG:
        return None
    ways = [Way(lens, plain[best.start], near=True, judge=among_lenses) for lens in (view, long)]
    beginning = side_by_side([way.begin_steps() for way in ways])
    yield from within(beginning, 0.1, 0.13, message=_MESSAGE)
    yield from within(ways[0].look_around_steps(), 0.13, 0.2, message=_MESSAGE)
    if ways[0].score < ways[1].score + _LEAST:
        return None
    ends, end = yield from within(coarse_to_fine_steps(view, kernels), 0.2, 0.98)
    rolled = max(ends, key=lambda h: h.score_among_lenses)
    # What would not be believed tells no lens.
    if best.foretold.gain < LEAST_GAIN <= rolled.foretold.gain:
        return ends, end
    wide = yield from within(_score_steps(view, rolled), 0.98, 0.99)
    return (ends, end) if wide > (yield from within(_score_steps(long, best), 0.99, 1)) else None


def among_lenses(view: View, number: int, curve: Tensor) -> Steps[Hypothesis]:
    """A curve of a start, judged exactly, without what depends on the lens by itself."""
    hypothesis = yield from judged_steps(view, view.camera, number, curve, judge=_no_judge)
    return (yield from exactly_steps(view, hypothesis, among_lenses=True))


def _score_steps(view: View, hypothesis: Hypothesis) -> Steps[float]:
    """By both judges, dB."""
    verdict = yield from verdict_steps(view, hypothesis.motion, LENS_TILE)
    return hypothesis.score_among_lenses + _BESIDE * verdict.score_among_lenses


def _no_judge(view: View, motion: Trajectory) -> Steps[Verdict]:
    yield from ()
    return Verdict(math.nan, math.nan, 0.0, math.nan)


def _plain_steps(view: View, rolling: Rolling) -> Steps[Hypothesis]:
    curve = yield from within(rolling.curve_steps(), 0, 0.4)
    return (yield from within(among_lenses(view, rolling.number, curve), 0.4, 1))
