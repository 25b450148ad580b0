r"""Training of the network that reads a camera's curve from blur kernels.

Nothing but motions is needed. Kernels are rendered at the regions of a picture and spoilt as
estimated ones are: tails are missing, mass is uneven along the path, all is smoothed, a spur,
a ghost and a halo are added, noise on top; contrast is too high, what is weak is cut off, and
regions without texture are left out. The loss is in `paths`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..estimate.kernel_network import (
    RASTER,
    REACH,
    KernelNetwork,
    rasterise,
)
from ..shake import GyroscopeLog
from .motions import (
    Motions,
    displacements,
    divided,
    grid_points,
    random_cameras,
    rays,
    with_extents,
)
from .paths import hypotheses_loss, path_distances, predicted_paths

MAX_EXTENT = 100.0
_DENSE = 96
_POSES = 32
_SINGLE = 0.7
_MOST_REGIONS = 4
_CUT = 0.05
_PICTURE = (3.0, 4.0)


@dataclass(frozen=True)
class KernelBatch:
    """What B pictures' kernels would be, and the truth.

    Attributes
    ----------
    kernels : Tensor
        Rasters, shape (B, N, S, S), each of sum 1.
    rays : Tensor
        Where they lie, shape (B, N, 2).
    scale : Tensor
        Pixels a cell, shape (B,).
    known : Tensor
        Which of them there are, bool, shape (B, N).
    paths : Tensor
        True displacements in px, zero on average, at points of the picture, (B, T, P, 2).
    points : Tensor
        Rays of those points, shape (B, P, 2).
    focal_length : Tensor
        Pixels, shape (B,).
    """

    kernels: Tensor
    rays: Tensor
    scale: Tensor
    known: Tensor
    paths: Tensor
    points: Tensor
    focal_length: Tensor


def synthesise(
    motions: Motions,
    count: int,
    generator: torch.Generator,
    *,
    regions: int,
    side: int = RASTER,
    true_size: bool = False,
) -> KernelBatch:
    """Render kernels of random motions and spoil them.

    Parameters
    ----------
    motions : Motions
    count : int
    generator : torch.Generator
    regions : int
        Regions a side of the picture; 1 for one kernel of a motion without roll.
    side : int
        Side of the rasters.
    true_size : bool
        Whether a cell is one pixel, however large the kernel.
    """
    device = motions.device
    uniform = _Uniform(generator, device)
    rotations = motions.sample(count, _DENSE, generator)
    focal, centre = random_cameras(count, (3, 4), generator, device)
    width = 300 * 5 ** uniform(count)  # pictures of 300 to 1500 px
    focal, centre = focal * width / 4, centre * width[:, None] / 4
    size = torch.tensor([4.0, 3.0], device=device) * width[:, None, None] / 4
    corners = grid_points((2, 2), device)[[0, 2, 4, 6, 8]]  # shares of the sides
    points = rays(corners * size, focal, centre)
    if regions == 1:
        rotations = rotations * torch.tensor([1.0, 1.0, 0.0], device=device)
        points = points[:, :1] * 0
        focal = torch.full_like(focal, 1e5)
        places = points
    else:
        share = (torch.arange(regions, device=device) + 0.5) / regions
        mesh = torch.stack(torch.meshgrid(share, share, indexing="xy"), -1).reshape(-1, 2)
        places = rays(mesh * size, focal, centre)
    extent = MAX_EXTENT * uniform(count) ** 2 + 0.5
    rotations = with_extents(rotations, points, focal, extent)
    paths = displacements(rotations, points, focal)
    moved = displacements(rotations, places, focal)
    paths = paths - paths.mean(1, keepdim=True)
    moved = (moved - moved.mean(1, keepdim=True)).transpose(1, 2)  # (B, N, T, 2)
    reach = moved.abs().flatten(1).amax(1) * (1 + 0.5 * uniform(count)) + 1
    scale = torch.ones_like(reach) if true_size else (reach / REACH).clamp_min(1)
    kernels = _spoilt(moved, reach, scale, side, uniform)
    known = uniform(count, places.shape[1]) < 1 - 0.6 * uniform(count, 1)
    known[:, 0] |= ~known.any(1)
    step = _DENSE // _POSES
    return KernelBatch(
        kernels * known[..., None, None],
        places,
        scale,
        known,
        paths[:, step // 2 :: step],
        points,
        focal,
    )


def spoilt_kernels(paths: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What an estimator would make of the kernels of paths.

    Parameters
    ----------
    paths : Tensor
        Displacements in px, zero on average, shape (B, T, 2).
    generator : torch.Generator

    Returns
    -------
    kernels : Tensor
        Rasters, shape (B, S, S), each of sum 1.
    scale : Tensor
        Pixels a cell, shape (B,).
    """
    uniform = _Uniform(generator, paths.device)
    reach = paths.abs().flatten(1).amax(1) * (1 + 0.5 * uniform(len(paths))) + 1
    scale = (reach / REACH).clamp_min(1)
    return _spoilt(paths[:, None], reach, scale, RASTER, uniform)[:, 0], scale


class _Uniform:
    """Uniform random numbers of a shape, from one generator."""

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self.generator, self.device = generator, device

    def __call__(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def sometimes(self, chance: float, *shape: int) -> Tensor:
        return (self(*shape) < chance).float()


def _spoilt(moved: Tensor, reach: Tensor, scale: Tensor, side: int, uniform: _Uniform) -> Tensor:
    """Kernels (B, N, S, S) of displacements (B, N, T, 2) in px with an estimator's faults."""
    count, regions, poses, _ = moved.shape
    total = count * regions
    each = scale.repeat_interleave(regions)
    far = (reach / scale).repeat_interleave(regions)  # cells
    points = moved.reshape(total, poses, 2)
    # Mass is uneven along the path, and tails are missing.
    time = torch.linspace(0, 1, poses, device=moved.device)
    waves = torch.sin(2 * math.pi * ((0.5 + 4 * uniform(total, 1)) * time + uniform(total, 1)))
    weights = (1 + 0.6 * uniform(total, 1) * waves).clamp_min(0)
    for tail in (time, 1 - time):
        length = 0.02 + 0.25 * uniform(total, 1)
        left = 1 - uniform.sometimes(0.3, total, 1) * uniform(total, 1)
        weights = weights * torch.where(tail < length, left, 1.0)
    weights = weights / weights.sum(1, keepdim=True)
    # Its middle is that of what is seen, give or take a pixel.
    points = points - (points * weights[..., None]).sum(1, keepdim=True)
    shaken = 0.7 * uniform.normal(total, 1, 2)
    kernels = rasterise(points + shaken, weights, each, side)
    kernels = _smoothed(kernels, (0.2 + 1.3 * uniform(total) ** 2) / each)
    # A spur from somewhere on the path, as another motion's would be, and smaller.
    root = points[torch.arange(total), (uniform(total) * poses).long()][:, None]
    size = (0.2 + 0.8 * uniform(total)) * points.abs().flatten(1).amax(1)
    spur = points.roll(regions, 0)
    spur = spur - spur[:, :1]
    spur = spur * (size / spur.abs().flatten(1).amax(1).clamp_min(1e-3))[:, None, None]
    amount = uniform.sometimes(0.4, total) * 0.3 * uniform(total)
    spur = rasterise(root + spur, weights, each, side)
    spur = _smoothed(spur, (0.2 + 1.3 * uniform(total)) / each)
    kernels = kernels + amount[:, None, None] * spur
    # A ghost beside it, and a halo around it.
    place = far[:, None] * (0.4 + 0.7 * uniform(total, 1)) * _direction(uniform(total, 1))
    ghost = rasterise(points + place[:, None] * each[:, None, None], weights, each, side)
    amount = (uniform.sometimes(0.15, total) * 0.35 * uniform(total))[:, None, None]
    kernels = kernels + amount * _smoothed(ghost, 0.5 + 2 * uniform(total))
    amount = (uniform.sometimes(0.5, total) * 0.8 * uniform(total) ** 2)[:, None, None]
    kernels = kernels + amount * _smoothed(kernels, 0.5 + far * (0.1 + 0.3 * uniform(total)))
    peak = kernels.flatten(1).amax(1).clamp_min(1e-9)[:, None, None]
    noise = uniform.normal(total, side, side)
    grains = _smoothed(noise, torch.full_like(each, 0.8))
    grains = grains / grains.flatten(1).std(1).clamp_min(1e-9)[:, None, None]
    grainy = uniform.sometimes(0.5, total)[:, None, None]
    noise = torch.where(grainy > 0, grains, noise) * _window(
        side, 2 + far * (0.8 + 0.5 * uniform(total))
    )
    level = (0.1 * uniform(total) ** 2)[:, None, None]
    kernels = kernels + level * peak * noise
    # What is strong is estimated stronger, what is weak is cut off.
    kernels = (kernels / peak).clamp_min(0) ** (0.8 + 0.8 * uniform(total))[:, None, None]
    peak = kernels.flatten(1).amax(1).clamp_min(1e-9)[:, None, None]
    kernels = torch.where(kernels < _CUT * peak, 0.0, kernels)
    kernels = kernels / kernels.sum((1, 2), keepdim=True).clamp_min(1e-9)
    return kernels.reshape(count, regions, side, side)


def _smoothed(kernels: Tensor, sigma: Tensor) -> Tensor:
    """Gaussians of their own width in cells, (B,), over rasters (B, S, S)."""
    position = torch.arange(kernels.shape[-1], device=kernels.device, dtype=kernels.dtype)
    distance = (position[:, None] - position).square()
    matrix = torch.exp(-0.5 * distance / sigma.clamp_min(0.05).square()[:, None, None])
    matrix = matrix / matrix.sum(2, keepdim=True)
    return matrix @ kernels @ matrix.transpose(1, 2)


def _window(side: int, reach: Tensor) -> Tensor:
    """1 in the square to which an estimator confines its kernel, `reach` cells to each side."""
    position = (torch.arange(side, device=reach.device) - (side - 1) / 2).abs()
    inside = (position < reach[:, None]).float()
    return inside[:, :, None] * inside[:, None, :]


def _direction(share: Tensor) -> Tensor:
    angle = 2 * math.pi * share
    return torch.cat([angle.cos(), angle.sin()], 1)


class KernelTask:
    """The network from kernels to curves, for `loop.train`.

    Parameters
    ----------
    recordings : sequence of GyroscopeLog
        The last fifth of each is kept for the scores. Simulated tremor is used besides.
    batch : int
        Pictures of one kernel in a step; those of many regions come in smaller batches.
    """

    name = "kernels"
    learning_rate = 1e-3
    autocast = False  # displacements want all digits
    scores: tuple[str, ...] = (
        "path error px",
        "of many regions px",
        "zero motion px",
        "expected error px",
    )

    def __init__(self, recordings: Sequence[GyroscopeLog] = (), *, batch: int = 192) -> None:
        self._used, self._held = divided(recordings)
        self._batch = batch
        self._device = torch.device("cpu")

    def network(self) -> nn.Module:
        """A new network."""
        return KernelNetwork()

    def begin(self, seed: tuple[int, int], device: torch.device) -> None:
        """Prepare the motions and the development set."""
        self._device = device
        self._motions = Motions(self._used, device=device)
        number = 1_000_003 * seed[0] + seed[1]
        self._generator = torch.Generator(device).manual_seed(number)
        held = Motions(self._held, tremor=not self._held, device=device)
        generator = torch.Generator(device).manual_seed(12345)
        self._development = [
            synthesise(held, count, generator, regions=regions)
            for regions, count in ((1, 512), (3, 64))
        ]

    def loss(self, network: nn.Module, share: float) -> Tensor:
        """Distance of the best hypothesis, a little of all, and of the expected error."""
        uniform = _Uniform(self._generator, self._device)
        regions, count = 1, self._batch
        if float(uniform(1)) > _SINGLE:
            regions = 2 + int(float(uniform(1)) * (_MOST_REGIONS - 1))
            count = max(8, 2 * self._batch // regions**2)
        with torch.no_grad():
            batch = synthesise(self._motions, count, self._generator, regions=regions)
        curves, expected = network(batch.kernels, batch.rays, batch.scale, batch.known)
        paths = self._paths(curves, batch)
        return hypotheses_loss(paths, expected, batch.paths, batch.scale, self._generator)

    @torch.no_grad()
    def score(self, network: nn.Module) -> list[float]:
        """Median sliced path errors of the most certain hypothesis, in px."""
        results = []
        for batch in self._development:
            curves, expected = network(batch.kernels, batch.rays, batch.scale, batch.known)
            best = expected.argmin(1)
            chosen = curves[torch.arange(len(best)), best][:, None]
            generator = torch.Generator(self._device).manual_seed(1)
            free, _ = path_distances(self._paths(chosen, batch), batch.paths, generator)
            zero, _ = path_distances(torch.zeros_like(batch.paths)[:, None], batch.paths, generator)
            px = expected.amin(1).exp() * batch.scale
            results.append([float(v.median()) for v in (free, zero, px)])
        (single, zero_motion, said), (many, _, _) = results
        return [single, many, zero_motion, said]

    def _paths(self, curves: Tensor, batch: KernelBatch) -> Tensor:
        pixels = curves * batch.scale[:, None, None, None]
        return predicted_paths(pixels, batch.points, batch.focal_length, _POSES)
