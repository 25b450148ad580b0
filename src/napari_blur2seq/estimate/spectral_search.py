"""Motions that make a picture's power spectrum likely, sought far and wide.

Kernels found by edges (`uniform`) are sometimes wrong as wholes, from every start: of regular
texture, or where noise hides the edges. What the power spectrum says (`spectrum`) needs no sharp
picture, and where the blur is the same all over, many motions can be asked for it at once. It has
as many summits as there are ways to lay a path. So the likeliest motions are changed at random,
as a whole, in tempo, or at their ends, and all climb again (basin hopping, Wales and Doye, *Journal
of Physical Chemistry A*, 1997). Begun from curves that are partly right, a few rounds are enough.

A spectrum does not know a motion from its mirror image, nor the last tenth of a px. Both images are
to be improved by edges, and judged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..parallel import side_by_side
from ..progress import Steps, announced, within
from .curve import MOST_COEFFICIENTS, coefficients_of, cosine_basis
from .spectrum import Spectrum, ascend_parts
from .view import View

# Px: pictures are reduced until motions are no longer.
_EXTENT = 24
# Motions that climb beside each other, how many do in all, and how often what they lead to is
# changed.
_TOGETHER, _CLIMBING = 8, 32
_ROUNDS = 2
_STEPS, _POSES = 50, 96
# By extent: length of the first steps, and distance of the coefficients of motions that are taken
# for the same.
_RATE, _NEAR = 0.0125, 0.04
# How much longer than what they are begun from motions may become.
_ROOM = 1.3
# Poses of a motion that is changed.
_FINE = 192
_MESSAGE = "Looking for motions that suit the power spectrum"


def likely_curves_steps(view: View, curves: Sequence[Tensor], count: int) -> Steps[list[Tensor]]:
    """The likeliest motions that are found from some, if the blur is the same all over.

    Parameters
    ----------
    view : View
        The picture.
    curves : sequence of Tensor
        Cosine coefficients of pitch, yaw and roll in px, shape (K, 3) each; roll is left out.
    count : int
        How many are wanted.

    Yields
    ------
    Progress

    Returns
    -------
    list of Tensor
        At most so many, shape (16, 3), the likeliest first. Any may be the mirror image of a true
        one: all its signs reversed.
    """
    generator = torch.Generator().manual_seed(0)
    first = torch.stack([_flat(curve) for curve in curves])
    paths = cosine_basis(_POSES, MOST_COEFFICIENTS) @ first
    extents = (paths.amax(1) - paths.amin(1)).amax(1)
    extent = float(extents.median())
    small = view.scaled(min(1.0, _EXTENT / max(extent, 1.0)))
    factor = small.sides_by(view)
    first, extent = factor * first, factor * extent
    # Kernels must fit into the picture.
    most = min(small.grey.shape) / 2 - 4
    reach = min(_ROOM * factor * float(paths.abs().max()) + 2, most)
    climbing = torch.cat([first, changed(first, _CLIMBING - len(first), extent, generator)])
    found: list[tuple[float, Tensor]] = []
    for i in range(_ROUNDS + 1):
        if i:
            likely = torch.stack([curve for _, curve in found])
            climbing = changed(likely, _CLIMBING, extent, generator)
        works = [_climb_steps(small, some, extent, reach) for some in climbing.split(_TOGETHER)]
        begin, end = (n / (_ROUNDS + 1) for n in (i, i + 1))
        for ends in (yield from within(side_by_side(works), begin, end)):
            found += ends
        found = _apart(found, _NEAR * extent)[:count]
    return [curve / factor for _, curve in found]


def changed(curves: Tensor, count: int, extent: float, generator: torch.Generator) -> Tensor:
    """So many curves (count, K, 3), made from some (S, K, 3) at random, each in one of four ways.

    A slow wave is added; the tempo is changed; an end is cut off; a stroke is added to an end.
    """
    ways = [_with_wave, _in_other_tempo, _cut, _with_stroke]
    basis = cosine_basis(_FINE, curves.shape[1])
    made = []
    for i in range(count):
        path = basis @ curves[i % len(curves)]
        # About as many of each way for each curve.
        path = ways[(i + i // len(curves)) % len(ways)](path, extent, generator)
        if torch.rand((), generator=generator) < 0.5:
            path = path.flip(0)
        made.append(coefficients_of(path - path.mean(0), curves.shape[1]))
    return torch.stack(made) if made else curves[:0]


def _flat(curve: Tensor) -> Tensor:
    """The first terms of a curve, without roll."""
    terms = curve[:MOST_COEFFICIENTS] * torch.tensor([1.0, 1.0, 0.0])
    return F.pad(terms, (0, 0, 0, MOST_COEFFICIENTS - len(terms)))


def _climb_steps(
    view: View, curves: Tensor, extent: float, reach: float
) -> Steps[list[tuple[float, Tensor]]]:
    """Where curves lead to, and how likely that is."""
    orders = torch.arange(1.0, curves.shape[1] + 1)[:, None]
    rates = _RATE * extent / orders.sqrt() * torch.tensor([1.0, 1.0, 0.0])
    spectrum = Spectrum(view, reach, alike=True)
    climbing = ascend_parts(spectrum, curves, rates, poses=_POSES, steps=_STEPS)
    ends, heights = yield from announced(climbing, "estimate", 0, 1, _MESSAGE)
    return list(zip(heights.tolist(), ends, strict=True))


def _apart(found: list[tuple[float, Tensor]], near: float) -> list[tuple[float, Tensor]]:
    """The likeliest first, without what is near to a likelier one or to its mirror image."""
    kept: list[tuple[float, Tensor]] = []
    for height, curve in sorted(found, key=lambda end: -end[0]):
        # Going there or back.
        back = curve * (-1.0) ** torch.arange(1, len(curve) + 1)[:, None]
        images = [curve, -curve, back, -back]
        distances = [float((i - other).norm()) for _, other in kept for i in images]
        if min(distances, default=math.inf) > near:
            kept.append((height, curve))
    return kept


def _between(least: float, most: float, generator: torch.Generator) -> float:
    return least + (most - least) * float(torch.rand((), generator=generator))


def _waves(count: int, orders: int, generator: torch.Generator) -> Tensor:
    """Slow waves (T, count), root mean square 1 in all."""
    strength = torch.randn(orders, count, generator=generator)
    waves = cosine_basis(_FINE, orders) @ (strength / torch.arange(1.0, orders + 1)[:, None])
    return waves / waves.square().sum(1).mean().sqrt()


def _at(path: Tensor, times: Tensor) -> Tensor:
    """A path (T, 3) at times in [0, 1]."""
    places = times.clamp(0, 1) * (len(path) - 1)
    before = places.floor().long().clamp(max=len(path) - 2)
    part = (places - before)[:, None]
    return path[before] * (1 - part) + path[before + 1] * part


def _with_wave(path: Tensor, extent: float, generator: torch.Generator) -> Tensor:
    wave = F.pad(_waves(2, 8, generator), (0, 1))
    return path + wave * extent * _between(0.03, 0.2, generator)


def _in_other_tempo(path: Tensor, extent: float, generator: torch.Generator) -> Tensor:
    del extent
    times = (_waves(1, 4, generator)[:, 0] * _between(0.3, 1.2, generator)).exp().cumsum(0)
    return _at(path, (times - times[0]) / (times[-1] - times[0]))


def _cut(path: Tensor, extent: float, generator: torch.Generator) -> Tensor:
    del extent
    return _at(path, torch.linspace(_between(0.05, 0.35, generator), 1, len(path)))


def _with_stroke(path: Tensor, extent: float, generator: torch.Generator) -> Tensor:
    count = int(_between(0.08, 0.3, generator) * len(path))
    direction = _between(0, 2 * math.pi, generator)
    bend = _between(-1.5, 1.5, generator) * torch.linspace(0, 1, count)
    length = extent * _between(0.1, 0.6, generator)
    stroke = torch.stack([(direction + bend).cos(), (direction + bend).sin(), 0 * bend], 1)
    body = _at(path, torch.linspace(0, 1, len(path) - count))
    return torch.cat([body, body[-1] + stroke.cumsum(0) * length / count])
