"""The learned image prior in the form that half-quadratic splitting asks for."""

from __future__ import annotations

import torch
from torch import Tensor

from .denoiser import Denoiser

_TILE = 512
_MARGIN = 32


class LearnedPrior:
    """The denoising network, run on tiles so that memory does not grow with the picture.

    Grey pictures are given as three equal channels, averaged again.
    """

    iterations = 6
    first_sigma = 0.1
    strength = 0.3
    blind_factor = 1.0

    def __init__(self, network: Denoiser) -> None:
        self.network = network

    def __call__(self, image: Tensor, sigma: float) -> Tensor:
        """Denoise (1, C, H, W) of noise `sigma`; C is 1 or 3."""
        height, width = image.shape[-2:]
        result = torch.empty_like(image)
        for top in range(0, height, _TILE):
            for left in range(0, width, _TILE):
                y0, x0 = max(0, top - _MARGIN), max(0, left - _MARGIN)
                y1, x1 = min(height, top + _TILE + _MARGIN), min(width, left + _TILE + _MARGIN)
                tile = image[..., y0:y1, x0:x1]
                clean = self.network(tile.expand(-1, 3, -1, -1), sigma)
                if image.shape[1] == 1:
                    clean = clean.mean(1, keepdim=True)
                h, w = min(_TILE, height - top), min(_TILE, width - left)
                result[..., top : top + h, left : left + w] = clean[
                    ..., top - y0 : top - y0 + h, left - x0 : left - x0 + w
                ]
        return result
