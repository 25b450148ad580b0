r"""Pairs of sharp and shaken pictures, made in batches on any device.

What a camera does, in its order: the light of a sharp scene, some of it beyond the
camera's range, moves over the sensor (the projective blur), adds up, is clipped, becomes
noisy (shot and read noise), and goes through the camera's response to 8 bits and, often,
to a JPEG file:

.. math:: v = \mathrm{JPEG}\big(g(\min(1, A\,g^{-1}(u)) + n)\big)

Every pair has its own picture, motion, lens, response and noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import rotation_matrices
from .jpeg import jpeg
from .motions import Motions, grid_points, random_cameras, rays, with_extents
from .sharp import dead_leaves, random_crops

MAX_EXTENT = 60.0
# Scene beyond the border of the picture, px; what moves further is reflected.
_MARGIN = 48
# Pixels sampled at a time: what is read and written should stay in a core's own cache.
_CHUNK_CPU = 1 << 15
_LEAVES_POOL = 32
_LEAVES_SIDE = 512
# Crops, each turned or flipped, between two new pictures.
_CROPS_OF_LEAVES = 8
# Focal length of a blur that is the same everywhere, sides of the picture.
_LONG = 100.0
_AT_REST = 0.08
_GREY = 0.1
_FROM_LEAVES = 0.15


@dataclass(frozen=True)
class Pairs:
    """A batch of B pairs.

    Attributes
    ----------
    sharp, blurry : Tensor
        Shape (B, 3, H, W), range [0, 1], as a camera's file has them; grey pictures in
        three equal channels.
    rotations : Tensor
        Centred rotation vectors in rad, shape (B, T, 3).
    focal_length, principal_point : Tensor
        Pixels, shapes (B,) and (B, 2), the latter (x, y).
    noise : Tensor
        Standard deviation of the noise in light at mid-grey, shape (B,).
    compressed : Tensor
        Whether they went through JPEG, bool, shape (B,).
    """

    sharp: Tensor
    blurry: Tensor
    rotations: Tensor
    focal_length: Tensor
    principal_point: Tensor
    noise: Tensor
    compressed: Tensor


class Synthesis:
    """A source of pairs without end.

    Parameters
    ----------
    images : sequence of Tensor
        Sharp pictures, uint8, shape (3, H, W); dead leaves alone if there are none.
    motions : Motions
        Their device is that of the pairs.
    size : int
        Side of the pairs, px.
    poses : int
        Poses of each motion.
    seed : int
        The same seed gives the same pairs on the same device.
    most : float
        Largest extent, px.
    uniform : bool
        Whether the blur is the same all over each picture, as in a small part of a large one.
    linear : float
        Share of the pairs whose camera has no response: light adds up in the values as they are.
    overexposed, compressed : float
        Shares of the pairs that are brighter than the camera's range, and that went through JPEG.
    """

    def __init__(
        self,
        images: Sequence[Tensor],
        motions: Motions,
        *,
        size: int = 256,
        poses: int = 25,
        seed: int = 0,
        most: float = MAX_EXTENT,
        uniform: bool = False,
        linear: float = 0.25,
        overexposed: float = 0.3,
        compressed: float = 0.4,
    ) -> None:
        self._images, self._motions = list(images), motions
        self._size, self._poses, self._seed = size, poses, seed
        self._most, self._uniform_blur, self._linear = most, uniform, linear
        self._overexposed, self._compressed = overexposed, compressed
        self.device = motions.device
        self._choices = np.random.default_rng(seed)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._leaves: list[Tensor] = []
        self._crops_left = 0

    @torch.no_grad()
    def batch(self, count: int) -> Pairs:
        """`count` new pairs."""
        rotations, focal, centre = self._random_motions(count)
        scenes = self._scenes(count).to(self.device)
        grey = self._uniform(count) < _GREY
        inside = (..., slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN))
        gamma, light, response = self._exposures(count)
        offset = 256 * torch.arange(count, dtype=torch.int32, device=self.device)
        index = scenes.to(torch.int32)
        if grey.any():
            index[grey] = scenes[grey].float().mean(1, keepdim=True).to(torch.int32)
        index += offset[:, None, None, None]
        blurry = projective_blurs(
            _looked_up(light, index),
            rotations,
            focal,
            centre + _MARGIN,
            margin=_MARGIN,
        ).clamp_(max=1)
        noise = self._add_noise(blurry, grey)
        blurry = _encode(blurry.clamp_(0, 1), gamma)
        sharp = _looked_up(response, index[inside])
        compressed = self._write_file(blurry)
        return Pairs(sharp, blurry, rotations, focal, centre, noise, compressed)

    def reseeded(self, number: int) -> Synthesis:
        """Another source of the same kind, its pairs independent of this one's."""
        seed = int(np.random.SeedSequence((self._seed, number)).generate_state(1)[0])
        return Synthesis(
            self._images,
            self._motions,
            size=self._size,
            poses=self._poses,
            seed=seed,
            most=self._most,
            uniform=self._uniform_blur,
            linear=self._linear,
            overexposed=self._overexposed,
            compressed=self._compressed,
        )

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator, device=self.device)

    def _random_motions(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        shape = (self._size, self._size)
        focal, centre = random_cameras(count, shape, self._generator, self.device)
        rotations = self._motions.sample(count, self._poses, self._generator)
        if self._uniform_blur:  # so long a lens that rotations are shifts
            focal = torch.full_like(focal, _LONG * self._size)
            centre = torch.full_like(centre, self._size / 2)
            rotations = rotations * rotations.new_tensor([1.0, 1.0, 0.0])
        extent = self._most * self._uniform(count) ** 1.5
        extent[self._uniform(count) < _AT_REST] = 0
        directions = rays(grid_points(shape, self.device), focal, centre)
        return with_extents(rotations, directions, focal, extent), focal, centre

    def _scenes(self, count: int) -> Tensor:
        """Crops of photographs or dead leaves with a margin, uint8, (count, 3, S, S)."""
        leaves = (
            self._choices.random(count) < _FROM_LEAVES if self._images else np.full(count, True)
        )
        side = self._size + 2 * _MARGIN
        scenes = torch.empty(count, 3, side, side, dtype=torch.uint8)
        for chosen, source in ((leaves, self._leaves), (~leaves, self._images)):
            if chosen.any():
                if source is self._leaves:
                    self._renew_leaves(int(chosen.sum()))
                crops = random_crops(source, int(chosen.sum()), side, self._choices)
                scenes[torch.from_numpy(chosen)] = crops
        return scenes

    def _renew_leaves(self, crops: int) -> None:
        """Replace a picture of the pool once in a while: to draw one takes as long as pairs do."""
        self._crops_left -= crops
        if self._leaves and self._crops_left > 0:
            return
        self._crops_left = _CROPS_OF_LEAVES
        picture = dead_leaves(max(_LEAVES_SIDE, self._size + 2 * _MARGIN), self._choices)
        if len(self._leaves) == _LEAVES_POOL:
            self._leaves.pop(0)
        self._leaves.append(picture)

    def _exposures(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Response exponents (B,), and tables of the 256 levels: light and what is to be restored.

        A gain above one brings scenes beyond the camera's range; white stands for lights of
        any strength.
        """
        gamma = 1.6 + self._uniform(count)
        gamma[self._uniform(count) < self._linear] = 1
        levels = torch.linspace(0, 1, 256, device=self.device).expand(count, 256)
        light = _decode(levels, gamma)
        over = (self._uniform(count) < self._overexposed).float()[:, None]
        gain = 1 + 2 * over * self._uniform(count, 1)
        lights = 1 + 7 * over * self._uniform(count, 1) ** 2
        light = light * gain * torch.where(levels > 0.97, lights, 1.0)
        return gamma, light, _encode(light.clamp(max=1), gamma)

    def _add_noise(self, light: Tensor, grey: Tensor) -> Tensor:
        """Shot and read noise, in place; returns its standard deviation at mid-grey."""
        count = len(light)
        total = 0.001 * 40 ** self._uniform(count)
        shot = self._uniform(count)
        total[self._uniform(count) < 0.05] = 0
        # Variance: a light + b, with a share `shot` of it from the first term at 0.2.
        variance = light * (shot * total.square() / 0.2)[:, None, None, None]
        variance += ((1 - shot) * total.square())[:, None, None, None]
        noise = torch.randn(light.shape, generator=self._generator, device=self.device)
        if grey.any():
            noise[grey] = noise[grey][:, :1]
        light.add_(noise.mul_(variance.sqrt_()))
        return total

    def _write_file(self, images: Tensor) -> Tensor:
        """Round to 8 bits, some through JPEG, in place; returns which of them."""
        images.mul_(255).round_().div_(255)
        compressed = self._uniform(len(images)) < self._compressed
        if compressed.any():
            quality = (60 + 39 * self._uniform(int(compressed.sum()))).round()
            images[compressed] = jpeg(images[compressed], quality)
        return compressed


def prefetched(source: Synthesis, count: int, workers: int) -> Iterator[Pairs]:
    """Batches of `count` pairs without end, made ahead by threads.

    On the CPU, threads that each make pairs of their own share the cores far better than the
    threads within each operation: give torch one thread, and as many workers as cores.
    """
    sources = [source.reseeded(worker) for worker in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(s.batch, count) for s in sources]
        try:
            while True:
                for k, s in enumerate(sources):
                    pairs = waiting[k].result()
                    waiting[k] = pool.submit(s.batch, count)
                    yield pairs
        finally:
            for future in waiting:
                future.cancel()


def projective_blurs(
    images: Tensor,
    rotations: Tensor,
    focal_length: Tensor,
    principal_point: Tensor,
    *,
    margin: int = 0,
) -> Tensor:
    """Blur each picture of a batch with its own motion.

    The operator of `motion_blur.projective_blur`, for training, where there are many small
    pictures, each with a motion of its own.

    Parameters
    ----------
    images : Tensor
        Shape (B, C, H, W).
    rotations : Tensor
        Shape (B, T, 3), rad.
    focal_length, principal_point : Tensor
        Pixels, shapes (B,) and (B, 2).
    margin : int
        Border left out of the result.

    Returns
    -------
    Tensor
        Shape (B, C, H - 2 margin, W - 2 margin).
    """
    count, channels, height, width = images.shape
    rows = _sampling(rotations, focal_length, principal_point, height, width)
    x = torch.arange(margin, width - margin, device=images.device, dtype=images.dtype)
    y = torch.arange(margin, height - margin, device=images.device, dtype=images.dtype)
    result = images.new_zeros(count, channels, len(y), len(x))
    if images.device.type == "cpu":
        pairs, band = 1, max(1, _CHUNK_CPU // len(x))
    else:
        pairs, band = count, len(y)
    for first in range(0, count, pairs):
        part = slice(first, first + pairs)
        source, target = images[part], result[part]
        # What does not move is seen by all poses alike.
        moves = not torch.equal(rotations[part], rotations[part, :1].expand_as(rotations[part]))
        poses = rows.shape[1] if moves else 1
        for top in range(0, len(y), band):
            lines = y[top : top + band, None]
            forms = images.new_empty(len(source), 3, len(lines), len(x))
            # Planes of x and y are read as quickly as pairs, and made more quickly.
            grid = forms[:, :2].permute(0, 2, 3, 1)
            for j in range(poses):
                a = rows[part, j, :, :, None, None]
                torch.add(a[:, :, 0] * x, a[:, :, 1] * lines + a[:, :, 2], out=forms)
                forms[:, :2] *= forms[:, 2:].reciprocal_()
                target[:, :, top : top + band] += F.grid_sample(
                    source, grid, padding_mode="reflection", align_corners=True
                )
        target /= poses
    return result


def _sampling(
    rotations: Tensor, focal_length: Tensor, principal_point: Tensor, height: int, width: int
) -> Tensor:
    """From pixels to the [-1, 1] of `grid_sample`: ``N K R^T K^-1``, (B, T, 3, 3)."""
    zero, one = torch.zeros_like(focal_length), torch.ones_like(focal_length)
    cx, cy = principal_point.unbind(-1)
    f = focal_length
    matrix = torch.stack([f, zero, cx, zero, f, cy, zero, zero, one], -1).reshape(-1, 1, 3, 3)
    inverse = torch.stack(
        [1 / f, zero, -cx / f, zero, 1 / f, -cy / f, zero, zero, one], -1
    ).reshape(-1, 1, 3, 3)
    scale = f.new_tensor([[2 / (width - 1), 0, -1], [0, 2 / (height - 1), -1], [0, 0, 1]])
    return scale @ matrix @ rotation_matrices(rotations).transpose(-1, -2) @ inverse


def _looked_up(table: Tensor, index: Tensor) -> Tensor:
    # Several times quicker than table.flatten()[index].
    return table.flatten().index_select(0, index.flatten()).reshape(index.shape)


def _decode(values: Tensor, gamma: Tensor) -> Tensor:
    """Light from file values (B, ...): the shape of sRGB with its own exponent for each."""
    gamma, offset, toe, slope = _response(gamma, values.ndim)
    curve = ((values.clamp_min(toe) + offset) / (1 + offset)) ** gamma
    return torch.where(values < toe, values * slope, curve)


def _encode(light: Tensor, gamma: Tensor) -> Tensor:
    """File values from light (B, ...); the inverse of `_decode`."""
    linear = gamma == 1
    if linear.all():
        return light
    gamma, offset, toe, slope = _response(gamma, light.ndim)
    curve = light.clamp_min(toe * slope).pow_(1 / gamma).mul_(1 + offset).sub_(offset)
    return torch.where(light < toe * slope, light / slope, curve)


def _response(gamma: Tensor, dimensions: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Exponent, offset, end and slope of the straight part near black (IEC 61966-2-1)."""
    gamma = gamma.reshape(-1, *(1,) * (dimensions - 1))
    straight = gamma == 1
    offset = torch.where(straight, 0.0, 0.055)
    toe = torch.where(straight, 0.0, 0.055 / (gamma - 1).clamp_min(1e-6))
    slope = torch.where(
        straight, 1.0, ((toe + offset) / (1 + offset)) ** gamma / toe.clamp_min(1e-6)
    )
    return gamma, offset, toe, slope
