"""Training of the denoiser on sharp pictures alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..restoration.denoiser import Denoiser
from .sharp import random_crops

MAX_SIGMA = 50 / 255
_SCORE_LEVELS = (5, 15, 25, 50)
_SCORE_SIDE = 256


class DenoiserTask:
    """The noise-conditional denoiser, for `loop.train`.

    Parameters
    ----------
    images : sequence of Tensor
        Sharp pictures to learn from, uint8, shape (3, H, W).
    development : sequence of Tensor
        Others for the scores.
    batch : int
        Patches in a step.
    patch : int
        Their side, px.
    """

    name = "denoiser"
    learning_rate = 6e-4
    autocast = True
    scores: tuple[str, ...] = tuple(f"PSNR dB at noise {level}/255" for level in _SCORE_LEVELS)

    def __init__(
        self,
        images: Sequence[Tensor],
        development: Sequence[Tensor],
        *,
        batch: int = 16,
        patch: int = 128,
    ) -> None:
        self._images, self._development = images, development
        self._batch, self._patch = batch, patch
        self._device = torch.device("cpu")

    def network(self) -> nn.Module:
        """A new network."""
        network = Denoiser()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def begin(self, seed: tuple[int, int], device: torch.device) -> None:
        """Set where patches are cut and noise is drawn."""
        self._device = device
        self._generator = np.random.default_rng(seed)

    def loss(self, network: nn.Module, share: float) -> Tensor:
        """Mean absolute error."""
        clean = sample_patches(self._images, self._batch, self._patch, self._generator)
        noisy, sigma = add_noise(clean, self._generator)
        clean, noisy, sigma = (t.to(self._device) for t in (clean, noisy, sigma))
        result: Tensor = (network(noisy, sigma) - clean).abs().mean()
        return result

    @torch.no_grad()
    def score(self, network: nn.Module) -> list[float]:
        """Mean PSNR over the development pictures, cut to 256 px a side."""
        results = []
        for level in _SCORE_LEVELS:
            generator = torch.Generator().manual_seed(0)
            values = []
            for image in self._development:
                clean = image[None, :, :_SCORE_SIDE, :_SCORE_SIDE].float() / 255
                noise = torch.randn(clean.shape, generator=generator)
                clean, noise = clean.to(self._device), noise.to(self._device)
                restored = network(clean + level / 255 * noise, level / 255).clamp(0, 1)
                values.append(-10 * math.log10((restored - clean).square().mean().item()))
            results.append(float(np.mean(values)))
        return results


def sample_patches(
    images: Sequence[Tensor], count: int, size: int, generator: np.random.Generator
) -> Tensor:
    """Random crops, some of them grey or dark.

    Returns
    -------
    Tensor
        Shape (count, 3, size, size), float32 in [0, 1].
    """
    patches = random_crops(images, count, size, generator).float() / 255
    for patch, choice in zip(patches, generator.random(count), strict=True):
        if choice < 0.2:
            patch[:] = patch.mean(0, keepdim=True)
        elif choice < 0.35:  # microscopy and night scenes are darker than daylight
            patch *= generator.uniform(0.2, 1.0)
    return patches


def add_noise(clean: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """White noise of a random level in [0, MAX_SIGMA]; equal in all channels of grey patches."""
    sigma = torch.from_numpy(generator.uniform(0, MAX_SIGMA, len(clean)).astype(np.float32))
    noise = torch.from_numpy(generator.standard_normal(tuple(clean.shape), dtype=np.float32))
    grey = (clean[:, :1] == clean).flatten(1).all(1)
    noise[grey] = noise[grey, :1].expand(-1, 3, -1, -1)
    return clean + sigma.view(-1, 1, 1, 1) * noise, sigma
