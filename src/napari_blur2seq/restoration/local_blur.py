r"""The blur of a trajectory, interpolated between local kernels.

.. math:: A u \approx \sum_i w_i \, (k_i * u)

with windows :math:`w_i` that sum to one, and the kernel :math:`k_i` of each one's middle
(Hirsch et al., *Efficient filter flow for space-variant multiframe blind deconvolution*, CVPR
2010). The exact blur samples the picture once for each pose; this takes a tenth of the time, and
is for trying many trajectories. The windows are so near each other that their paths differ by
about a pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..fourier import fast_size, transfer_functions
from ..motion_blur import local_kernels
from ..progress import Parts
from ..trajectory import Trajectory
from .half_quadratic import even_distance, reach_at_corners
from .tiles import OVERLAPPING, Tiling

_LEAST_INNER, _MOST_INNER = 24, 96
_BATCH = 16


class LocalBlur:
    """Takes the place of `motion_blur.MotionBlur` in `half_quadratic.restore_steps`.

    What lies outside the picture is black.

    Parameters
    ----------
    trajectory : Trajectory
    device : torch.device
    dtype : torch.dtype
    """

    def __init__(
        self, trajectory: Trajectory, device: torch.device | str, dtype: torch.dtype
    ) -> None:
        margin = reach_at_corners(trajectory) + 1
        inner = min(max(OVERLAPPING * even_distance(trajectory), _LEAST_INNER), _MOST_INNER)
        size = fast_size(round(inner) + 2 * margin)
        self._tiling = Tiling(trajectory.image_shape, size, margin, device)
        kernels = torch.from_numpy(local_kernels(trajectory, self._tiling.centres))
        self._kernels = kernels.to(device, dtype)

    def parts(self, image: Tensor) -> Parts[Tensor]:
        """``A u`` of (1, C, H, W), with pauses."""
        tiling = self._tiling
        padded, result = tiling.pad(image[0]), torch.zeros_like(image[0])
        for first in range(0, len(tiling), _BATCH):
            index = slice(first, min(first + _BATCH, len(tiling)))
            side = (tiling.size, tiling.size)
            transfer = transfer_functions(self._kernels[index], side)[:, None]
            spectra = torch.fft.rfft2(tiling.cut(padded, index)) * transfer
            tiling.add(result, torch.fft.irfft2(spectra, s=side), index)
            yield index.stop / len(tiling)
        return result[None]
