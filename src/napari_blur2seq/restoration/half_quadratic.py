r"""Restoration with a known trajectory: half-quadratic splitting.

.. math:: \min_{u,z} \frac{1}{2\sigma^2}\|M(A u - v)\|^2 + \frac{\mu}{2}\|u - z\|^2 + \Phi(z)

alternates a denoiser, :math:`z = D(u, \sigma_k)`, with a data step. The residual
:math:`r = M(v - A z)` is that of the exact projective blur; the correction is the
Fourier solution with each tile's own local kernel :math:`k`,

.. math:: \hat u = \hat z + \frac{\bar{\hat k}\,\hat r}{|\hat k|^2 + \sigma^2/\sigma_k^2},

so that what the tiles get wrong the next residual puts right. The mask :math:`M`
leaves out saturated pixels and everything beyond the picture's border, which is
filled with what the current estimate predicts there: nothing is assumed about it, and
no frame of ringing forms. (Zhang et al., *Plug-and-play image restoration with deep
denoiser prior*, PAMI 2021, for the splitting; Hirsch et al., *Fast removal of
non-uniform camera shake*, ICCV 2011, for the tiles.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..camera import Camera
from ..fourier import fast_size, power_spectrum, transfer_functions
from ..motion_blur import MotionBlur, local_kernels
from ..progress import Parts, Progress, Steps, announced
from ..trajectory import Trajectory
from .tiles import OVERLAPPING, Tiling

if TYPE_CHECKING:
    from .photon_noise import PhotonNoise

# How far a trajectory is relied on: it is known, or an estimate that may be wrong.
Trust = Literal["known", "doubted"]

SATURATED = 0.985
# Of the absolute values of a normal distribution, in standard deviations.
NORMAL_MEDIAN = 0.6745
LEAST_SIGMA = 1.5 / 255
_PREVIEW_SIDE = 1024
# Of photon noise in the dark: more than none, for all that is not noise.
_LEAST_RELATIVE = 0.2
# Inner parts of tiles by the px that points are displaced, the margin around the largest ones
# likewise, and the least in px: of a long blur that is much the same everywhere, smaller tiles make
# blotches in skies.
_LEAST_INNER, _MOST_INNER, _MOST_MARGIN = 3, 8, 2.5
_LEAST_SIZE, _LEAST_MARGIN = 96, 12
# Of the data step, where a kernel has nothing to say: at frequencies that a motion with two stops
# takes away, a weaker one makes large waves of what the ends of tiles cut off.
_LEAST_RIDGE = 0.01
# Tiles, and px of them, that are corrected at a time.
_MOST_TILES, _TILE_PIXELS = 8, 1 << 20
# Axes that are reversed for the denoiser, in turn.
_FLIPS = ((), (-1,), (-2, -1), (-2,))


@dataclass(frozen=True)
class Schedule:
    """The steps of splitting that suit a prior.

    Attributes
    ----------
    iterations : int
        Half-quadratic steps.
    first_sigma : float
        Noise level of the first denoising; the last is that of the picture.
    strength : float
        Factor on the weight of the prior in the data step.
    noise_factor : float
        Factor on the noise: errors of the trajectory, fractions of a pixel, act like noise.
    level_factors : tuple of float, optional
        Of each step, on the noise level that the denoiser is told.
    strengths : tuple of float, optional
        Of each step, in place of `strength`.
    """

    iterations: int
    first_sigma: float
    strength: float = 1.0
    noise_factor: float = 1.0
    level_factors: tuple[float, ...] = ()
    strengths: tuple[float, ...] = ()

    def steps(self, sigma: float) -> list[tuple[float, float]]:
        """Level of the denoiser and ``ridge`` of the data step, step by step, for a noise."""
        levels = np.geomspace(max(self.first_sigma, sigma), sigma, self.iterations)
        factors = self.level_factors or (1.0,) * self.iterations
        strengths = self.strengths or (self.strength,) * self.iterations
        return [
            (float(level) * factor, strength * float(sigma / level) ** 2)
            for level, factor, strength in zip(levels, factors, strengths, strict=True)
        ]


class Blur(Protocol):
    """A linear blur; `motion_blur.MotionBlur` is the exact one."""

    def parts(self, image: Tensor) -> Parts[Tensor]:
        """``A u`` of (1, C, H, W), with pauses."""
        ...


Operator = Callable[[Trajectory, torch.device, torch.dtype], Blur]


class Prior(Protocol):
    """A denoiser, and its schedules for trajectories that are relied on more or less."""

    @property
    def schedules(self) -> Mapping[Trust, Schedule]:
        """The steps for each kind."""
        ...

    def __call__(
        self, image: Tensor, sigma: float | Tensor, trust: Trust = "known"
    ) -> Parts[Tensor]:
        """Denoise (1, C, H, W) of noise `sigma`, one number or (1, 1, H, W).

        If the trajectory is doubted, of what its errors leave behind, too.
        """
        ...


def estimate_noise(image: Tensor) -> float:
    """Standard deviation of white noise in (C, H, W), from its finest diagonal detail.

    The median absolute second difference in both directions: blur has removed the
    picture itself from there (Donoho and Johnstone 1994).
    """
    detail = fine_detail(image)
    inside = ((image > 0.02) & (image < SATURATED))[:, 1:-1, 1:-1]
    values = detail[inside] if inside.any() else detail.flatten()
    return float(values.abs().median() / NORMAL_MEDIAN)


def fine_detail(image: Tensor) -> Tensor:
    """Second differences in both directions of (C, H, W), one px narrower on every side.

    Of white noise, they have its standard deviation.
    """
    return image.diff(2, -1).diff(2, -2) / 6


def one_sided(residual: Tensor, saturated: Tensor) -> Tensor:
    """What is observed less what is predicted, where `saturated` only if that is too dark.

    Above the clipping level any value is right.
    """
    return torch.where(saturated, residual.clamp_min(0), residual)


def flipped(image: Tensor, step: int) -> Tensor:
    """A picture (..., H, W) as the denoiser sees it in a step; twice is the picture again.

    What a network does wrong depends a little on which way round it sees a scene: in another way
    in every step, its faults do not add up (Zhang et al., 2021, too).
    """
    return image.flip(_FLIPS[step % len(_FLIPS)])


def extend(image: Tensor, margin: int) -> Tensor:
    """Continue a picture (C, H, W) by replication, the start for what lies beyond its border."""
    return F.pad(image[None], (margin,) * 4, mode="replicate")[0]


def corners_of(image_shape: tuple[int, int]) -> list[tuple[int, int]]:
    """``(x, y)`` of the four outermost pixels."""
    height, width = image_shape
    return [(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)]


def reach_at_corners(trajectory: Trajectory) -> int:
    """Px that a corner is displaced at most: so far from the border, the scene is out of sight."""
    reach: float = np.abs(trajectory.paths(corners_of(trajectory.image_shape))).max()
    return math.ceil(reach)


def even_distance(trajectory: Trajectory) -> float:
    """Px between points of the picture whose paths differ by no more than one px."""
    height, width = trajectory.image_shape
    middle = ((width - 1) / 2, (height - 1) / 2)
    paths = trajectory.paths([*corners_of(trajectory.image_shape), middle])
    change: float = np.linalg.norm(paths[:, :4] - paths[:, 4:], axis=-1).max()
    # From the middle to a corner.
    return math.hypot(height, width) / 2 / max(change, 1e-9)


def extended_trajectory(trajectory: Trajectory, margin: int) -> Trajectory:
    """The same motion for the picture with `margin` px more on every side."""
    height, width = trajectory.image_shape
    cx, cy = trajectory.principal_point
    camera = Camera(
        trajectory.focal_length,
        (cx + margin, cy + margin),
        (height + 2 * margin, width + 2 * margin),
    )
    return Trajectory.from_camera(trajectory.rotations, camera, trajectory.times)


class LocalInverse:
    """Tiles and their local kernels' spectra: corrections from residuals."""

    def __init__(self, trajectory: Trajectory, device: torch.device | str) -> None:
        height, width = trajectory.image_shape
        reach = reach_at_corners(trajectory) + 1
        # The inverse of a kernel reaches far: tiles are as large as they may be with one kernel.
        even = OVERLAPPING * even_distance(trajectory) / reach
        inner = min(max(even, _LEAST_INNER), _MOST_INNER)
        around = min(_LEAST_INNER / 2 + (inner - _LEAST_INNER) / 3, _MOST_MARGIN)
        margin = round(around * reach)
        size = fast_size(max(_LEAST_SIZE, round(inner * reach) + 2 * margin))
        margin = max(_LEAST_MARGIN, margin)
        if size - 2 * margin > max(height, width):
            size = fast_size(max(height, width) + 2 * margin)
        self.tiling = Tiling((height, width), size, margin, device)
        kernels = torch.from_numpy(local_kernels(trajectory, self.tiling.centres)).to(device)
        self._kernels, self._batch = kernels, max(1, min(_MOST_TILES, _TILE_PIXELS // size**2))
        # Every step needs them again.
        self._spectra: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.tiling)

    def _spectra_of(self, index: slice) -> Tensor:
        if index.start not in self._spectra:
            side = self.tiling.size
            spectra = transfer_functions(self._kernels[index], (side, side))
            self._spectra[index.start] = spectra[:, None]
        return self._spectra[index.start]

    def __call__(self, residual: Tensor, ridge: float) -> Parts[Tensor]:
        """``conj(k) r / (|k|^2 + ridge)`` of a picture (C, H, W), tile by tile."""
        padded = self.tiling.pad(residual)
        result = torch.zeros_like(residual)
        for first in range(0, len(self.tiling), self._batch):
            index = slice(first, min(first + self._batch, len(self.tiling)))
            tiles = self.tiling.cut(padded, index) * self.tiling.taper
            spectra = self._spectra_of(index)
            inverse = (power_spectrum(spectra) + ridge).reciprocal_()
            corrected = torch.fft.rfft2(tiles).mul_(spectra.conj()).mul_(inverse)
            tiles = torch.fft.irfft2(corrected, s=(self.tiling.size, self.tiling.size))
            self.tiling.add(result, tiles, index)
            yield index.stop / len(self.tiling)
        return result


def restore_steps(
    image: Tensor,
    trajectory: Trajectory,
    prior: Prior,
    *,
    noise: float | PhotonNoise | None = None,
    trust: Trust = "known",
    preview: bool = False,
    bounds: tuple[float, float] = (0.0, 1.0),
    operator: Operator = MotionBlur,
    early: Operator | None = None,
) -> Steps[Tensor]:
    """Restore (C, H, W) in [0, 1] given the trajectory, with a pause every fraction of a second.

    Parameters
    ----------
    image : Tensor
        Blurry picture.
    trajectory : Trajectory
        Camera motion.
    prior : Prior
        Denoiser and its schedule.
    noise : float or PhotonNoise, optional
        Standard deviation of the noise; estimated when not given. Of photon noise, the denoiser is
        told how strong it is at each place; the data step takes its mean.
    trust : str
        How far the trajectory is relied on: it is ``"known"``, or ``"doubted"``, so that its errors
        are taken for noise.
    preview : bool
        Whether events carry the picture so far, reduced, shape (C, h, w).
    bounds : tuple of float
        Least and largest value of the result: points that were smeared may be brighter than white,
        where white is not the end of the camera's range.
    operator : callable
        Makes the blur of a trajectory.
    early : callable, optional
        The same for the first half of the steps: what it gets wrong, the others put right.

    Returns
    -------
    Tensor
        Shape (C, H, W).
    """
    relative: Tensor | None = None
    if noise is None:
        noise = estimate_noise(image)
    elif not isinstance(noise, float | int):
        noise, relative = _noise_map(image, noise)
    sigma = max(noise, LEAST_SIGMA)
    schedule = prior.schedules[trust]
    sigma *= schedule.noise_factor
    iterations = schedule.iterations
    margin = reach_at_corners(trajectory) + 4
    if relative is not None:
        relative = extend(relative, margin)[None]
    larger = extended_trajectory(trajectory, margin)
    blur = operator(larger, image.device, image.dtype)
    first = blur if early is None else early(larger, image.device, image.dtype)
    inverse = LocalInverse(larger, image.device)
    observed = extend(image, margin)
    mask = F.pad(torch.ones_like(image[:1]), (margin,) * 4)
    saturated = (observed >= SATURATED).any(0, keepdim=True) & (mask > 0)
    z = observed
    inner = slice(margin, -margin)
    yield Progress("restore", 0.0, "Restoring")
    for k, (level, ridge) in enumerate(schedule.steps(sigma)):
        part = 1 / iterations
        label = f"Restoring: data step {k + 1} of {iterations}"
        start = k * part
        blurring = (first if k < iterations // 2 else blur).parts(z[None])
        reblurred = yield from announced(blurring, "restore", start, start + 0.2 * part, label)
        residual = one_sided((observed - reblurred[0]) * mask, saturated)
        u = z + (
            yield from announced(
                inverse(residual, max(ridge, _LEAST_RIDGE)),
                "restore",
                start + 0.2 * part,
                start + 0.5 * part,
                label,
            )
        )
        label = f"Restoring: denoising {k + 1} of {iterations}"
        seen = level if relative is None else level * flipped(relative, k)
        cleaned = prior(flipped(u[None], k), seen, trust)
        z = yield from announced(cleaned, "restore", start + 0.5 * part, start + part, label)
        z = flipped(z[0], k)
        if preview:
            so_far = preview_of(z[:, inner, inner], bounds)
            yield Progress("restore", start + part, label, so_far)
    return z[:, inner, inner].clamp(*bounds)


def _noise_map(image: Tensor, noise: PhotonNoise) -> tuple[float, Tensor]:
    """Root mean square of the noise of a picture, and by what factor of it each place has."""
    around = F.pad(image.mean(0, keepdim=True)[None], (2,) * 4, mode="replicate")
    brightness = F.avg_pool2d(around, 5, 1)[0]
    level = noise.level(brightness)
    return level, (noise.sigma(brightness) / max(level, 1e-6)).clamp_min(_LEAST_RELATIVE)


def preview_of(image: Tensor, bounds: tuple[float, float] = (0.0, 1.0)) -> NDArray[np.float32]:
    """The picture (C, H, W) so far, at most `_PREVIEW_SIDE` px a side, by leaving out pixels."""
    step = math.ceil(max(image.shape[-2:]) / _PREVIEW_SIDE)
    return np.asarray(image[:, ::step, ::step].clamp(*bounds).cpu().numpy())
