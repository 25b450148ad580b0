"""One blur kernel for the whole picture, coarse to fine; its size is found on the way.

Alternates an edge-only latent image (`latent`) with a least-squares kernel from its
strongest gradients,

.. math:: \\hat k = \\frac{\\sum_i \\overline{\\hat S_i} \\hat B_i}
                         {\\sum_i |\\hat S_i|^2 + w\\,\\overline{\\sum_i |\\hat S_i|^2}},

over a pyramid with steps of sqrt(2) (Cho and Lee 2009; Xu and Jia 2010). The ridge `w` is
relative to the mean power of the gradients. It is safe on the way and too smooth at the end:
the last rounds lower it, and trust the very strongest edges only.

A long kernel is thin: what little of the light falls on each of its pixels drowns at full
resolution in what the latent image gets wrong, and the parts that the camera crossed quickly are
lost first. Reduced, the picture shows all of it. Its curve, drawn at full resolution, is then
improved there (`improved_kernel`), by more edges and down to the noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor
from torch.fft import irfft2, rfft2

from ..fourier import around_zero, differences, fast_size, power_spectrum, transfer_functions
from .latent import periodic, sharp_edges, strongest

# Largest side of the kernel, px.
MAX_SIZE = 151
EDGE_WEIGHT, _LEAST_EDGE_WEIGHT = 2e-3, 1e-4
_ROUNDS = 8
# At full resolution, where they cost most and the last rounds follow.
_FINEST_ROUNDS = 3
# What of a kernel is kept: a share of its peak, or, if it is faint, a multiple of what is negative
# in it, which is noise; and the least share of the whole in a part that lies apart.
_KEPT, _LEAST_PART = 0.05, 0.1
_KEPT_FAINT, _LEAST_KEPT, _LEAST_FAINT_PART = 1.5, 5e-3, 0.02
# Of a kernel that is nearly right: rounds, and the weight of the latent image.
_MORE_ROUNDS, _MORE_EDGE_WEIGHT = 6, 3e-4
# The same of a short one: rounds like the last ones.
_MORE_LAST_ROUNDS = 4
# At the end: rounds, ridge, edges, and the first and last weight of the latent image.
_LAST_ROUNDS = 6
_LAST_RIDGE, _LAST_EDGES = 0.05, 1.0
_LAST_EDGE_WEIGHTS = (3e-3, 1e-3)
_COARSEST_SIDE = 24
_LEAST_RIDGE = 1e-20


@dataclass(frozen=True)
class Start:
    """Settings of which none is best for all pictures.

    Attributes
    ----------
    ridge : float
        Relative ridge: 0.5 is safe, 0.1 sharper where it works.
    edges : float
        How many of the strongest gradients count: this many lines across the picture for
        each px of the kernel's side. Few are less disturbed by noise, many by chance.
    dark : float
        Darkest pixels of the latent image's patches that are below this are taken for black.
    lights : bool
        Whether saturated pixels are taken for lights far above the range, whose gradients mean
        nothing, or for white surfaces.
    faint : bool
        Whether what is kept of a kernel is all that its noise is weaker than, as suits a long one,
        which is faint; or what is not weak beside its strongest part.
    """

    ridge: float
    edges: float
    dark: float = 0.0
    lights: bool = True
    faint: bool = False


def uniform_kernel(
    image: Tensor, mask: Tensor, start: Start, largest: int = MAX_SIZE
) -> Iterator[tuple[float, Tensor]]:
    """Estimate the kernel of a grey picture.

    Parameters
    ----------
    image : Tensor
        Shape (H, W), range [0, 1].
    mask : Tensor
        Shape (H, W): 1 where the gradients can be trusted, 0 near saturated pixels.
    start : Start
    largest : int
        Side of the largest kernel, px.

    Yields
    ------
    fraction : float
        Share of the work done.
    kernel : Tensor
        Current kernel, odd sides, non-negative, sum 1; full resolution at the end.
    """
    # A picture says nothing about blur that is not small beside it.
    max_size = max(5, min(largest, min(image.shape) // 2)) // 2 * 2 + 1
    levels = max(1, math.ceil(2 * math.log2(max_size / 5)) + 1)
    levels = min(levels, 1 + int(2 * math.log2(max(1.0, min(image.shape) / _COARSEST_SIDE))))
    total = sum(2.0**-s for s in range(1, levels)) * _ROUNDS + _FINEST_ROUNDS + _LAST_ROUNDS
    done = 0.0
    kernel = image.new_zeros(5, 5)
    kernel[2, 1:3] = 0.5  # a delta would be a fixed point
    for level in range(levels - 1, -1, -1):
        scale = 2.0 ** (-level / 2)
        limit = max(5, int(max_size * scale) // 2 * 2 + 1)
        if level < levels - 1:
            kernel = _enlarge(kernel, limit)
        small, valid = at_scale(image, scale), at_scale(mask, scale)
        picture, valid, seen = _with_room(small, valid, kernel)
        weight = EDGE_WEIGHT
        for _ in range(_ROUNDS if level else _FINEST_ROUNDS):
            kernel = _improved(kernel, picture, valid, seen, start, weight)
            weight = max(weight / 1.1, _LEAST_EDGE_WEIGHT)
            side = kernel.shape[0]
            if kernel_extent(kernel) >= side - 1 and side + 4 <= limit:
                kernel = recentred(kernel, side + 4)
            done += 2.0**-level / total
            yield min(done, 1.0), kernel
        kernel = recentred(kernel, kernel.shape[0])
    for weight, lower in last_rounds(start, _LAST_ROUNDS):
        kernel = _improved(kernel, picture, valid, seen, lower, weight)
        done += 1 / total
        yield min(done, 1.0), kernel
    yield 1.0, recentred(kernel, kernel.shape[0])


def improved_kernel(
    image: Tensor, mask: Tensor, kernel: Tensor, start: Start
) -> Iterator[tuple[float, Tensor]]:
    """Improve a kernel that is nearly right, at the resolution of the picture.

    Parameters
    ----------
    image, mask, start
        As for `uniform_kernel`.
    kernel : Tensor
        Odd sides, sum 1, with some room around what is not zero.

    Yields
    ------
    fraction : float
        Share of the work done.
    kernel : Tensor
        The current one.
    """
    picture, valid, seen = _with_room(image, mask, kernel)
    if start.faint:
        weights = [_MORE_EDGE_WEIGHT / 1.1**i for i in range(_MORE_ROUNDS)]
        rounds = [(weight, start) for weight in weights]
    else:
        rounds = list(last_rounds(start, _MORE_LAST_ROUNDS))
    for done, (weight, settings) in enumerate(rounds):
        kernel = _improved(kernel, picture, valid, seen, settings, weight)
        yield (done + 1) / len(rounds), recentred(kernel, kernel.shape[0])


def last_rounds(start: Start, count: int) -> Iterator[tuple[float, Start]]:
    """Weights of the latent image and settings of the rounds at the end."""
    for share in np.linspace(0, 1, count):
        ridge = _between((start.ridge, _LAST_RIDGE), share)
        yield _between(_LAST_EDGE_WEIGHTS, share), replace(start, ridge=ridge, edges=_LAST_EDGES)


def _between(ends: tuple[float, float], share: float) -> float:
    """From one end to the other by equal factors."""
    return float(ends[0] ** (1 - share) * ends[1] ** share)


def at_scale(image: Tensor, scale: float) -> Tensor:
    """Picture (H, W), its sides by a factor."""
    if scale == 1:
        return image
    return F.interpolate(image[None, None], scale_factor=scale, mode="bicubic", antialias=True)[
        0, 0
    ]


def padded(image: Tensor, ring: int, value: float | None = None) -> Tensor:
    """Continue to a size whose transform is quick, at least `ring` px on every side."""
    height, width = image.shape
    bottom = fast_size(height + 2 * ring) - height - ring
    right = fast_size(width + 2 * ring) - width - ring
    pads = (ring, right, ring, bottom)
    if value is not None:
        return F.pad(image, pads, value=value)
    return periodic(F.pad(image[None], pads, mode="replicate")[0], ring)


def _with_room(image: Tensor, mask: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Picture with room for a kernel, where it is valid, and its gradients: see `_improved`."""
    ring = max(kernel.shape[0], 8)
    picture = padded(image, ring)
    valid = padded((mask > 0.99).to(image.dtype), ring, value=0.0)
    return picture, valid, torch.stack(differences(picture))


def _improved(
    kernel: Tensor, picture: Tensor, valid: Tensor, seen: Tensor, start: Start, weight: float
) -> Tensor:
    """One round: a latent image by the kernel, and the next kernel by least squares.

    The picture's gradients are those `seen` where `valid`. Elsewhere they are what the last
    kernel makes of the latent image: taken for zero, they would
    contradict the edges whose blur reaches there (missing data, as in expectation maximisation).
    """
    size, shape = kernel.shape[0], (picture.shape[0], picture.shape[1])
    transfer = transfer_functions(kernel[None], shape)
    latent = sharp_edges(picture[None], transfer, weight, darkness(start, weight))[0]
    gradients = strong_gradients(torch.stack(differences(latent)), valid, start, size)
    spectrum = rfft2(gradients)
    predicted = irfft2(spectrum * transfer, s=shape)
    fx, fy = spectrum
    spectra = rfft2(torch.where(valid > 0, seen, predicted))
    power = power_spectrum(spectrum).sum(0)
    cross = fx.conj() * spectra[0] + fy.conj() * spectra[1]
    # A latent image without any edge leaves no kernel, but a point.
    ridge = (start.ridge * power.mean()).clamp_min(_LEAST_RIDGE)
    raw = irfft2(cross / (power + ridge), s=shape)
    return cleaned(around_zero(raw, size // 2), start.faint)


def darkness(start: Start, weight: float) -> float:
    """Threshold for black, which falls as the edges' does."""
    return start.dark * weight / EDGE_WEIGHT


def strong_gradients(gradients: Tensor, valid: Tensor, start: Start, size: int) -> Tensor:
    """Gradients (2, H, W) that a kernel of so many px is sought by; the others are zero.

    Those that are not `valid` count if they are no weaker.
    """
    length = gradients.square().sum(0).sqrt()
    strong = strongest(length * valid, int(start.edges * size * max(valid.shape)))
    weakest = length.masked_fill(~strong, math.inf).min()
    return gradients * (strong | ((valid == 0) & (length >= weakest)))


def cleaned(kernel: Tensor, faint: bool = False) -> Tensor:
    """Drop what is negative, weak, or apart and small; for `faint`, see `Start`."""
    noise = kernel.clamp_max(0).square().sum() / (kernel < 0).sum().clamp_min(1)
    kernel = kernel.clamp_min(0)
    if kernel.max() <= 0:
        kernel = torch.zeros_like(kernel)
        kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = 1
        return kernel
    if faint:
        weakest = torch.maximum(_KEPT_FAINT * noise.sqrt(), _LEAST_KEPT * kernel.max())
        weakest = weakest.clamp_max(kernel.max())
    else:
        weakest = _KEPT * kernel.max()
    kernel = torch.where(kernel < weakest, 0.0, kernel)
    labels, count = ndimage.label((kernel > 0).cpu().numpy(), structure=np.ones((3, 3)))
    if count > 1:
        sums = ndimage.sum_labels(kernel.cpu().numpy(), labels, range(1, count + 1))
        # Where all are small, the largest is left.
        share = _LEAST_FAINT_PART if faint else _LEAST_PART
        least = min(share * float(kernel.sum()), sums.max())
        small = [i + 1 for i, s in enumerate(sums) if s < least]
        kernel = torch.where(
            torch.from_numpy(np.isin(labels, small)).to(kernel.device), 0.0, kernel
        )
    return kernel / kernel.sum()


def kernel_extent(kernel: Tensor) -> int:
    """Longer side of the box around what is not negligible."""
    rows, columns = (kernel > 0.02 * kernel.max()).nonzero(as_tuple=True)
    return int(max(rows.max() - rows.min(), columns.max() - columns.min())) + 1


def recentred(kernel: Tensor, size: int) -> Tensor:
    """Centre of mass to the middle (whole px), cut or padded to `size`."""
    position = torch.arange(kernel.shape[0], device=kernel.device) - kernel.shape[0] // 2
    y = round(float((kernel.sum(1) * position).sum() / kernel.sum()))
    x = round(float((kernel.sum(0) * position).sum() / kernel.sum()))
    large = torch.roll(F.pad(kernel, (size,) * 4), (-y, -x), (0, 1))
    middle, half = large.shape[0] // 2, size // 2
    cut = large[middle - half : middle + half + 1, middle - half : middle + half + 1]
    return cut / cut.sum()


def resampled(kernel: Tensor, factor: float) -> Tensor:
    """Kernel of a picture whose sides are changed by a factor; its sum changes, too."""
    side = max(3, round(kernel.shape[0] * factor) // 2 * 2 + 1)
    changed = F.interpolate(
        kernel[None, None], size=(side, side), mode="bicubic", antialias=factor < 1
    )[0, 0]
    return torch.where(changed < 0.03 * changed.max(), 0.0, changed)


def _enlarge(kernel: Tensor, limit: int) -> Tensor:
    """To the next finer level, with a window somewhat larger than the kernel."""
    large = resampled(kernel, math.sqrt(2))
    window = max(7, int(1.5 * kernel_extent(large) + 2) // 2 * 2 + 1)
    return recentred(large, min(limit, window))
