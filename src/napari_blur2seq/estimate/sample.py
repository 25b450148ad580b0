r"""Tiles of a picture on which motions are tried: a quick restoration, and what it is worth.

Each tile is restored with the kernel of its middle, so that all is a few Fourier transforms
through which gradients go, down to the motion. The tiles are those that the judging network
has learned to read (see `judge`); in a large picture they are spread over all of it, as roll is
seen far from the middle only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.fft import irfft2, rfft2

from ..fourier import fast_size, power_spectrum, transfer_functions
from ..progress import Parts, Progress, Steps, announced, within
from ..restoration.half_quadratic import SATURATED, one_sided
from ..restoration.sparse import SparseGradientPrior
from ..restoration.tiles import spread
from ..trajectory import Trajectory
from .curve import reach_of
from .judge import (
    CELL,
    COST_WEIGHT,
    ITERATIONS,
    LEAST_NOISE,
    POWER,
    ROUNDS,
    Verdict,
    gain_in_cells,
    norm_ratio,
    shipped_judge,
    whole_gain,
)
from .kernel_network import rasterise
from .spectrum import likelihood_parts
from .view import View

TILE = 160
# Px: on these, lenses are compared, as within one the lens makes no difference.
LENS_TILE = 64
_MOST = 12
_BATCH = 3
_MESSAGE = "Judging a trajectory"

# Observed and restored tiles, and what the restored ones leave unexplained.
Pictures = tuple[Tensor, Tensor, Tensor]


class Sample:
    """Tiles of a picture for motions of a limited size.

    Parameters
    ----------
    view : View
        The picture.
    reach : float
        Px that a point may be displaced from its middle place.
    tile : int
        Side of the tiles in px; longer for longer motions. The network has learned from `TILE`;
        what differs all over the picture is seen better in smaller ones.

    Attributes
    ----------
    middles : Tensor
        (x, y) of the tiles' middles in px, shape (N, 2).
    """

    def __init__(self, view: View, reach: float, tile: int = TILE) -> None:
        height, width = view.grey.shape
        self.reach = math.ceil(reach) + 6
        margin = int(1.25 * self.reach) + 8
        side = max(tile, 2 * self.reach)
        inner = [min(side, length) // CELL * CELL for length in (height, width)]
        self._size = (fast_size(inner[0] + 2 * margin), fast_size(inner[1] + 2 * margin))
        self._inner = (
            ...,
            slice(margin, margin + inner[0]),
            slice(margin, margin + inner[1]),
        )
        pictures, inside, middles = [], [], []
        tops, lefts = _starts((height, width), inner, _MOST * TILE**2 // tile**2)
        for top in tops:
            for left in lefts:
                y = torch.arange(top - margin, top - margin + self._size[0])
                x = torch.arange(left - margin, left - margin + self._size[1])
                rows, columns = y.clamp(0, height - 1), x.clamp(0, width - 1)
                pictures.append(view.grey[rows][:, columns])
                seen = (rows == y).float()[:, None] * (columns == x).float()
                inside.append(seen)
                middles.append([left + (inner[1] - 1) / 2, top + (inner[0] - 1) / 2])
        self._observed, self._inside = torch.stack(pictures)[:, None], torch.stack(inside)[:, None]
        self._saturated = self._observed >= SATURATED
        self.middles = torch.tensor(middles)
        self._noise = torch.full((len(middles),), max(view.noise, 1 / 500))
        # Real pictures have errors other than noise.
        self._assumed = max(view.noise, LEAST_NOISE)
        self._prior = SparseGradientPrior(power=POWER, rounds=ROUNDS)

    def judged_parts(self, moved: Tensor) -> Parts[tuple[float, float, Tensor]]:
        """The judge's gain of a motion in dB, its cost, and the gain in each cell.

        Pauses after every few tiles.

        Parameters
        ----------
        moved : Tensor
            Displacements of the tiles' middles in px, zero on average, shape (N, T, 2).
        """
        pictures = yield from self._restored_parts(moved, 0.9)
        gain, cost, gains = self._judged([torch.cat(p) for p in zip(*pictures, strict=True)])
        return float(gain), float(cost), gains

    @torch.enable_grad()
    def slope_parts(self, moved: Tensor) -> Parts[tuple[float, Tensor]]:
        """Gain less the weighted cost of a motion in dB, and its gradient, of the shape of `moved`.

        Pauses after every few tiles on the way there and on the way back.
        """
        moved = moved.detach().requires_grad_(True)
        batches = yield from self._restored_parts(moved, 0.4)
        leaves = [[p.detach().requires_grad_(True) for p in batch[1:]] for batch in batches]
        seen = [(batch[0], *leaf) for batch, leaf in zip(batches, leaves, strict=True)]
        gain, cost, _ = self._judged([torch.cat(p) for p in zip(*seen, strict=True)])
        score = gain - COST_WEIGHT * cost
        slopes = iter(torch.autograd.grad(score, [p for leaf in leaves for p in leaf]))
        yield 0.5
        gradient = torch.zeros_like(moved)
        for i, (_, *batch) in enumerate(batches):
            gradient += torch.autograd.grad(batch, moved, [next(slopes) for _ in batch])[0]
            yield 0.5 + 0.5 * (i + 1) / len(batches)
        return float(score.detach()), gradient

    def _restored_parts(self, moved: Tensor, share: float) -> Parts[list[Pictures]]:
        """All tiles, a few at a time, as the first share of what is done."""
        pictures = []
        for first in range(0, len(moved), _BATCH):
            pictures.append(self._restored(moved, slice(first, first + _BATCH)))
            yield share * min((first + _BATCH) / len(moved), 1)
        return pictures

    def _restored(self, moved: Tensor, index: slice) -> Pictures:
        moved = moved[index].clamp(-self.reach, self.reach)
        weights = torch.full(moved.shape[:2], 1 / moved.shape[1])
        kernels = rasterise(moved, weights, torch.ones(len(moved)), 2 * self.reach + 5)
        transfer = transfer_functions(kernels, self._size)[:, None]
        power = power_spectrum(transfer)
        last = 2 * self._assumed
        first = max(self._prior.schedules["known"].first_sigma, last)
        observed, inside = self._observed[index], self._inside[index]
        saturated = self._saturated[index]
        picture = observed
        for k in range(ITERATIONS):
            level = first * (last / first) ** (k / (ITERATIONS - 1))
            residual = (observed - self._blurred(picture, transfer)) * inside
            residual = one_sided(residual, saturated)
            correction = rfft2(residual) * transfer.conj() / (power + (last / level) ** 2)
            picture = self._prior.denoise(picture + irfft2(correction, s=self._size), level)
        residual = self._blurred(picture, transfer) - observed
        return observed[self._inner], picture[self._inner].clamp(0, 1), residual[self._inner]

    def _blurred(self, picture: Tensor, transfer: Tensor) -> Tensor:
        blurred: Tensor = irfft2(transfer * rfft2(picture), s=self._size)
        return blurred

    def _judged(self, pictures: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Gain, cost, and the gain in each cell, of the pictures of all tiles."""
        observed, restored, residual = pictures
        logs = shipped_judge()(observed, restored, residual, self._noise)
        # Of all tiles together.
        gain = whole_gain(torch.cat(logs.unbind(0), 1)[None])[0]
        unexplained = residual.square().mean() + self._assumed**2
        cost = unexplained.log() + 3 * norm_ratio(restored).log()
        return gain, cost, gain_in_cells(logs)


def verdict_steps(view: View, trajectory: Trajectory, tile: int = TILE) -> Steps[Verdict]:
    """Judge a trajectory of a picture.

    Yields
    ------
    Progress

    Returns
    -------
    Verdict
    """
    sample = Sample(view, reach_of(trajectory), tile)
    moved = torch.from_numpy(trajectory.paths(sample.middles.numpy())).float().transpose(0, 1)
    judging = sample.judged_parts(moved - moved.mean(1, keepdim=True))
    gain, cost, gains = yield from announced(judging, "estimate", 0, 0.9, _MESSAGE)
    likely = yield from within(likelihood_steps(view, trajectory), 0.9, 1)
    return replace(likely, gain=gain, cost=cost, low_gain=float(gains.quantile(0.1)))


def likelihood_steps(view: View, trajectory: Trajectory) -> Steps[Verdict]:
    """The same of what will be judged exactly: nothing but the likelihood is looked at."""
    yield Progress("estimate", 0, _MESSAGE)
    looking = likelihood_parts(view, trajectory)
    likelihood = yield from announced(looking, "estimate", 0, 1, _MESSAGE)
    return Verdict(math.nan, math.nan, likelihood, math.nan)


def _starts(shape: tuple[int, int], part: list[int], most: int) -> list[list[int]]:
    """Even starts of parts that leave out no more than a quarter of one, or are the most."""
    counts = [
        max(1, math.ceil((length - side / 4) / side))
        for length, side in zip(shape, part, strict=True)
    ]
    return spread(shape, part, counts, most)
