"""The classical image prior: gradients of a sharp picture are sparse."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..fourier import differences, divergence, fast_size, laplacian
from ..progress import Parts
from .half_quadratic import Schedule, Trust
from .tiles import filtered

_TILE = 640
_MARGIN = 32


def shrink(magnitude: Tensor, weight: float | Tensor, power: float) -> Tensor:
    r"""Minimiser over :math:`s \ge 0` of :math:`\frac12 (s-m)^2 + w\,s^p`, as a factor of m.

    One step of the generalised soft threshold (Zuo et al., *A generalized iterated
    shrinkage algorithm for non-convex sparse coding*, ICCV 2013).
    """
    threshold = (2 * weight * (1 - power)) ** (1 / (2 - power))
    threshold += weight * power * (2 * weight * (1 - power)) ** ((power - 1) / (2 - power))
    safe = magnitude.clamp_min(1e-8)
    value = safe
    for _ in range(3):
        value = (safe - weight * power * value.clamp_min(1e-8) ** (power - 1)).clamp_min(0)
    return torch.where(magnitude > threshold, value / safe, torch.zeros_like(value))


class SparseGradientPrior:
    r"""Denoiser of the hyper-Laplacian prior :math:`\sum_x |\nabla u(x)|^p`.

    .. math:: \arg\min_u \frac{1}{2\sigma^2}\|u - z\|^2 + \lambda \sum_x |\nabla u(x)|^p

    by half-quadratic splitting in the Fourier domain (Krishnan and Fergus, *Fast image
    deconvolution using hyper-Laplacian priors*, NeurIPS 2009), with periodic borders:
    give it a picture with a margin to throw away.
    The gradient's magnitude is that of all channels together, so that edges stay
    without colour fringes.

    Parameters
    ----------
    weight : float
        :math:`\lambda`, for images in [0, 1].
    power : float
        :math:`p`, 0 < p <= 1; photographs have about 0.6 to 0.8.
    rounds : int
        Rounds of splitting.
    iterations : int
        Half-quadratic steps of a restoration.
    tile : int, optional
        Side in px of the tiles that are denoised, without what overlaps.
    """

    def __init__(
        self,
        weight: float = 3.5,
        power: float = 0.7,
        rounds: int = 5,
        iterations: int = 8,
        tile: int | None = None,
    ) -> None:
        self._tile = tile or _TILE
        self.weight, self.power, self.rounds = weight, power, rounds
        exact = Schedule(iterations, first_sigma=0.2)
        smooth = Schedule(iterations, first_sigma=0.2, noise_factor=1.5)
        self.schedules: dict[Trust, Schedule] = {
            "known": exact,
            "trusted": exact,
            "doubted": smooth,
        }

    def __call__(
        self, image: Tensor, sigma: float | Tensor, trust: Trust = "known"
    ) -> Parts[Tensor]:
        """Denoise (1, C, H, W) of noise `sigma`, one number or (1, 1, H, W)."""
        return filtered(image, sigma, self._tile, _MARGIN, self._denoise_padded)

    def _denoise_padded(self, image: Tensor, sigma: float | Tensor) -> Tensor:
        """`denoise` of a picture that is continued to a size whose transform is quick."""
        height, width = image.shape[-2:]
        pads = (0, fast_size(width) - width, 0, fast_size(height) - height)
        if isinstance(sigma, Tensor):
            sigma = F.pad(sigma, pads, mode="replicate")
        return self.denoise(F.pad(image, pads, mode="replicate"), sigma)[..., :height, :width]

    def denoise(self, image: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise (B, C, H, W), periodic, in one go; differentiable."""
        height, width = image.shape[-2:]
        frequencies = laplacian((height, width), image.device)
        data = torch.fft.rfft2(image)
        scale = self.weight * sigma * sigma
        u = image
        beta = 0.5
        for _ in range(self.rounds):
            dx, dy = differences(u)
            square = (dx.square() + dy.square()).mean(1, keepdim=True)
            magnitude = (square + 1e-12).sqrt()  # the root has no slope at zero
            factor = shrink(magnitude, scale / beta, self.power)
            dx, dy = dx * factor, dy * factor
            spectrum = (data + beta * torch.fft.rfft2(divergence(dx, dy))) / (
                1 + beta * frequencies
            )
            u = torch.fft.irfft2(spectrum, s=(height, width))
            beta *= 2
        return u
