r"""Half-quadratic splitting as one network: the denoiser in every step, and learned step sizes.

The steps are those of `half_quadratic`. Of each step two numbers are learned beside the
denoiser that all of them share: a factor on the noise level that the denoiser is told, and one
on the weight of the prior in the data step. There are two such schedules, for a known
trajectory and for an estimated one. In training, patches are small enough for the blur to be
the same all over them, so that a data step is one Fourier transform there and back.
(Zhang, Van Gool and Timofte, *Deep unfolding network for image super-resolution*, CVPR 2020.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fft import irfft2, rfft2

from ..fourier import transfer_functions
from .denoiser import Denoiser
from .half_quadratic import SATURATED, Schedule

# Schedules that suit a denoiser trained alone. With a motion that is not quite right, every
# step adds to the ringing, so there are fewer.
KNOWN = Schedule(iterations=6, first_sigma=0.1, strength=0.3)
BLIND = Schedule(iterations=4, first_sigma=0.05, strength=0.3)
# Adam moves every number by about the learning rate, whatever its size: weights of the
# denoiser are small, logarithms of step sizes are not.
_PACE = 20.0


class UnrolledRestoration(nn.Module):
    """Patches with a kernel each to sharp patches.

    Parameters
    ----------
    known, blind : int
        Steps with a known and with an estimated trajectory.
    denoiser : Denoiser, optional
        A new one if not given.
    """

    def __init__(
        self,
        known: int = KNOWN.iterations,
        blind: int = BLIND.iterations,
        denoiser: Denoiser | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = Denoiser() if denoiser is None else denoiser
        # Logarithms, by their pace, of the factors on level and strength.
        self.known = nn.Parameter(torch.zeros(known, 2))
        self.blind = nn.Parameter(torch.zeros(blind, 2))

    def schedule(self, blind: bool) -> Schedule:
        """What was learned, for `half_quadratic.restore_steps`."""
        first = BLIND if blind else KNOWN
        levels, strengths = self._factors(blind).detach().cpu().T.tolist()
        return Schedule(
            len(levels),
            first.first_sigma,
            level_factors=tuple(levels),
            strengths=tuple(first.strength * s for s in strengths),
        )

    def forward(
        self, blurry: Tensor, kernels: Tensor, sigma: Tensor, *, blind: bool, margin: int
    ) -> Tensor:
        """Restore a batch.

        Parameters
        ----------
        blurry : Tensor
            Shape (B, 3, H, W), range [0, 1].
        kernels : Tensor
            Of sum 1, odd sides, shape (B, k, k).
        sigma : Tensor
            Standard deviation of the noise, shape (B,).
        blind : bool
            Whether the kernels are estimates.
        margin : int
            How far beyond the patch the scene is restored, px: no less than the kernels reach.

        Returns
        -------
        Tensor
            Shape (B, 3, H, W).
        """
        start = BLIND if blind else KNOWN
        factors = self._factors(blind)
        observed = F.pad(blurry, (margin,) * 4, mode="replicate")
        inside = F.pad(torch.ones_like(blurry[:1, :1]), (margin,) * 4)
        saturated = (observed >= SATURATED).any(1, keepdim=True) & (inside > 0)
        size = (observed.shape[-2], observed.shape[-1])
        transfer = transfer_functions(kernels, size)[:, None]
        power = transfer.abs().square()
        last = sigma[:, None, None, None]
        first = last.clamp_min(start.first_sigma)
        z = observed
        for k, (level_factor, strength_factor) in enumerate(factors):
            level = first * (last / first) ** (k / max(len(factors) - 1, 1))
            residual = (observed - irfft2(transfer * rfft2(z), s=size)) * inside
            residual = torch.where(saturated, residual.clamp_min(0), residual)
            ridge = start.strength * strength_factor * (last / level).square()
            spectrum = rfft2(residual) * transfer.conj() / (power + ridge)
            z = self.denoiser(z + irfft2(spectrum, s=size), level * level_factor)
        return z[..., margin:-margin, margin:-margin]

    def _factors(self, blind: bool) -> Tensor:
        return (_PACE * (self.blind if blind else self.known)).exp()
