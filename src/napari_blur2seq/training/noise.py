"""Training of the network that tells how much noise is in a picture (`restoration.noise_level`).

Sharp pictures are blurred, and become files as a camera makes them: shot and read noise, some of it
smoothed, 8 bits, mostly JPEG, some reduced in size after that. What is not the blurred scene is
known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..restoration.half_quadratic import SATURATED
from ..restoration.noise_level import CELL, LEAST_LEVEL, NoiseNetwork
from ..shake import GyroscopeLog
from .blurring import blurred, rendered
from .jpeg import jpeg
from .motions import Motions
from .replay import Replay
from .sharp import random_crops

_PATCH = 4 * CELL
# What is cut off at each side: the blur's reach, and where JPEG's blocks begin.
_MARGIN = 32
_FULL = _PATCH + 2 * _MARGIN
_LONGEST = 40.0
_POSES = 48
_KEPT = 400
# How often a patch is learned from.
_USES = 3
# Shares of the patches: at rest, through a camera with a response, brighter than the range,
# with smoothed noise, compressed; and of the batches that are reduced afterwards.
_AT_REST, _RESPONSE, _BRIGHT, _SMOOTHED, _COMPRESSED, _REDUCED = 0.08, 0.5, 0.2, 0.25, 0.6, 0.3
_QUALITIES = (65, 100)

# Grey pictures (B, 1, H, W), the variance of their cells (B, h, w), and how much each counts.
Batch = tuple[Tensor, Tensor, Tensor]


class NoiseTask:
    """The network that tells how much noise there is, for `loop.train`.

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
    scored : int
        Batches that the scores are made of.
    """

    name = "noise"
    learning_rate = 1.5e-3
    autocast = False
    scores: tuple[str, ...] = ("divergence", "mean error of the level dB")

    def __init__(
        self,
        images: Sequence[Tensor],
        development: Sequence[Tensor],
        recordings: Sequence[GyroscopeLog] = (),
        *,
        batch: int = 16,
        scored: int = 16,
    ) -> None:
        self._images, self._development = images, development
        self._motions = Motions(recordings)
        self._batch, self._scored = batch, scored

    def network(self) -> nn.Module:
        """A new network."""
        return NoiseNetwork()

    def begin(self, seed: tuple[int, int], device: torch.device) -> None:
        """Set where patches, motions and noise are drawn; make what the scores are made of."""
        self._device = device
        self._numbers = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(int(self._numbers.integers(2**31)))
        fixed = np.random.default_rng(0), torch.Generator().manual_seed(0)
        self._examples = [self._made(self._development, *fixed) for _ in range(self._scored)]
        self._replay = Replay[Batch](_KEPT, _USES, self._numbers)

    def loss(self, network: nn.Module, share: float) -> Tensor:
        """Itakura and Saito's divergence of the variances: the errors' likelihood."""
        chosen = self._replay.next(lambda: self._made(self._images, self._numbers, self._generator))
        pictures, variance, weights = (t.to(self._device) for t in chosen)
        return _divergence(network(pictures), variance, weights)

    @torch.no_grad()
    def score(self, network: nn.Module) -> list[float]:
        """How well the variances of cells and the levels of whole patches are told."""
        divergences, errors = [], []
        for example in self._examples:
            pictures, variance, weights = (t.to(self._device) for t in example)
            logs = network(pictures)
            divergences.append(float(_divergence(logs, variance, weights)))
            told, true = ((v * weights).sum((1, 2)) for v in (logs.exp(), variance))
            known = weights.sum((1, 2)) > 0
            errors.append(10 * (told / true)[known].log10().abs())
        return [float(np.mean(divergences)), float(torch.cat(errors).mean())]

    @torch.no_grad()
    def _made(
        self, images: Sequence[Tensor], numbers: np.random.Generator, generator: torch.Generator
    ) -> Batch:
        count = self._batch

        def uniform(*shape: int) -> Tensor:
            return torch.rand(count, *shape, generator=generator)

        gamma = torch.where(uniform(1, 1, 1) < _RESPONSE, 1.4 + uniform(1, 1, 1), 1.0)
        gain = 1 + (uniform(1, 1, 1) < _BRIGHT) * uniform(1, 1, 1)
        contrast = 0.3 + 0.7 * uniform(1, 1, 1).sqrt()
        sharp = random_crops(images, count, _FULL, numbers).float() / 255
        grey = uniform() < 0.15
        sharp[grey] = sharp[grey].mean(1, keepdim=True)
        sharp = (1 - contrast) * uniform(1, 1, 1) + contrast * sharp
        light = (gain * self._blurred(sharp**gamma, generator)).clamp(0, 1)
        # Variance: a light + b, with a share `shot` of it from the first term at 0.2.
        total, shot = 0.001 * 40 ** uniform(1, 1, 1), uniform(1, 1, 1)
        variance = total.square() * (shot * light / 0.2 + 1 - shot)
        noise = variance.sqrt() * torch.randn(light.shape, generator=generator)
        noise[grey] = noise[grey][:, :1]
        clean = light ** (1 / gamma)
        noise = (light + noise).clamp(0, 1) ** (1 / gamma) - clean
        smoothed = torch.where(uniform(1, 1, 1) < _SMOOTHED, uniform(1, 1, 1), 0.0)
        noise = torch.lerp(noise, F.avg_pool2d(F.avg_pool2d(noise, 2, 1), 2, 1, 1), smoothed)
        file = ((clean + noise).clamp(0, 1) * 255).round() / 255
        compressed = uniform() < _COMPRESSED
        if compressed.any():
            low, high = _QUALITIES
            quality = low + (high - low) * uniform()[compressed]
            file[compressed] = jpeg(file[compressed], quality.round())
        return _cells(file, clean, numbers)

    def _blurred(self, light: Tensor, generator: torch.Generator) -> Tensor:
        count = len(light)
        # In px, but for a factor that is set next.
        pitch, yaw, _ = self._motions.sample(count, _POSES, generator).unbind(-1)
        paths = torch.stack([yaw, -pitch], -1)
        paths = paths - paths.mean(1, keepdim=True)
        extents = _LONGEST * torch.rand(count, 1, 1, generator=generator) ** 1.5
        extents[torch.rand(count, generator=generator) < _AT_REST] = 0
        across = (paths.amax(1) - paths.amin(1)).norm(dim=1)[:, None, None]
        paths = (paths / across.clamp_min(1e-9) * extents).clamp(-_MARGIN, _MARGIN)
        kernels = rendered(paths, 2 * _MARGIN + 3)
        return blurred(light.transpose(0, 1), kernels).transpose(0, 1)


def _cells(file: Tensor, clean: Tensor, numbers: np.random.Generator) -> Batch:
    """What the network sees of files (B, 3, H, W), and what it is to tell."""
    grey, error = file.mean(1, keepdim=True), (file - clean).mean(1, keepdim=True)
    known = (torch.maximum(file, clean) < SATURATED).all(1, keepdim=True).float()
    if numbers.random() < _REDUCED:
        side = int(numbers.integers(_FULL // 2 + _MARGIN, _FULL))
        grey, error, known = (
            F.interpolate(t, size=(side, side), mode="bicubic", antialias=True)
            for t in (grey, error, known)
        )
        grey, known = (grey * 255).round().clamp(0, 255) / 255, (known > 0.99).float()
    # Circular blur, replicated edges: nothing near the border is as in a picture.
    margin = min(_MARGIN // 2, (grey.shape[-1] - _PATCH + CELL) // 2)
    side = (grey.shape[-1] - 2 * margin) // CELL * CELL
    top, left = (
        margin + int(numbers.integers(grey.shape[-1] - 2 * margin - side + 1)) for _ in range(2)
    )
    part = (..., slice(top, top + side), slice(left, left + side))
    grey, error, known = grey[part], error[part], F.avg_pool2d(known[part], 2)
    known = (known == 1).float()
    squares = (2 * F.avg_pool2d(error, 2)).square() * known
    weights = F.avg_pool2d(known, CELL // 2)[:, 0]
    variance = F.avg_pool2d(squares, CELL // 2)[:, 0] / weights.clamp_min(1e-6)
    return grey, variance.clamp_min(LEAST_LEVEL**2), weights


def _divergence(logs: Tensor, variance: Tensor, weights: Tensor) -> Tensor:
    ratio = variance.log() - logs
    result: Tensor = ((ratio.exp() - ratio - 1) * weights).sum() / weights.sum().clamp_min(1.0)
    return result
