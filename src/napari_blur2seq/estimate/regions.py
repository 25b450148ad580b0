"""What overlapping regions of the picture say about the trajectory."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fft import irfft2, rfft2

from ..fourier import around_zero, differences, fast_size, power_spectrum, transfer_functions
from ..motion_blur import local_kernels
from ..progress import Parts
from ..restoration.tiles import spread
from ..trajectory import Trajectory
from .curve import Evidence
from .latent import periodic, sharp_edges, strongest

_SIDE = 96
_MOST = 36
_BATCH = 9


def regions(shape: tuple[int, int], reach: int) -> tuple[int, list[tuple[int, int]]]:
    """Side and top left corners (y, x) of regions that overlap by a third or more.

    Where the picture is too large for `_MOST` of them to cover it, they are spread evenly.
    """
    side = min(max(_SIDE, 4 * reach), *shape)
    counts = [1 + math.ceil(1.5 * (length - side) / side) for length in shape]
    tops, lefts = spread(shape, (side, side), counts, _MOST)
    return side, [(y, x) for y in tops for x in lefts]


def gather(image: Tensor, mask: Tensor, trajectory: Trajectory, weight: float) -> Parts[Evidence]:
    """Edge-only latent image of each region, and its correlations with the blurry one.

    Pauses after every few regions.

    Parameters
    ----------
    image, mask : Tensor
        Grey picture in [0, 1] and where it can be trusted, shape (H, W).
    trajectory : Trajectory
        Current estimate, for the regions' kernels.
    weight : float
        Weight of the latent image's gradient count.
    """
    extent = trajectory.extent
    reach = int(0.8 * extent + 6)
    side, corners = regions((image.shape[0], image.shape[1]), reach)
    points = torch.tensor([[x + side / 2, y + side / 2] for y, x in corners])
    kernels = torch.from_numpy(local_kernels(trajectory, points.numpy()))
    ring = max(8, reach)
    size = fast_size(side + 4 * ring)
    before = (size - side) // 2
    after = size - side - before
    padded = F.pad(image[None, None], (before, after, before, after), mode="replicate")[0, 0]
    trusted = F.pad(mask, (before, after, before, after))
    pictures = torch.stack([padded[y : y + size, x : x + size] for y, x in corners])
    valid = torch.stack([trusted[y : y + size, x : x + size] for y, x in corners])
    inside = slice(before, before + side)
    blurry = torch.stack(differences(pictures), 1) * valid[:, None]
    parts = []
    for first in range(0, len(pictures), _BATCH):
        part = slice(first, first + _BATCH)
        transfer = transfer_functions(kernels[part], (size, size))
        parts.append(sharp_edges(periodic(pictures[part], ring // 2), transfer, weight))
        yield first / len(pictures)
    latent = torch.cat(parts)
    sharp = torch.stack(differences(latent), 1) * valid[:, None]
    core = torch.zeros_like(sharp)  # only edges whose blur lies within the tile
    core[..., inside, inside] = sharp[..., inside, inside]
    magnitude = core.square().sum(1).sqrt()
    overlap = len(corners) * side * side / (image.shape[0] * image.shape[1])
    count = int(4 * (extent + 5) * max(image.shape) * max(1.0, overlap))
    core = core * strongest(magnitude, count)[:, None]
    fs, fb = rfft2(core), rfft2(blurry)
    cross = irfft2((fs.conj() * fb).sum(1), s=(size, size))
    auto = irfft2(power_spectrum(fs).sum(1), s=(size, size))
    cross, auto = around_zero(cross, reach), around_zero(auto, 2 * reach)
    scale = float(auto[:, 2 * reach, 2 * reach].sum().clamp_min(1e-9)) / 30
    return Evidence(cross, auto, points, scale)
