"""The learned image prior: one noise-conditional denoiser for every noise level."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _ResidualBlock(nn.Module):
    """``x + conv(relu(conv(x)))``, without biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return result


class Denoiser(nn.Module):
    r"""Residual U-Net ``D(x, sigma)`` that removes white noise of a given level.

    The network works on 2x2 blocks of pixels (pixel unshuffle), so that its
    widest layers see a quarter of the pixels, and has no biases, so that it
    scales with the noise level and keeps working at levels it was not trained on
    (Mohan et al., *Robust and interpretable blind image denoising via bias-free
    convolutional neural networks*, ICLR 2020). The noise level enters as one more
    constant channel (FFDNet, Zhang et al. 2018; DPIR, Zhang et al. 2021).

    Parameters
    ----------
    channels : tuple of int
        Width of the three levels, at 1/2, 1/4 and 1/8 of the resolution.
    blocks : tuple of int
        Number of residual blocks at each level (half of those of the first two
        levels lie on the way down, half on the way up).
    """

    def __init__(
        self,
        channels: tuple[int, int, int] = (64, 128, 224),
        blocks: tuple[int, int, int] = (2, 2, 2),
    ) -> None:
        super().__init__()
        c1, c2, c3 = channels
        n1, n2, n3 = blocks
        self.head = nn.Conv2d(12 + 1, c1, 3, padding=1, bias=False)
        self.down1 = nn.Sequential(*(_ResidualBlock(c1) for _ in range(n1 // 2)))
        self.half1 = nn.Conv2d(c1, c2, 2, stride=2, bias=False)
        self.down2 = nn.Sequential(*(_ResidualBlock(c2) for _ in range(n2 // 2)))
        self.half2 = nn.Conv2d(c2, c3, 2, stride=2, bias=False)
        self.body = nn.Sequential(*(_ResidualBlock(c3) for _ in range(n3)))
        self.twice2 = nn.ConvTranspose2d(c3, c2, 2, stride=2, bias=False)
        self.up2 = nn.Sequential(*(_ResidualBlock(c2) for _ in range(n2 - n2 // 2)))
        self.twice1 = nn.ConvTranspose2d(c2, c1, 2, stride=2, bias=False)
        self.up1 = nn.Sequential(*(_ResidualBlock(c1) for _ in range(n1 - n1 // 2)))
        self.tail = nn.Conv2d(c1, 12, 3, padding=1, bias=False)
        for module in self.modules():
            if isinstance(module, _ResidualBlock):  # start every block near the identity
                nn.init.normal_(module.conv2.weight, std=1e-3)

    def forward(self, image: Tensor, sigma: Tensor | float) -> Tensor:
        """Denoise a batch.

        Parameters
        ----------
        image : Tensor
            Shape ``(B, 3, H, W)``, range about [0, 1]; any size.
        sigma : Tensor or float
            Standard deviation of the noise in the units of the image: one number,
            shape ``(B,)`` or ``(B, 1, 1, 1)``, or ``(B, 1, H, W)`` where it is not the same
            everywhere.

        Returns
        -------
        Tensor
            Shape ``(B, 3, H, W)``.
        """
        height, width = image.shape[-2:]
        bottom, right = -height % 8, -width % 8
        padded = F.pad(image, (0, right, 0, bottom), mode="replicate")
        x = F.pixel_unshuffle(padded, 2)
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        if level.ndim == 4 and level.shape[-2:] == image.shape[-2:]:
            level = F.avg_pool2d(F.pad(level, (0, right, 0, bottom), mode="replicate"), 2)
        else:
            level = level.reshape(-1, 1, 1, 1)
        level = level.expand(x.shape[0], 1, *x.shape[-2:])
        x = torch.cat([x, level], dim=1).contiguous(memory_format=torch.channels_last)
        first = self.head(x)
        skip1 = self.down1(first)
        skip2 = self.down2(self.half1(skip1))
        x = self.body(self.half2(skip2))
        x = self.up2(self.twice2(x) + skip2)
        x = self.up1(self.twice1(x) + skip1)
        noise = F.pixel_shuffle(self.tail(x + first), 2)
        return (padded - noise)[..., :height, :width]
