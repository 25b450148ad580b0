"""The learned image prior in the form that half-quadratic splitting asks for."""

from __future__ import annotations

from torch import Tensor

from ..progress import Parts
from .denoiser import Denoiser
from .half_quadratic import Schedule
from .tiles import filtered

_TILE = 480
_MARGIN = 32


class LearnedPrior:
    """The denoising network, run on tiles so that memory does not grow with the picture.

    Grey pictures are given as three equal channels, averaged again.

    Parameters
    ----------
    network : Denoiser
    tile : int, optional
        Side of the tiles in px, without what overlaps.
    """

    known = Schedule(iterations=6, first_sigma=0.1, strength=0.3)
    # With a motion that is not quite right, every step adds to the ringing.
    blind = Schedule(iterations=4, first_sigma=0.05, strength=0.3)

    def __init__(self, network: Denoiser, tile: int | None = None) -> None:
        self.network = network
        self._tile = tile or _TILE

    def __call__(self, image: Tensor, sigma: float | Tensor) -> Parts[Tensor]:
        """Denoise (1, C, H, W) of noise `sigma`, one number or (1, 1, H, W); C is 1 or 3."""

        def denoise(block: Tensor, level: float | Tensor) -> Tensor:
            clean: Tensor = self.network(block.expand(-1, 3, -1, -1), level)
            return clean.mean(1, keepdim=True) if block.shape[1] == 1 else clean

        return filtered(image, sigma, self._tile, _MARGIN, denoise)
