r"""Half-quadratic splitting as one network: the denoiser in every step, and learned step sizes.

The steps are those of `half_quadratic`. Of each step two numbers are learned beside the
denoiser that all steps share: a factor on the noise level that the denoiser is told, and one
on the weight of the prior in the data step. In training, patches are small enough for the blur
to be the same all over them, so that a data step is one Fourier transform there and back.
(Zhang, Van Gool and Timofte, *Deep unfolding network for image super-resolution*, CVPR 2020.)

A trajectory that is known and one that is doubted have a denoiser and steps each: what the errors
of an estimate leave behind has to be taken away, and looks too much like what a true motion brings
back for one network to do both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fft import irfft2, rfft2

from ..fourier import power_spectrum, transfer_functions
from .denoiser import Denoiser
from .half_quadratic import SATURATED, Schedule, Trust, flipped, one_sided

# Schedules that suit a denoiser trained alone. With a motion that is not quite right, every
# step adds to the ringing, so there are fewer.
START: dict[Trust, Schedule] = {
    "known": Schedule(iterations=8, first_sigma=0.1, strength=0.3),
    "doubted": Schedule(iterations=4, first_sigma=0.05, strength=0.3),
}
# Adam moves every number by about the learning rate, whatever its size: weights of the
# denoiser are small, logarithms of step sizes are not.
_PACE = 20.0


class Splitting(nn.Module):
    """A denoiser and the steps in which it is used.

    Parameters
    ----------
    start : Schedule
        What the learned factors multiply.
    steps : int
        Number of steps.
    """

    def __init__(self, start: Schedule, steps: int) -> None:
        super().__init__()
        self._start = start
        self.denoiser = Denoiser()
        # Logarithms, by their pace, of the factors on level and strength.
        self.factors = nn.Parameter(torch.zeros(steps, 2))

    def schedule(self) -> Schedule:
        """What was learned, for `half_quadratic.restore_steps`."""
        levels, strengths = self._factors().detach().cpu().T.tolist()
        return Schedule(
            len(levels),
            self._start.first_sigma,
            level_factors=tuple(levels),
            strengths=tuple(self._start.strength * s for s in strengths),
        )

    def forward(self, blurry: Tensor, kernels: Tensor, sigma: Tensor, margin: int) -> Tensor:
        """Restore a batch; see `UnrolledRestoration.forward`."""
        factors = self._factors()
        observed = F.pad(blurry, (margin,) * 4, mode="replicate")
        inside = F.pad(torch.ones_like(blurry[:1, :1]), (margin,) * 4)
        saturated = (observed >= SATURATED).any(1, keepdim=True) & (inside > 0)
        size = (observed.shape[-2], observed.shape[-1])
        transfer = transfer_functions(kernels, size)[:, None]
        power = power_spectrum(transfer)
        last = sigma[:, None, None, None]
        first = last.clamp_min(self._start.first_sigma)
        z = observed
        for k, (level_factor, strength_factor) in enumerate(factors):
            level = first * (last / first) ** (k / max(len(factors) - 1, 1))
            residual = (observed - irfft2(transfer * rfft2(z), s=size)) * inside
            residual = one_sided(residual, saturated)
            ridge = self._start.strength * strength_factor * (last / level).square()
            spectrum = rfft2(residual) * transfer.conj() / (power + ridge)
            u = z + irfft2(spectrum, s=size)
            z = flipped(self.denoiser(flipped(u, k), level * level_factor), k)
        return z[..., margin:-margin, margin:-margin]

    def _factors(self) -> Tensor:
        return (_PACE * self.factors).exp()


class UnrolledRestoration(nn.Module):
    """Patches with a kernel each to sharp patches.

    Parameters
    ----------
    known, doubted : int
        Steps.
    """

    def __init__(
        self,
        known: int = START["known"].iterations,
        doubted: int = START["doubted"].iterations,
    ) -> None:
        super().__init__()
        self.known = Splitting(START["known"], known)
        self.doubted = Splitting(START["doubted"], doubted)

    def parts(self) -> dict[Trust, Splitting]:
        """What serves a trajectory of each kind."""
        return {"known": self.known, "doubted": self.doubted}

    def forward(
        self, blurry: Tensor, kernels: Tensor, sigma: Tensor, *, trust: Trust, margin: int
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
        trust : str
            How far the kernels are relied on.
        margin : int
            How far beyond the patch the scene is restored, px: no less than the kernels reach.

        Returns
        -------
        Tensor
            Shape (B, 3, H, W).
        """
        result: Tensor = self.parts()[trust](blurry, kernels, sigma, margin)
        return result
