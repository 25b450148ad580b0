"""Patches blurred by the kernels of known motions, the same all over each patch."""

from __future__ import annotations

from torch import Tensor
from torch.fft import irfft2, rfft2

from ..estimate.kernel_network import rasterise
from ..fourier import transfer_functions


def rendered(paths: Tensor, side: int) -> Tensor:
    """Kernels (B, side, side), sum 1, of displacements (B, T, 2) in px."""
    count, poses, _ = paths.shape
    weights = paths.new_full((count, poses), 1 / poses)
    kernels = rasterise(paths, weights, paths.new_ones(count), side)
    kernels /= kernels.sum((1, 2), keepdim=True)
    return kernels


def blurred(pictures: Tensor, kernels: Tensor) -> Tensor:
    """Periodic pictures (..., B, H, W), each with its kernel (B, k, k)."""
    sides = (pictures.shape[-2], pictures.shape[-1])
    result: Tensor = irfft2(rfft2(pictures) * transfer_functions(kernels, sides), s=sides)
    return result
