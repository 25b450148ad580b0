"""The learned image prior in the form that half-quadratic splitting asks for."""

from __future__ import annotations

from torch import Tensor

from ..devices import mixed_precision
from ..progress import Parts
from .half_quadratic import Trust
from .tiles import filtered
from .unrolled import UnrolledRestoration

_TILE = 480
_MARGIN = 32


class LearnedPrior:
    """The denoisers and the schedules of the unrolled network.

    They are run on tiles so that memory does not grow with the picture. Grey pictures are given
    as three equal channels, averaged again.

    Parameters
    ----------
    network : UnrolledRestoration
    tile : int, optional
        Side of the tiles in px, without what overlaps.
    """

    def __init__(self, network: UnrolledRestoration, tile: int | None = None) -> None:
        self._network, self._tile = network, tile or _TILE
        self.schedules = {trust: part.schedule() for trust, part in network.parts().items()}

    def __call__(
        self, image: Tensor, sigma: float | Tensor, trust: Trust = "known"
    ) -> Parts[Tensor]:
        """Denoise (1, C, H, W) of noise `sigma`, one number or (1, 1, H, W); C is 1 or 3."""
        denoiser = self._network.parts()[trust].denoiser

        def denoise(block: Tensor, level: float | Tensor) -> Tensor:
            with mixed_precision(block.device):
                clean: Tensor = denoiser(block.expand(-1, 3, -1, -1), level)
            return clean.mean(1, keepdim=True) if block.shape[1] == 1 else clean

        return filtered(image, sigma, self._tile, _MARGIN, denoise)
