r"""One kernel for the whole picture of a camera that rolls as it turns.

During an exposure a hand's rotation hardly leaves a plane: its roll is nearly a linear function
of its pitch and yaw. Every point of the picture is then displaced as the principal point is,
but for a matrix,

.. math:: d_n(t) = M_n\, d(t), \qquad M_n = J_n \begin{pmatrix} P \\ a^T \end{pmatrix},

with :math:`J_n` the displacement of the point :math:`x_n` by a small pitch, yaw and roll,
:math:`P` the pitch and yaw that displace the principal point, and :math:`a` the roll, in px
(angle times focal length), for one px of displacement along x and y. All local kernels are one
kernel whose plane is stretched and sheared. For a given :math:`a`, all edges of the picture can
speak for it, as they do where the camera does not roll (`uniform`): with :math:`W_n` the
stretching and the sheared kernel's sums, :math:`S_n` and :math:`B_n` the gradients of the
latent and of the blurry picture around the part `n`,

.. math:: \min_k \sum_n \|W_n k * S_n - B_n\|^2 + w \|k\|^2.

Alternated with latent images, :math:`a` would drift to explain their faults. It is searched for
instead (`roll_search`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fft import irfft2, rfft2

from ..camera import Camera
from ..fourier import around_zero, differences, fast_size, transfer_functions
from ..progress import Parts
from .curve import responses
from .latent import periodic, sharp_edges
from .uniform import (
    EDGE_WEIGHT,
    Start,
    at_scale,
    cleaned,
    darkness,
    kernel_extent,
    last_rounds,
    padded,
    recentred,
    resampled,
    strong_gradients,
)
from .view import View

# Side of the parts of the picture that have one kernel each: px, and kernels.
_SIDE, _LEAST_KERNELS = 80, 3
_COARSE, _ROUNDS = 0.7071, 4
_CONJUGATE_GRADIENTS = 5
# Px on every side that a kernel may grow by in one round.
_ROOM = 3
# Kernels that are stretched by more are cut off.
_MOST_STRETCH = 1.8


def rolled_kernel(
    view: View, kernel: Tensor, slope: Tensor, start: Start, *, coarse: bool = True
) -> Parts[Tensor]:
    """Kernel at the principal point, for a given roll. Pauses twice in every round.

    Parameters
    ----------
    view : View
    kernel : Tensor
        A first one, such as `uniform_kernel` finds: odd sides.
    slope : Tensor
        :math:`a` above, shape (2,).
    start : Start
    coarse : bool
        Whether it is sought in the reduced picture before.

    Returns
    -------
    Tensor
        Odd sides, non-negative, sum 1.
    """
    mask = view.mask if start.lights else torch.ones_like(view.mask)
    levels = [(1.0, list(last_rounds(start, _ROUNDS)))]
    if coarse:
        levels.insert(0, (_COARSE, [(EDGE_WEIGHT, start)] * _ROUNDS))
        kernel = resized(kernel, _COARSE)
    for level, (scale, rounds) in enumerate(levels):
        if level:
            kernel = resized(kernel, 1 / _COARSE)
        picture = at_scale(view.grey, scale)
        valid = (at_scale(mask, scale) > 0.99).to(picture.dtype)
        camera = view.camera.scaled(scale, scale, (picture.shape[0], picture.shape[1]))
        # A picture says nothing about blur that is not small beside it.
        most = min(picture.shape) // 4 * 2 + 1
        for i, (weight, settings) in enumerate(rounds):
            side = kernel_extent(kernel) // 2 * 2 + 1 + 2 * _ROOM
            kernel = recentred(kernel, min(side, most))
            this = _Round(kernel, slope, picture, valid, camera)
            edges = this.edges(settings, weight)
            yield (level + (i + 0.5) / _ROUNDS) / len(levels)
            kernel = this.improved(edges, settings)
            yield (level + (i + 1) / _ROUNDS) / len(levels)
    return recentred(kernel, kernel.shape[0])


def with_roll(curve: Tensor, slope: Tensor) -> Tensor:
    """A curve (K, 3) of pitch and yaw, the roll added that goes with them."""
    # Yaw moves the picture along +x, pitch along -y.
    roll = slope[0] * curve[:, 1] - slope[1] * curve[:, 0]
    return torch.stack([curve[:, 0], curve[:, 1], roll], 1)


def slope_of(curve: Tensor) -> Tensor:
    """The slope (2,) whose roll, added by `with_roll`, is nearest to that of a curve (K, 3)."""
    moved = torch.stack([curve[:, 1], -curve[:, 0]], 1)
    # All of it may lie along one line: then the shortest.
    slope: Tensor = torch.linalg.pinv(moved, rtol=1e-3) @ curve[:, 2]
    return slope


def resized(kernel: Tensor, factor: float) -> Tensor:
    """Kernel of a picture whose sides are changed by a factor, sum 1."""
    changed = resampled(kernel, factor)
    return changed / changed.sum()


class _Parts:
    """A picture (H, W) of parts that touch, and tiles around them with room for a kernel."""

    def __init__(self, shape: tuple[int, int], kernel: int) -> None:
        side = max(_SIDE, _LEAST_KERNELS * kernel)
        self.sides = [math.ceil(n / max(1, round(n / side))) for n in shape]
        self.corners = [
            (y, x)
            for y in self._starts(shape[0], self.sides[0])
            for x in self._starts(shape[1], self.sides[1])
        ]
        # Tables of twice a stretched kernel's reach must find room.
        room = _LEAST_KERNELS * kernel
        self.tile = [fast_size(max(side, room) + 2 * kernel) for side in self.sides]
        self._before = [
            (tile - side) // 2 for tile, side in zip(self.tile, self.sides, strict=True)
        ]
        self._shape = shape
        owner = torch.zeros(shape)
        for i, corner in enumerate(self.corners):
            owner[self._inside(corner)] = i
        self.own = (self.cut(owner) == torch.arange(len(self.corners))[:, None, None]).float()

    @staticmethod
    def _starts(length: int, side: int) -> list[int]:
        return [min(first, length - side) for first in range(0, length, side)]

    def _inside(self, corner: tuple[int, int]) -> tuple[slice, slice]:
        y, x = corner
        return slice(y, y + self.sides[0]), slice(x, x + self.sides[1])

    def middles(self, ring: int) -> Tensor:
        """Points (N, 2), (x, y), in the picture without the ring around it."""
        height, width = self.sides
        points = [[x + width / 2 - ring, y + height / 2 - ring] for y, x in self.corners]
        return torch.tensor(points)

    def cut(self, image: Tensor) -> Tensor:
        """Tiles (N, ..., h, w) of a periodic picture (..., H, W)."""
        (tall, wide), (above, left) = self.tile, self._before
        bottom, right = (c + t for c, t in zip(self.corners[-1], self.tile, strict=True))
        height, width = self._shape
        pads = (left, max(0, right - left - width), above, max(0, bottom - above - height))
        wrapped = F.pad(image.reshape(1, -1, height, width), pads, mode="circular")[0]
        tiles = [wrapped[:, y : y + tall, x : x + wide] for y, x in self.corners]
        return torch.stack(tiles).reshape(-1, *image.shape[:-2], tall, wide)

    def joined(self, tiles: Tensor) -> Tensor:
        """The picture (..., H, W) of the parts in the middles of tiles (N, ..., h, w)."""
        whole = tiles.new_zeros(*tiles.shape[1:-2], *self._shape)
        middle = tuple(
            slice(before, before + side)
            for before, side in zip(self._before, self.sides, strict=True)
        )
        for tile, corner in zip(tiles, self.corners, strict=True):
            whole[(..., *self._inside(corner))] = tile[(..., *middle)]
        return whole


class _Sheared:
    """Kernels of N parts of the picture, as a linear function of one kernel."""

    def __init__(self, matrices: Tensor, side: int) -> None:
        stretch = float(torch.linalg.matrix_norm(matrices, ord=2).max())
        self.reach = math.ceil(side // 2 * min(stretch, _MOST_STRETCH)) + 1
        self._side, self._sides = side, 2 * self.reach + 1
        positions = torch.arange(side) - side // 2
        y, x = torch.meshgrid(positions, positions, indexing="ij")
        pixels = torch.stack([x, y], -1).reshape(-1, 2).float()
        # Each px is shared among the four around the place where it comes to lie.
        places = torch.einsum("nij,pj->npi", matrices, pixels) + self.reach
        places = places.clamp(0, 2 * self.reach - 1e-3)
        first = places.floor()
        (right, down), (column, row) = (places - first).unbind(-1), first.long().unbind(-1)
        base = torch.arange(len(matrices))[:, None] * self._sides**2 + row * self._sides + column
        self._index = torch.stack([base, base + 1, base + self._sides, base + self._sides + 1], -1)
        left, up = 1 - right, 1 - down
        self._weight = torch.stack([left * up, right * up, left * down, right * down], -1)

    def forward(self, kernel: Tensor) -> Tensor:
        """Kernels (N, 2 r + 1, 2 r + 1) from one (k, k)."""
        count = len(self._index)
        shares = kernel.reshape(1, -1, 1) * self._weight
        kernels = kernel.new_zeros(count * self._sides**2)
        kernels.index_add_(0, self._index.reshape(-1), shares.reshape(-1))
        return kernels.reshape(count, self._sides, self._sides)

    def adjoint(self, kernels: Tensor) -> Tensor:
        """One (k, k) from (N, 2 r + 1, 2 r + 1)."""
        found = kernels.reshape(-1)[self._index]
        return (found * self._weight).sum((0, 2)).reshape(self._side, self._side)


def _matrices(points: Tensor, slope: Tensor, camera: Camera) -> Tensor:
    """``M_n`` of points (N, 2); shape (N, 2, 2)."""
    principal = responses(points.new_tensor([camera.principal_point]), camera)[0]
    by_axis = responses(points, camera)
    turns = torch.linalg.inv(principal[:, :2])
    matrices: Tensor = by_axis[:, :, :2] @ turns + by_axis[:, :, 2:] * slope
    return matrices


class _Round:
    """One round, as in `uniform`, with a kernel for each part of the picture."""

    def __init__(
        self, kernel: Tensor, slope: Tensor, picture: Tensor, valid: Tensor, camera: Camera
    ) -> None:
        self._kernel, self._side = kernel, kernel.shape[0]
        ring = max(self._side, 8)
        height, width = picture.shape
        self._picture, self._valid = padded(picture, ring), padded(valid, ring, value=0.0)
        self._parts = _Parts((self._picture.shape[0], self._picture.shape[1]), self._side)
        middles = self._parts.middles(ring)
        middles = torch.minimum(middles.clamp_min(0), torch.tensor([width, height]))
        self._sheared = _Sheared(_matrices(middles, slope, camera), self._side)
        self._shape = (self._parts.tile[0], self._parts.tile[1])
        self._transfer = transfer_functions(self._sheared.forward(kernel), self._shape)

    def edges(self, start: Start, weight: float) -> Tensor:
        """Gradients of the latent picture."""
        blurry = periodic(self._parts.cut(self._picture), max(2, self._side // 4))
        latent = sharp_edges(blurry, self._transfer, weight, darkness(start, weight))
        gradients = self._parts.joined(torch.stack(differences(latent), 1))
        return strong_gradients(gradients, self._valid, start, self._side)

    def improved(self, edges: Tensor, start: Start) -> Tensor:
        """The kernel that the edges speak for."""
        parts, shape = self._parts, self._shape
        sharp = parts.cut(edges)
        seen = parts.cut(torch.stack(differences(self._picture)))
        spectrum = rfft2(sharp)
        predicted = irfft2(spectrum * self._transfer[:, None], s=shape)
        own = parts.own[:, None]
        target = torch.where(parts.cut(self._valid)[:, None] > 0, seen, predicted) * own
        reach = self._sheared.reach
        cross = _correlation(spectrum, target, reach)
        auto = _correlation(spectrum, sharp * own, 2 * reach)
        least = _least_squares(self._sheared, cross, auto, start.ridge, self._kernel)
        return cleaned(least, start.faint)


def _correlation(spectrum: Tensor, tiles: Tensor, reach: int) -> Tensor:
    """Tables (N, 2 r + 1, 2 r + 1) of displacements, zero in the middle."""
    shape = (tiles.shape[-2], tiles.shape[-1])
    table = irfft2((spectrum.conj() * rfft2(tiles)).sum(1), s=shape)
    return around_zero(table, reach)


def _least_squares(
    sheared: _Sheared, cross: Tensor, auto: Tensor, ridge: float, first: Tensor
) -> Tensor:
    """Some conjugate gradients from a first kernel."""
    sides, middle = cross.shape[-1], auto.shape[-1] // 2
    size = fast_size(auto.shape[-1])
    # Even, as the normal equations' matrix must be.
    response = transfer_functions((auto + auto.flip(-2, -1)) / 2, (size, size))
    weight = ridge * float(auto[:, middle, middle].sum())

    def normal(kernel: Tensor) -> Tensor:
        spectra = rfft2(sheared.forward(kernel), s=(size, size))
        blurred = irfft2(spectra * response, s=(size, size))[:, :sides, :sides]
        return sheared.adjoint(blurred.contiguous()) + weight * kernel

    kernel = first
    residual = sheared.adjoint(cross.contiguous()) - normal(kernel)
    direction, power = residual, float(residual.square().sum())
    for _ in range(_CONJUGATE_GRADIENTS):
        changed = normal(direction)
        curvature = float((direction * changed).sum())
        # Tables cut off at their reach may fall downhill for ever, or be all zero.
        if curvature <= 1e-12 * power:
            break
        length = power / curvature
        kernel = kernel + length * direction
        residual = residual - length * changed
        before, power = power, float(residual.square().sum())
        direction = residual + power / max(before, 1e-20) * direction
    return kernel
