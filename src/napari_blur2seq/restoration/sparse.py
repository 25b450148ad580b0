"""The classical image prior: gradients of a sharp picture are sparse."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..fourier import differences, divergence, fast_size, laplacian
from ..progress import Parts
from .half_quadratic import Schedule, Trust
from .tiles import filtered

_TILE = 640
_MARGIN = 32
_LEAST = 1e-8


def shrink(magnitude: Tensor, weight: float | Tensor, power: float) -> Tensor:
    r"""Minimiser over :math:`s \ge 0` of :math:`\frac12 (s-m)^2 + w\,s^p`, as a factor of m.

    One step of the generalised soft threshold (Zuo et al., *A generalized iterated
    shrinkage algorithm for non-convex sparse coding*, ICCV 2013); differentiable in `magnitude`.
    """
    factor: Tensor = _Shrinkage.apply(  # type: ignore[no-untyped-call]
        magnitude, weight, power
    )
    return factor


class _Shrinkage(torch.autograd.Function):
    """`shrink` in two tensors: what goes through new memory at every step takes thrice as long."""

    @staticmethod
    def forward(ctx: Any, magnitude: Tensor, weight: float | Tensor, power: float) -> Tensor:
        threshold = (2 * weight * (1 - power)) ** (1 / (2 - power))
        threshold += weight * power * (2 * weight * (1 - power)) ** ((power - 1) / (2 - power))
        safe = magnitude.clamp_min(_LEAST)
        value = safe.clone()
        for _ in range(3):
            # s = m - w p s^(p - 1)
            value.clamp_min_(_LEAST).log_().mul_(power - 1).exp_().mul_(-weight * power)
            value.add_(safe).clamp_min_(0)
        factor = value.div_(safe).mul_(magnitude > threshold)
        ctx.save_for_backward(safe, factor)
        ctx.weight, ctx.power = weight, power
        return factor

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        """By the implicit function theorem: ``ds/dm = 1 / (1 + w p (p - 1) s^(p - 2))``."""
        (gradient,) = outputs
        safe, factor = ctx.saved_tensors
        value = (safe * factor).clamp_min(_LEAST)
        curvature = ctx.weight * ctx.power * (ctx.power - 1) * value ** (ctx.power - 2)
        slope = (1 / (1 + curvature) - factor) / safe * (factor > 0)
        return gradient * slope, None, None


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
        self.schedules: dict[Trust, Schedule] = {
            "known": Schedule(iterations, first_sigma=0.2),
            "doubted": Schedule(iterations, first_sigma=0.2, noise_factor=1.5),
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
            square = torch.addcmul(dx * dx, dy, dy).mean(1, keepdim=True)
            magnitude = square.add_(1e-12).sqrt_()  # the root has no slope at zero
            factor = shrink(magnitude, scale / beta, self.power)
            edges = torch.fft.rfft2(divergence(dx * factor, dy * factor))
            spectrum = edges.mul_(beta).add_(data).mul_((1 + beta * frequencies).reciprocal_())
            u = torch.fft.irfft2(spectrum, s=(height, width))
            beta *= 2
        return u
