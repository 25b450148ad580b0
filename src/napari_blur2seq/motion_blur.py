r"""The projective motion blur model (PMBM) as a linear operator.

.. math:: v(x) = (A u)(x) = \frac1T \sum_{j=1}^T u(H_j^{-1} x),
          \qquad H_j = K R_j K^{-1}

(Carbajal, Almansa and Musé, *Blur2seq*, arXiv 2510.20539; Tai, Tan and Brown,
*Richardson-Lucy deblurring for scenes under a projective motion path*, PAMI 2011).
Samples are bilinear; outside the image they follow reflection about the border pixel.

The sampling positions of pose :math:`j` are two ratios of three forms that are affine
in :math:`x`, so they are made band by band while they are in the cache and not
stored (but for small pictures): 25 dense grids of a 12-megapixel picture would take 2.4 GB.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .camera import inverse_homographies, rotation_matrices
from .progress import Parts, finish
from .trajectory import Trajectory

# Pixels sampled at a time: large enough to hide the calls, small enough for the cache. Of small
# pictures, several poses are: threads that run beside each other wait for each other at each call.
_CHUNK_CPU = 1 << 18
_SMALL_CPU = 1 << 17
_CHUNK_GPU = 1 << 23
# Samples whose positions are kept from one blur to the next: they are half of the work.
_KEPT = 1 << 23
# Samples between two pauses of `MotionBlur.parts`: a fraction of a second on one core.
_PAUSE = 1 << 24


def _normalised(inverse: Tensor, height: int, width: int) -> Tensor:
    """Homographies from pixel coordinates to the [-1, 1] of `grid_sample`."""
    scale = inverse.new_tensor(
        [[2 / max(width - 1, 1), 0, -1], [0, 2 / max(height - 1, 1), -1], [0, 0, 1]]
    )
    return scale @ inverse


def _grid(rows: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Sampling positions (P, h, w, 2) of P homographies (P, 3, 3) at rows y and columns x."""
    forms = rows[:, :, 0, None, None] * x[None, None, None, :] + (
        rows[:, :, 1, None] * y[None, None, :] + rows[:, :, 2, None]
    ).unsqueeze(-1)
    grid = torch.empty(rows.shape[0], len(y), len(x), 2, dtype=rows.dtype, device=rows.device)
    reciprocal = forms[:, 2].reciprocal_()
    torch.mul(forms[:, 0], reciprocal, out=grid[..., 0])
    torch.mul(forms[:, 1], reciprocal, out=grid[..., 1])
    return grid


def _mirrored(grid: Tensor, y: Tensor, x: Tensor, height: int, width: int) -> Tensor:
    """Positions with their offset from the pixel negated: ``2 x - H_j^-1 x``."""
    mirrored = grid.neg()
    mirrored[..., 0] += x * (4 / max(width - 1, 1)) - 2
    mirrored[..., 1] += (y * (4 / max(height - 1, 1)) - 2)[:, None]
    return mirrored


def _bands(
    count: int, height: int, width: int, device: torch.device, chunk: int
) -> Iterator[tuple[slice, slice]]:
    """Split (pose, row) space into blocks of `chunk` pixels; all poses of a band come in turn.

    `grid_sample` on the CPU runs one thread per batch entry, so a block holds at least as many
    poses as there are threads.
    """
    most = 8
    if device.type == "cpu":
        most = max(torch.get_num_threads(), _SMALL_CPU // (height * width))
    poses = min(count, most)
    rows = max(1, min(height, chunk // (poses * width)))
    for top in range(0, height, rows):
        for first in range(0, count, poses):
            yield slice(first, min(first + poses, count)), slice(top, min(top + rows, height))


def _sample(image: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(
        image.expand(grid.shape[0], -1, -1, -1),
        grid,
        mode="bilinear",
        padding_mode="reflection",
        align_corners=True,
    )


class _ProjectiveBlur(torch.autograd.Function):
    """Mean of warps, with the gradient to the homographies kept at nine numbers a pose."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, rows: Tensor, negated: bool) -> Tensor:
        ctx.save_for_backward(image, rows)
        ctx.negated = negated
        return _forward(image, rows, negated)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,) = outputs
        image, rows = ctx.saved_tensors
        to_image, to_rows, _ = ctx.needs_input_grad
        return *_backward(gradient, image, rows, to_image, to_rows, ctx.negated), None


def _axes(like: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    y, x = (torch.arange(length, dtype=like.dtype, device=like.device) for length in shape)
    return y, x


# Poses, rows, and the positions (P, h, w, 2) that they are sampled at.
_Block = tuple[slice, slice, Tensor]


def _blocks(rows: Tensor, shape: tuple[int, int], negated: bool = False) -> Iterator[_Block]:
    height, width = shape
    y, x = _axes(rows, shape)
    chunk = _CHUNK_CPU if rows.device.type == "cpu" else _CHUNK_GPU
    for poses, band in _bands(rows.shape[0], height, width, rows.device, chunk):
        grid = _grid(rows[poses], y[band], x)
        if negated:
            grid = _mirrored(grid, y[band], x, height, width)
        yield poses, band, grid


def _forward(
    image: Tensor, rows: Tensor, negated: bool = False, weights: Tensor | None = None
) -> Tensor:
    shape = (image.shape[-2], image.shape[-1])
    return finish(_forward_parts(image, _blocks(rows, shape, negated), len(rows), weights))


def _forward_parts(
    image: Tensor, blocks: Iterable[_Block], count: int, weights: Tensor | None
) -> Parts[Tensor]:
    result = torch.zeros_like(image)
    samples, pause = 0, _PAUSE
    for poses, band, grid in blocks:
        for b in range(image.shape[0]):
            sampled = _sample(image[b : b + 1], grid)
            if weights is None:
                result[b, :, band] += sampled.sum(0)
            else:
                result[b, :, band] += torch.tensordot(weights[poses], sampled, 1)
        samples += grid[..., 0].numel()
        if samples >= pause:
            pause += _PAUSE
            yield samples / (count * image[0, 0].numel())
    return result if weights is not None else result.mul_(1.0 / count)


def _backward(
    gradient: Tensor,
    image: Tensor,
    rows: Tensor,
    to_image: bool,
    to_rows: bool,
    negated: bool = False,
    weights: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    height, width = image.shape[-2:]
    y, x = _axes(image, (height, width))
    if weights is None:
        weights = rows.new_full((rows.shape[0],), 1 / rows.shape[0])
    image_gradient = torch.zeros_like(image) if to_image else None
    rows_gradient = torch.zeros_like(rows) if to_rows else None
    # Each block's gradient is as large as the image, so the blocks are large too.
    for poses, band in _bands(rows.shape[0], height, width, image.device, _CHUNK_GPU):
        block = rows[poses]
        grid = _grid(block, y[band], x)
        sampled = _mirrored(grid, y[band], x, height, width) if negated else grid
        for b in range(image.shape[0]):
            source = image[b : b + 1].expand(grid.shape[0], -1, -1, -1)
            above = gradient[b, :, band] * weights[poses, None, None, None]
            by_image, by_grid = torch.ops.aten.grid_sampler_2d_backward(
                above, source, sampled, 0, 2, True, [to_image, to_rows]
            )
            if image_gradient is not None:
                image_gradient[b] += by_image.sum(0)
            if rows_gradient is not None:
                # g = (n_x, n_y) / d: chain rule to the three forms, then to their rows.
                depth = (
                    block[:, 2, 0, None, None] * x
                    + block[:, 2, 1, None, None] * y[band][:, None]
                    + block[:, 2, 2, None, None]
                )
                by_grid = (by_grid.neg() if negated else by_grid) / depth.unsqueeze(-1)
                by_forms = torch.stack(
                    [by_grid[..., 0], by_grid[..., 1], -(by_grid * grid).sum(-1)], dim=1
                )
                by_columns = by_forms.sum(2)
                rows_gradient[poses, :, 0] += by_columns @ x
                rows_gradient[poses, :, 1] += by_forms.sum(3) @ y[band]
                rows_gradient[poses, :, 2] += by_columns.sum(-1)
    return image_gradient, rows_gradient


def projective_blur(
    image: Tensor,
    rotations: Tensor,
    focal_length: Tensor | float,
    principal_point: tuple[float, float],
) -> Tensor:
    """Blur a batch of images with one trajectory: ``A u``.

    Differentiable in the image (its gradient is the exact adjoint), the rotations and
    the focal length.

    Parameters
    ----------
    image : Tensor
        Shape (B, C, H, W), float32 or float64.
    rotations : Tensor
        Shape (T, 3), radians.
    focal_length : Tensor or float
        Pixels.
    principal_point : tuple of float
        ``(cx, cy)`` in pixels.

    Returns
    -------
    Tensor
        Shape (B, C, H, W).
    """
    rotations = rotations.to(image.device)
    inverse = inverse_homographies(rotations, focal_length, principal_point)
    rows = _normalised(inverse, *image.shape[-2:]).to(image.dtype)
    result: Tensor = _ProjectiveBlur.apply(image, rows, False)  # type: ignore[no-untyped-call]
    return result


def sampling_homographies(
    rotations: Tensor, intrinsics: Tensor, image_shape: tuple[int, int]
) -> Tensor:
    """``H_j^-1`` of a batch of trajectories, from pixels to the coordinates of `grid_sample`.

    Parameters
    ----------
    rotations : Tensor
        Shape (B, T, 3), radians.
    intrinsics : Tensor
        ``K`` in pixels, shape (B, 3, 3).
    image_shape : tuple of int
        ``(height, width)``.

    Returns
    -------
    Tensor
        Shape (B, T, 3, 3), float64, on the CPU; differentiable.
    """
    # MPS has no float64: these few numbers are made on the CPU.
    matrix = intrinsics.cpu().double()[:, None]
    turned = rotation_matrices(rotations.cpu().double()).transpose(-1, -2)
    return _normalised(matrix @ turned @ torch.linalg.inv(matrix), *image_shape)


def batched_blur(image: Tensor, homographies: Tensor, *, negated: bool = False) -> Tensor:
    """Blur each image of a batch with its own trajectory.

    Differentiable in the image and the homographies.

    Parameters
    ----------
    image : Tensor
        Shape (B, C, H, W).
    homographies : Tensor
        Of `sampling_homographies`, shape (B, T, 3, 3).
    negated : bool
        Sample at ``2 x - H_j^-1 x`` instead of ``H_j^-1 x``: every offset negated. It is an
        approximation of the adjoint, exact where the offsets are the same everywhere.

    Returns
    -------
    Tensor
        Shape (B, C, H, W).
    """
    rows = homographies.to(image.dtype).to(image.device)  # MPS has no float64
    blurred = [
        _ProjectiveBlur.apply(image[b : b + 1], rows[b], negated)  # type: ignore[no-untyped-call]
        for b in range(image.shape[0])
    ]
    return torch.cat(blurred)


class MotionBlur:
    """The operator ``A`` of one trajectory: forward, adjoint, frames, local kernels.

    Parameters
    ----------
    trajectory : Trajectory
        Camera motion; its image shape is that of the images blurred.
    device : torch.device, optional
        Where the images lie.
    dtype : torch.dtype, optional
        float32 or float64.
    weights : Tensor, optional
        Shares of the exposure that the poses stand for, sum 1, shape (T,); equal by default.

    Examples
    --------
    >>> import torch
    >>> from napari_blur2seq import Trajectory
    >>> from napari_blur2seq.motion_blur import MotionBlur
    >>> operator = MotionBlur(Trajectory.zero((32, 48)))
    >>> image = torch.rand(1, 3, 32, 48)
    >>> bool(torch.allclose(operator(image), image, atol=1e-5))
    True
    """

    def __init__(
        self,
        trajectory: Trajectory,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        weights: Tensor | None = None,
    ) -> None:
        self.trajectory = trajectory
        self._weights = None if weights is None else weights.to(dtype).to(device)
        # MPS has no float64: the few numbers of the homographies are made on the CPU.
        inverse = inverse_homographies(
            torch.tensor(trajectory.rotations), trajectory.focal_length, trajectory.principal_point
        )
        self._rows = _normalised(inverse, *trajectory.image_shape).to(dtype).to(device)
        self._kept: list[_Block] = []

    def _check(self, image: Tensor) -> None:
        if image.ndim != 4 or tuple(image.shape[-2:]) != self.trajectory.image_shape:
            raise ValueError(
                f"Expected images of shape (B, C, {self.trajectory.image_shape[0]}, "
                f"{self.trajectory.image_shape[1]}), got {tuple(image.shape)}."
            )

    def __call__(self, image: Tensor) -> Tensor:
        """``A u``; image of shape (B, C, H, W)."""
        self._check(image)
        return _forward(image, self._rows, weights=self._weights)

    def parts(self, image: Tensor) -> Parts[Tensor]:
        """``A u`` with a pause every few hundred milliseconds, to stop or to report."""
        self._check(image)
        shape, count = self.trajectory.image_shape, len(self._rows)
        blocks: Iterable[_Block] = self._kept or _blocks(self._rows, shape)
        if not self._kept and count * shape[0] * shape[1] <= _KEPT:
            blocks = self._kept = list(blocks)
        return _forward_parts(image, blocks, count, self._weights)

    def adjoint(self, image: Tensor) -> Tensor:
        """``A^T v``, exact, reflection at the border included; shape (B, C, H, W)."""
        self._check(image)
        result, _ = _backward(image, image, self._rows, True, False, weights=self._weights)
        assert result is not None
        return result

    def frame(self, image: Tensor, j: int) -> Tensor:
        """The sharp image as pose `j` sees it: ``u(H_j^-1 x)``, shape (B, C, H, W)."""
        self._check(image)
        return _forward(image, self._rows[j : j + 1] if j >= 0 else self._rows[j:][:1])

    def frames(self, image: Tensor) -> Tensor:
        """All frames, shape (T, B, C, H, W); their mean, by weight, is the forward result."""
        return torch.stack([self.frame(image, j) for j in range(len(self.trajectory))])


def local_kernels(
    trajectory: Trajectory, points: ArrayLike, size: int | None = None
) -> NDArray[np.float32]:
    """Blur kernels at image points, as seen by a convolution around each point.

    The kernel at ``x`` has the mass ``1/T`` at each ``x - H_j^-1 x``, split bilinearly.

    Parameters
    ----------
    trajectory : Trajectory
    points : array_like
        ``(x, y)`` in pixels, shape (N, 2).
    size : int, optional
        Odd side of the kernels; by default just large enough for all of them.

    Returns
    -------
    ndarray
        Shape (N, size, size), float32, each summing to 1 (mass outside a given `size`
        is moved to its edge).
    """
    xy = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    homogeneous = np.concatenate([xy, np.ones((len(xy), 1))], axis=1)
    inverse = np.linalg.inv(trajectory.homographies)
    moved = np.einsum("tij,nj->tni", inverse, homogeneous)
    offsets = xy - moved[..., :2] / moved[..., 2:]
    if size is None:
        size = 2 * math.ceil(np.abs(offsets).max() + 1e-6) + 1
    half = size // 2
    offsets = np.clip(offsets, -half, half)
    low = np.minimum(np.floor(offsets).astype(int), half - 1) if half else offsets.astype(int)
    part = offsets - low
    kernels = np.zeros((len(xy), size, size))
    index = np.broadcast_to(np.arange(len(xy)), low.shape[:2])
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (part[..., 1] if dy else 1 - part[..., 1]) * (
                part[..., 0] if dx else 1 - part[..., 0]
            )
            row = np.minimum(low[..., 1] + dy + half, size - 1)
            column = np.minimum(low[..., 0] + dx + half, size - 1)
            np.add.at(kernels, (index, row, column), weight)
    return (kernels / len(trajectory)).astype(np.float32)
