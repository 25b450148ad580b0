"""What JPEG compression does to a batch of pictures, each at its own quality, on any device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Quantisation at quality 50, ITU-T T.81, annex K.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress with chroma at half the resolution (4:2:0).

    Parameters
    ----------
    images : Tensor
        Shape (B, 3, H, W), range [0, 1].
    quality : Tensor
        1 to 100 as the Independent JPEG Group counts it, shape (B,).

    Returns
    -------
    Tensor
        Like `images`, multiples of 1/255.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images * 255, (0, -width % 16, 0, -height % 16), mode="replicate")
    matrix = images.new_tensor(_TO_YCBCR)
    planes = torch.einsum("ij,bjhw->bihw", matrix, padded)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]
    tables = [
        ((images.new_tensor(table) * scale + 50) / 100).floor().clamp(1, 255)
        for table in (_LUMINANCE, _CHROMINANCE)
    ]
    luminance = _quantised(planes[:, :1] - 128, tables[0])
    chrominance = _quantised(F.avg_pool2d(planes[:, 1:], 2), tables[1])
    chrominance = F.interpolate(chrominance, scale_factor=2.0, mode="bilinear")
    decoded = torch.cat([luminance + 128, chrominance], 1)[..., :height, :width]
    result = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(matrix), decoded)
    return result.round_().clamp_(0, 255).div_(255)


def _quantised(planes: Tensor, table: Tensor) -> Tensor:
    """Round the cosine coefficients of blocks of 8x8 px to multiples of (B, 8, 8)."""
    batch, channels, height, width = planes.shape
    position = torch.arange(8, dtype=planes.dtype, device=planes.device)
    waves = torch.cos((2 * position[None, :] + 1) * position[:, None] * (math.pi / 16)) / 2
    waves[0] /= math.sqrt(2)
    step = table.reshape(batch, 1, 1, 8, 1, 8)
    # Along the rows, then along the columns: no block has to be gathered.
    rows = (planes.reshape(-1, 8) @ waves.T).reshape(-1, 8, width)
    blocks = (waves @ rows).reshape(batch, channels, height // 8, 8, width // 8, 8)
    rounded = (blocks / step).round_().mul_(step).reshape(-1, 8, width)
    result: Tensor = (waves.T @ rounded).reshape(-1, 8) @ waves
    return result.reshape(planes.shape)
