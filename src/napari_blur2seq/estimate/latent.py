r"""A latent image made of edges only, for estimating the blur by.

.. math:: \min_S \|k * S - B\|^2 + \lambda \|\nabla S\|_0

(Xu, Lu, Xu and Jia 2011; Xu, Zheng and Jia, *Unnatural L0 sparse representation for
natural image deblurring*, CVPR 2013). A plain deconvolution explains the blurry picture
with almost any kernel; an image that may only have few gradients does not.

Blur also fills in what is dark: the darkest pixel of a small patch is nearer to black in a
sharp picture. Pulling the dark ones there helps where edges alone mislead (Wen et al., *A
simple local minimal intensity prior and an improved algorithm for blind image deblurring*,
TCSVT 2021).
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fft import irfft2, rfft2

from ..fourier import differences_into, divergence_into, laplacian, power_spectrum

_KAPPA = 8.0
_LAST_BETA = 1e2
# What is smaller is no gradient.
_LEAST = 1e-6
# Side of the patches that have one darkest pixel, as a share of the picture's.
_PATCH = 0.025


def periodic(image: Tensor, ring: int) -> Tensor:
    """Blend the outer `ring` px of (..., H, W) with the opposite edge: no jump when repeated."""
    for axis in (-2, -1):
        length = image.shape[axis]
        ramp = torch.linspace(0, 1, 2 * ring + 2, device=image.device, dtype=image.dtype)[1:-1]
        ramp = 0.5 - 0.5 * torch.cos(math.pi * ramp)
        ramp = ramp[:, None] if axis == -2 else ramp
        last = image.narrow(axis, length - ring - 1, 1)
        first = image.narrow(axis, ring, 1)
        bridge = last + (first - last) * ramp
        inner = image.narrow(axis, ring, length - 2 * ring)
        before, after = bridge.narrow(axis, ring, ring), bridge.narrow(axis, 0, ring)
        image = torch.cat([before, inner, after], axis)
    return image


def sharp_edges(blurry: Tensor, transfer: Tensor, weight: float, dark: float = 0.0) -> Tensor:
    """Minimise the energy above by half-quadratic splitting.

    Parameters
    ----------
    blurry : Tensor
        Periodic pictures (N, H, W) in [0, 1].
    transfer : Tensor
        Transfer functions of their kernels, from `transfer_functions`.
    weight : float
        :math:`\\lambda`.
    dark : float
        Darkest pixels of patches that are below this are black.

    Returns
    -------
    Tensor
        Shape (N, H, W).
    """
    height, width = blurry.shape[-2:]
    frequencies = laplacian((height, width), blurry.device)
    data = transfer.conj() * rfft2(blurry)
    power = power_spectrum(transfer)
    latent = blurry
    # The same memory again and again: new memory costs as much as what is done in it.
    dx, dy, work = (torch.empty_like(blurry) for _ in range(3))
    beta = 2 * weight
    while beta < _LAST_BETA:
        differences_into((dx, dy), _blackened(latent, dark) if dark else latent)
        edge = torch.mul(dx, dx, out=work).addcmul_(dy, dy).ge_(weight / beta)
        dx.mul_(edge)
        dy.mul_(edge)
        edges = rfft2(divergence_into(work, dx, dy))
        # Complex numbers are multiplied in half the time of a division.
        inverse = (power + beta * frequencies).reciprocal_()
        latent = irfft2(edges.mul_(beta).add_(data).mul_(inverse), s=(height, width))
        beta *= _KAPPA
    return latent


def _blackened(image: Tensor, dark: float) -> Tensor:
    """With the darkest pixel of each patch of (N, H, W) set to 0 where it is below `dark`."""
    height, width = image.shape[-2:]
    side = max(3, int(_PATCH * (height + width) / 2))
    whole = F.pad(image, (0, -width % side, 0, -height % side), value=math.inf)
    patches = whole.unflatten(2, (-1, side)).unflatten(1, (-1, side))
    # Quicker than pooling.
    darkest = patches.amin(2, keepdim=True).amin(4, keepdim=True)
    black = patches == darkest.masked_fill_(darkest >= dark, -math.inf)
    result: Tensor = patches.masked_fill_(black, 0).flatten(3).flatten(1, 2)
    return result[:, :height, :width]


def strongest(magnitude: Tensor, count: int) -> Tensor:
    """Mask of the `count` largest positive values."""
    positive = magnitude >= _LEAST
    values = magnitude[positive].cpu().numpy()
    if len(values) <= max(1, count):
        return positive
    # Quicker than `torch.topk`, which sorts.
    weakest = len(values) - max(1, count)
    return magnitude >= float(np.partition(values, weakest)[weakest])
