"""Overlapping square tiles of a picture: cut, filter each in its own way, blend."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..progress import Parts


def spread(
    shape: Sequence[int], sides: Sequence[int], counts: Sequence[int], most: int
) -> list[list[int]]:
    """Starts, along each axis, of parts that are spread evenly over a picture, at most `most`."""
    counts = list(counts)
    while counts[0] * counts[1] > most:
        counts[counts.index(max(counts))] -= 1
    return [
        [(length - side) // 2]
        if count == 1
        else [round(i * (length - side) / (count - 1)) for i in range(count)]
        for length, side, count in zip(shape, sides, counts, strict=True)
    ]


def filtered(
    image: Tensor,
    sigma: float | Tensor,
    side: int,
    margin: int,
    function: Callable[[Tensor, float | Tensor], Tensor],
) -> Parts[Tensor]:
    """Filter (1, C, H, W) in blocks of at most `side` px, each with `margin` px more to throw away.

    The function is given a block and its `sigma`: one number, or that part of (1, 1, H, W).
    Memory does not grow with the picture, and there is a pause after every block.
    """
    height, width = image.shape[-2:]
    result = torch.empty_like(image)
    # Even blocks, so that none is mostly margin.
    rows, columns = (math.ceil(length / math.ceil(length / side)) for length in (height, width))
    corners = [(y, x) for y in range(0, height, rows) for x in range(0, width, columns)]
    for i, (top, left) in enumerate(corners):
        y0, x0 = max(0, top - margin), max(0, left - margin)
        y1, x1 = min(height, top + rows + margin), min(width, left + columns + margin)
        level = sigma[..., y0:y1, x0:x1] if isinstance(sigma, Tensor) else sigma
        block = function(image[..., y0:y1, x0:x1], level)
        h, w = min(rows, height - top), min(columns, width - left)
        result[..., top : top + h, left : left + w] = block[
            ..., top - y0 : top - y0 + h, left - x0 : left - x0 + w
        ]
        yield (i + 1) / len(corners)
    return result


# Sides of inner parts by their distance.
OVERLAPPING = 1.4


class Tiling:
    """Tiles of side `size` whose inner parts, `margin` px from their edge, cover the picture.

    Parameters
    ----------
    shape : tuple of int
        ``(height, width)`` of the picture.
    size : int
        Side of a tile.
    margin : int
        Outer part of each tile that is cut but not used in the result.
    device : torch.device
    """

    def __init__(
        self, shape: tuple[int, int], size: int, margin: int, device: torch.device | str = "cpu"
    ) -> None:
        self.shape, self.size, self.margin = shape, size, margin
        inner = size - 2 * margin
        step = max(1, int(inner / OVERLAPPING))
        self.tops = [_starts(length, inner, step) for length in shape]
        # Cut with reflection where the picture is smaller than a tile or ends.
        ramp = torch.arange(inner, device=device, dtype=torch.float32)
        edge = torch.minimum(ramp + 1, inner - ramp) / max(1.0, inner - step)
        window = torch.sin(edge.clamp(max=1.0) * (math.pi / 2)).square()
        # Of each tile, along each axis, so that all sum to one.
        rows, columns = (_normalised(window, starts) for starts in self.tops)
        self._rows = rows.repeat_interleave(len(columns), 0)[:, None, :, None]
        self._columns = columns.repeat(len(rows), 1)[:, None, None, :]
        # Data near the edge of a tile is explained by what lies outside: fade it out.
        ramp = torch.arange(size, device=device, dtype=torch.float32)
        edge = (torch.minimum(ramp + 0.5, size - ramp - 0.5) / max(1.0, margin)).clamp(max=1.0)
        taper = torch.sin(edge * (math.pi / 2)).square()
        self.taper = taper[:, None] * taper[None, :]

    def __len__(self) -> int:
        return len(self.tops[0]) * len(self.tops[1])

    @property
    def corners(self) -> list[tuple[int, int]]:
        """``(y, x)`` of the first inner pixel of each tile."""
        return [(y, x) for y in self.tops[0] for x in self.tops[1]]

    @property
    def centres(self) -> list[tuple[float, float]]:
        """``(x, y)`` of the middle of each tile's inner part, clipped to the picture."""
        half = (self.size - 2 * self.margin) / 2 - 0.5
        height, width = self.shape
        return [(min(x + half, width - 1), min(y + half, height - 1)) for y, x in self.corners]

    def pad(self, image: Tensor) -> Tensor:
        """Extend a picture (C, H, W) by zeros so that every tile can be cut from it."""
        inner = self.size - 2 * self.margin
        bottom = max(0, self.tops[0][-1] + inner - self.shape[0]) + self.margin
        right = max(0, self.tops[1][-1] + inner - self.shape[1]) + self.margin
        return F.pad(image, (self.margin, right, self.margin, bottom))

    def cut(self, padded: Tensor, index: slice) -> Tensor:
        """Tiles `index` of a picture extended by `pad`; shape (N, C, size, size)."""
        return torch.stack(
            [padded[:, y : y + self.size, x : x + self.size] for y, x in self.corners[index]]
        )

    def add(self, result: Tensor, tiles: Tensor, index: slice) -> None:
        """Add the inner parts of tiles to a picture (C, H, W), weighted to sum to one."""
        m, last = self.margin, self.size - self.margin
        inner = tiles[..., m:last, m:last] * self._rows[index] * self._columns[index]
        for tile, (y, x) in zip(inner, self.corners[index], strict=True):
            part = result[:, y : y + last - m, x : x + last - m]
            part += tile[:, : part.shape[1], : part.shape[2]]


def _normalised(window: Tensor, starts: Sequence[int]) -> Tensor:
    """The window of each start, by the sum of all that are there; shape (N, inner)."""
    inner = len(window)
    total = window.new_zeros(starts[-1] + inner)
    for start in starts:
        total[start : start + inner] += window
    return torch.stack([window / total[start : start + inner] for start in starts])


def _starts(length: int, inner: int, step: int) -> list[int]:
    """Even starts of windows of length `inner` that cover [0, length)."""
    if length <= inner:
        return [0]
    count = 1 + math.ceil((length - inner) / step)
    return [round(i * (length - inner) / (count - 1)) for i in range(count)]
