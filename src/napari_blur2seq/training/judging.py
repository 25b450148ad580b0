"""Training of the network that judges trajectories (`estimate.judge`).

Sharp patches are blurred by random motions, and restored with others: what the kernel network
reads from a spoilt kernel of the true one, the true one disturbed or at another size, another
motion's, longer or shorter. The patch's true error is then known, once it is moved to where
the restored one lies, as a shift is no error of the blur model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.fft import irfft2, rfft2

from ..estimate.curve import cosine_basis
from ..estimate.judge import CELL, ITERATIONS, LEAST_NOISE, POWER, ROUNDS, Judge, log_ratio
from ..estimate.kernel_network import KernelNetwork
from ..fourier import around_zero, differences, power_spectrum, transfer_functions
from ..models.registry import load_kernel_network
from ..progress import finish
from ..restoration.sparse import SparseGradientPrior
from ..shake import GyroscopeLog
from .blurring import blurred, rendered
from .kernels import synthesise
from .motions import Motions
from .replay import Replay
from .sharp import random_crops

PATCH = 160
_MARGIN = 48
_FULL = PATCH + 2 * _MARGIN
_REACH = 38
_POSES = 96
_SEARCH = 12
# Errors that an eye would not see are all alike.
_LEAST_ERROR = 2e-5
_KEPT = 1500
# How often a restored patch is learned from.
_USES = 3
# Shares of what the candidates are: read by the kernel network, disturbed, another motion of
# the same size, the true one at another size, another motion of any size, the true one, and
# the rest: short motions.
_SHARES = (0.40, 0.17, 0.08, 0.08, 0.13, 0.05)

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def new_judge() -> Judge:
    """A network that has learned nothing yet."""
    network = Judge()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


class JudgeTask:
    """The network that judges trajectories, for `loop.train`.

    Parameters
    ----------
    images : sequence of Tensor
        Sharp pictures to learn from, uint8, shape (3, H, W).
    development : sequence of Tensor
        Others for the scores.
    recordings : sequence of GyroscopeLog
        For the motions, beside simulated tremor.
    batch : int
        Patches in a step.
    """

    name = "judge"
    learning_rate = 1e-3
    autocast = False
    scores: tuple[str, ...] = ("rank correlation", "mean error dB", "right about the sign")

    def __init__(
        self,
        images: Sequence[Tensor],
        development: Sequence[Tensor],
        recordings: Sequence[GyroscopeLog] = (),
        *,
        batch: int = 16,
        scored: int = 20,
    ) -> None:
        self._images, self._development = images, development
        self._motions = Motions(recordings)
        self._batch, self._scored = batch, scored

    def network(self) -> nn.Module:
        """A new network."""
        return new_judge()

    def begin(self, seed: tuple[int, int], device: torch.device) -> None:
        """Set where patches, motions and noise are drawn; restore what the scores are made of."""
        self._device = device
        self._reader = load_kernel_network()
        self._numbers = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(int(self._numbers.integers(2**31)))
        fixed = np.random.default_rng(0), torch.Generator().manual_seed(0)
        made = [self._restored(self._development, *fixed) for _ in range(self._scored)]
        self._examples = made
        self._replay = Replay[Batch](_KEPT, _USES, self._numbers)

    def loss(self, network: nn.Module, share: float) -> Tensor:
        """Errors of the logarithms in the cells, and of the whole patch's gain."""
        chosen = self._replay.next(
            lambda: self._restored(self._images, self._numbers, self._generator)
        )
        *pictures, noise, restored, blurry = (t.to(self._device).float() for t in chosen)
        logs = network(*pictures, noise)
        expected = (torch.stack([restored, blurry], 1) + _LEAST_ERROR).log()
        cells = F.smooth_l1_loss(logs, expected, beta=0.5, reduction="none").mean((0, 2, 3))
        gain = F.smooth_l1_loss(log_ratio(logs), _true_ratio(restored, blurry), beta=0.3)
        return cells[0] + 0.5 * cells[1] + 2 * gain

    @torch.no_grad()
    def score(self, network: nn.Module) -> list[float]:
        """How well the gains of whole patches are foretold."""
        foretold, true = [], []
        for example in self._examples:
            *pictures, noise, restored, blurry = (t.to(self._device).float() for t in example)
            foretold.append(log_ratio(network(*pictures, noise)).cpu())
            true.append(_true_ratio(restored, blurry).cpu())
        a, b = torch.cat(foretold), torch.cat(true)
        rank = float(spearmanr(a.numpy(), b.numpy()).statistic)
        error = 10 / math.log(10) * float((a - b).abs().mean())
        return [rank, error, float(((a < 0) == (b < 0)).float().mean())]

    @torch.no_grad()
    def _restored(
        self, images: Sequence[Tensor], numbers: np.random.Generator, generator: torch.Generator
    ) -> Batch:
        """Blurry and restored patches, residuals, noise, and the cells' mean squared errors."""
        count = self._batch
        true, candidate = candidates(self._motions, self._reader, count, generator)
        kernels = [rendered(paths, 2 * _REACH + 5) for paths in (true, candidate)]
        sharp = random_crops(images, count, _FULL, numbers).float().mean(1) / 255

        def uniform() -> Tensor:
            return torch.rand(count, 1, 1, generator=generator)

        contrast = 0.3 + 0.7 * uniform().sqrt()
        sharp = (1 - contrast) * uniform() + contrast * sharp
        # Light may add up where the picture's values do not, and be too much.
        gamma = torch.where(uniform() < 0.5, 1.0, 1.2 + 1.2 * uniform())
        gain = torch.where(uniform() < 0.8, 1.0, 1 + 0.3 * uniform())
        noise = 0.002 * 10 ** (1.1 * uniform())
        light = blurred(sharp**gamma, kernels[0]).clamp_min(0) ** (1 / gamma)
        noisy = gain * light + noise * torch.randn(light.shape, generator=generator)
        blurry = ((noisy.clamp(0, 1) * 255).round() / 255)[:, *_INSIDE]
        assumed = 2 * noise.clamp_min(LEAST_NOISE)
        restored, residual = quick_restoration(blurry, kernels[1], assumed)
        sharp = (gain * sharp).clamp(0, 1)
        errors = [
            F.avg_pool2d(aligned_error(picture, sharp)[:, None], CELL)[:, 0]
            for picture in (restored, blurry)
        ]
        pictures = [p[:, None].half() for p in (blurry, restored, residual)]
        return (*pictures, noise.flatten(), *errors)  # type: ignore[return-value]


_INSIDE = (slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN))


def candidates(
    motions: Motions, reader: KernelNetwork, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """True motions and what might be taken for them.

    Parameters
    ----------
    motions : Motions
    reader : KernelNetwork
        Reads curves from spoilt kernels.
    count : int
    generator : torch.Generator

    Returns
    -------
    true, candidate : Tensor
        Displacements in px, zero on average, shape (count, T, 2).
    """
    batch = synthesise(motions, count, generator, regions=1)
    paths = batch.paths[:, :, 0].transpose(1, 2)
    true = F.interpolate(paths, _POSES, mode="linear", align_corners=True).transpose(1, 2)
    true = true * (_REACH / _size(true)).clamp_max(1)
    true = true - true.mean(1, keepdim=True)
    curves, errors = reader(batch.kernels, batch.rays, batch.scale, batch.known)
    best = curves[torch.arange(count), errors.argmin(1)] * batch.scale[:, None, None]
    # Yaw moves the picture along +x, pitch along -y.
    read = cosine_basis(_POSES, best.shape[1]) @ torch.stack([best[..., 1], -best[..., 0]], -1)
    other = true.roll(1, 0)
    other = other / _size(other)
    size = _size(true)
    amount = torch.rand(count, 1, 1, generator=generator)
    kinds = [
        read,
        true + 0.7 * amount * size * other,
        (0.5 + amount) * size * other,
        (0.2 + 1.6 * amount) * true,
        size * (_REACH / size) ** amount * other,
        true,
        (0.5 + 4 * amount) * other,
    ]
    edges = torch.tensor(_SHARES).cumsum(0)
    kind = torch.bucketize(torch.rand(count, generator=generator), edges)
    candidate = torch.stack(kinds)[kind, torch.arange(count)].clamp(-_REACH, _REACH)
    return true, candidate - candidate.mean(1, keepdim=True)


def quick_restoration(blurry: Tensor, kernels: Tensor, assumed: Tensor) -> tuple[Tensor, Tensor]:
    """What `estimate.judge` looks at, for patches (B, H, W) with a kernel and a noise each.

    Half-quadratic splitting as in `restoration.half_quadratic`, each patch one tile.

    Returns
    -------
    restored, residual : Tensor
        Shape (B, H, W).
    """
    observed = F.pad(blurry[:, None], (_MARGIN,) * 4, mode="replicate")[:, 0]
    transfer = transfer_functions(kernels, (_FULL, _FULL))
    power = power_spectrum(transfer)
    prior = SparseGradientPrior(power=POWER, rounds=ROUNDS)
    first = assumed.clamp_min(prior.schedules["known"].first_sigma)
    sides = (_FULL, _FULL)
    inside = torch.zeros(sides)
    inside[_INSIDE] = 1
    picture = observed
    for k in range(ITERATIONS):
        level = first * (assumed / first) ** (k / (ITERATIONS - 1))
        residual = (observed - irfft2(transfer * rfft2(picture), s=sides)) * inside
        ridge = (assumed / level).square()
        correction = irfft2(transfer.conj() * rfft2(residual) / (power + ridge), s=sides)
        moved = picture + correction
        picture = torch.cat(
            [finish(prior(p[None, None], float(s)))[0] for p, s in zip(moved, level, strict=True)]
        )
    residual = irfft2(transfer * rfft2(picture), s=sides) - observed
    return picture[:, *_INSIDE].clamp(0, 1), residual[:, *_INSIDE]


def _size(paths: Tensor) -> Tensor:
    """Furthest displacement along an axis, shape (B, 1, 1)."""
    return paths.abs().flatten(1).amax(1)[:, None, None].clamp_min(0.5)


def aligned_error(picture: Tensor, sharp: Tensor, search: int = _SEARCH) -> Tensor:
    """Squared error of pictures (B, H, W) to the sharp ones, moved to where they fit best.

    A shift is no error of the blur model.

    Parameters
    ----------
    picture : Tensor
    sharp : Tensor
        With a margin of the same width on every side, more than is searched.
    search : int
        Px that the shift may have along an axis.
    """
    count, height, width = picture.shape
    whole = (sharp.shape[-2], sharp.shape[-1])
    margin = (whole[0] - height) // 2
    inside = (..., slice(margin, -margin), slice(margin, -margin))
    rows, columns = (torch.hann_window(n, periodic=False) for n in (height, width))
    window = (rows[:, None] * columns).sqrt()
    a, b = (torch.stack(differences(p), 1) * window for p in (sharp[inside], picture))
    table = irfft2((rfft2(a).conj() * rfft2(b)).sum(1), s=(height, width))
    side = 2 * search + 1
    table = around_zero(table, search)
    best = table.flatten(1).argmax(1)
    y, x = ((best // side).clamp(1, side - 2), (best % side).clamp(1, side - 2))
    each = torch.arange(count)

    def between(before: Tensor, middle: Tensor, after: Tensor) -> Tensor:
        """Where the parabola through three values is highest."""
        curvature = before - 2 * middle + after - 1e-12
        return (0.5 * (before - after) / curvature).clamp(-0.5, 0.5)

    middle = table[each, y, x]
    dx = x - search + between(table[each, y, x - 1], middle, table[each, y, x + 1])
    dy = y - search + between(table[each, y - 1, x], middle, table[each, y + 1, x])
    angle = torch.fft.fftfreq(whole[0])[:, None] * dy[:, None, None]
    angle = angle + torch.fft.rfftfreq(whole[1]) * dx[:, None, None]
    turn = torch.polar(torch.ones_like(angle), -2 * math.pi * angle)
    moved = irfft2(rfft2(sharp) * turn, s=whole)[inside]
    error: Tensor = (picture - moved).square()
    return error


def _true_ratio(restored: Tensor, blurry: Tensor) -> Tensor:
    a, b = ((e.mean((1, 2)) + _LEAST_ERROR).log() for e in (restored, blurry))
    return a - b
