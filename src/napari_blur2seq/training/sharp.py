"""Where sharp pictures come from: folders of photographs, and dead leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ImageError
from ..files import SUFFIXES, read_image

_FINER = 0.25
_LEAVES = 500
_TEXTURED = 0.5


def load_images(folder: Path, limit: int | None = None) -> list[Tensor]:
    """Read every picture of a folder as uint8 tensors of shape (3, H, W).

    Raises
    ------
    ImageError
        If there is none, or one cannot be read.
    """
    folder = Path(folder)
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)[:limit]
    if not paths:
        raise ImageError(f"There are no PNG, JPEG or TIFF pictures in {folder}.")
    images = []
    for path in paths:
        array, _ = read_image(path)
        if array.dtype != np.uint8:
            low, high = float(array.min()), float(array.max())
            array = ((array - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
        if array.ndim == 2:
            array = np.repeat(array[..., None], 3, axis=2)
        images.append(torch.from_numpy(np.ascontiguousarray(array[..., :3].transpose(2, 0, 1))))
    return images


def random_crops(
    images: Sequence[Tensor], count: int, size: int, generator: np.random.Generator
) -> Tensor:
    """Cut random squares, flipped, turned, some of them reduced in size to be finer.

    Pictures smaller than `size` are continued by reflection.

    Returns
    -------
    Tensor
        Shape (count, 3, size, size), uint8.
    """
    crops = torch.empty(count, 3, size, size, dtype=torch.uint8)
    for crop in crops:
        image = images[int(generator.integers(len(images)))]
        shortest = min(image.shape[-2:])
        finer = generator.random() < _FINER and shortest >= 2 * size
        sides = [min(side, (1 + finer) * size) for side in image.shape[-2:]]
        top, left = (
            int(generator.integers(whole - side + 1))
            for whole, side in zip(image.shape[-2:], sides, strict=True)
        )
        cut = image[:, top : top + sides[0], left : left + sides[1]]
        if finer:
            cut = F.avg_pool2d(cut.float(), 2).round().to(torch.uint8)
        elif min(sides) < size:
            missing = [size - side for side in sides]
            pads = [(0, 0), *((m // 2, m - m // 2) for m in missing)]
            cut = torch.from_numpy(np.pad(cut.numpy(), pads, mode="symmetric"))
        cut = torch.rot90(cut, int(generator.integers(4)), (1, 2))
        crop.copy_(cut.flip(2) if generator.random() < 0.5 else cut)
    return crops


def dead_leaves(size: int, generator: np.random.Generator) -> Tensor:
    """Discs and polygons that hide each other, as sharp and as manifold as the world.

    Sizes follow the power law of natural scenes, areas r^-2 above each other (Lee, Mumford
    and Huang, *Occlusion models for natural images*, IJCV 2001). Half of the leaves bear a
    grating or grain.

    Returns
    -------
    Tensor
        Shape (3, size, size), uint8.
    """
    y, x = np.mgrid[:size, :size].astype(np.float32)
    image = np.empty((3, size, size), np.float32)
    image[:] = _colour(generator)[:, None, None]
    smallest, largest = 2.0, size / 3
    # The inverse of the cumulative distribution of the density r^-3, largest drawn first.
    share = generator.random(_LEAVES)
    radii = (smallest**-2 - share * (smallest**-2 - largest**-2)) ** -0.5
    wide = np.exp(generator.uniform(np.log(smallest), np.log(largest), _LEAVES // 4))
    for radius in generator.permutation(np.r_[radii, wide]):
        cx, cy = generator.uniform(-radius, size + radius, 2)
        reach = int(np.ceil(1.5 * radius)) + 1
        rows = slice(max(0, int(cy) - reach), max(0, int(cy) + reach + 1))
        columns = slice(max(0, int(cx) - reach), max(0, int(cx) + reach + 1))
        u, v = x[rows, columns] - cx, y[rows, columns] - cy
        if u.size == 0:
            continue
        angle = generator.uniform(0, np.pi)
        c, s = np.cos(angle), np.sin(angle)
        u, v = c * u + s * v, c * v - s * u
        if generator.random() < 0.5:
            distance = np.hypot(u, v)
        else:
            distance = np.maximum(np.abs(u), np.abs(v) * generator.uniform(1, 3))
        cover = np.clip(radius - distance + 0.5, 0, 1)  # smooth over one pixel
        leaf = np.broadcast_to(_colour(generator)[:, None, None], (3, *u.shape))
        if generator.random() < _TEXTURED:
            leaf = leaf + _texture(u, v, generator)
        part = image[:, rows, columns]
        part += cover * (leaf - part)
    return torch.from_numpy(image.clip(0, 255).round().astype(np.uint8))


def _colour(generator: np.random.Generator) -> NDArray[np.float32]:
    """RGB around a random grey, as colours mostly are."""
    grey = generator.uniform(0, 255)
    return (grey + generator.normal(0, 35, 3)).clip(0, 255).astype(np.float32)


def _texture(
    u: NDArray[np.float32], v: NDArray[np.float32], generator: np.random.Generator
) -> NDArray[np.float32]:
    strength = generator.uniform(5, 60)
    if generator.random() < 0.5:
        return strength * generator.standard_normal(u.shape).astype(np.float32)
    period = np.exp(generator.uniform(np.log(2.5), np.log(20)))
    grating: NDArray[np.float32] = strength * np.sign(np.sin(u * np.float32(2 * np.pi / period)))
    return grating
