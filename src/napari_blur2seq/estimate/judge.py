r"""How much nearer to the truth does a trajectory bring the picture? A network that says so.

It looks at the blurry picture :math:`v`, at what a quick restoration with the trajectory makes
of it, :math:`u`, and at what that leaves unexplained, :math:`A u - v`, and tells for cells of
16 px the mean squared errors of :math:`u` and of :math:`v` that it expects. Their sums compare
trajectories with each other, and each with leaving the picture alone: no quality of :math:`u`
alone can do that, as any deconvolution explains the picture and a soft picture rings least.

Between trajectories that are all nearly right, a classical cost is finer: what is left
unexplained, and how unlike a photograph the result is,

.. math:: \log\big(\mathrm{MSE}(A u - v) + \sigma^2\big)
          + 3 \log\frac{\|\nabla u\|_1}{\|\nabla u\|_2}.

The norm ratio is smallest for pictures of few, sharp edges, and a wrong trajectory adds ringing
(Krishnan, Tay and Fergus, *Blind deconvolution using a normalized sparsity measure*, CVPR
2011). It is biased towards short motions, though, which the likelihood of the picture's power
spectrum is not (see `spectrum`). `Verdict.score` weighs all three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..fourier import differences

CELL = 16
# The quick restoration is part of what the network has learned to read.
POWER, ROUNDS, ITERATIONS = 0.5, 3, 4
LEAST_NOISE = 0.01
_LOG_ERROR = -6.0
# dB; 3 to 8 choose alike.
COST_WEIGHT = 5.0
# dB for a hundredth; 0.05 to 0.15 choose alike.
LIKELIHOOD_WEIGHT = 0.05


class Judge(nn.Module):
    """Pictures to logarithms of mean squared errors, cell by cell."""

    def __init__(self, channels: tuple[int, int, int] = (32, 48, 80)) -> None:
        super().__init__()
        a, b, c = channels
        # Output channels and stride of each convolution.
        layout = [(a, 1), (a, 1), (b, 2), (b, 1), (c, 2), (c, 1), (c, 1), (c, 2), (c, 1)]
        layers: list[nn.Module] = []
        before = 4 * 4 + 1
        for channel, stride in layout:
            layers += [nn.Conv2d(before, channel, 3, stride=stride, padding=1), nn.GELU()]
            before = channel
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 2, 1))

    def forward(self, blurry: Tensor, restored: Tensor, residual: Tensor, noise: Tensor) -> Tensor:
        """Logarithms of the errors of the restored and of the blurry picture.

        Parameters
        ----------
        blurry, restored, residual : Tensor
            Grey, shape (B, 1, H, W), range [0, 1], both sides multiples of 16.
        noise : Tensor
            Standard deviation, shape (B,).

        Returns
        -------
        Tensor
            Shape (B, 2, H / 16, W / 16).
        """
        pictures = [blurry - 0.5, restored - 0.5, 4 * (restored - blurry), 10 * residual]
        x = F.pixel_unshuffle(torch.cat(pictures, 1), 2)
        level = (noise.log() / 2 + 2)[:, None, None, None].expand(-1, 1, *x.shape[-2:])
        x = torch.cat([x, level], 1).contiguous(memory_format=torch.channels_last)
        result: Tensor = self.layers(x) + _LOG_ERROR
        return result


def log_ratio(logs: Tensor) -> Tensor:
    """Logarithm of the restored picture's mean squared error by the blurry one's, shape (B,)."""
    restored, blurry = torch.logsumexp(logs.flatten(2), 2).unbind(1)
    return restored - blurry


def whole_gain(logs: Tensor) -> Tensor:
    """Gain of whole pictures in PSNR over the blurry ones, dB, shape (B,)."""
    return -10 / math.log(10) * log_ratio(logs)


def gain_in_cells(logs: Tensor) -> Tensor:
    """The same in each cell, shape (B, H / 16, W / 16)."""
    return 10 / math.log(10) * (logs[:, 1] - logs[:, 0])


def norm_ratio(pictures: Tensor) -> Tensor:
    """Sum of the gradients' lengths by the root of their squares' sum, times a constant.

    Without the last row and column, whose differences run over the edge.
    """
    dx, dy = (d[..., :-1, :-1] for d in differences(pictures))
    square = dx.square() + dy.square()
    return (square + 1e-10).sqrt().mean() / square.mean().sqrt().clamp_min(1e-9)


@dataclass(frozen=True)
class Verdict:
    """What is to be expected of a trajectory.

    Attributes
    ----------
    gain : float
        In PSNR over the blurry picture, dB, of a quick restoration.
    cost : float
        The classical cost.
    likelihood : float
        Of the power spectrum, in hundredths; see `spectrum.Spectrum.likelihood`.
    low_gain : float
        The gain that nine of ten cells of 16 px exceed, dB.
    """

    gain: float
    cost: float
    likelihood: float
    low_gain: float

    @property
    def score(self) -> float:
        """Of several trajectories of one picture, the best has the highest."""
        return self.score_among_lenses + LIKELIHOOD_WEIGHT * self.likelihood

    @property
    def score_among_lenses(self) -> float:
        """The same without the spectrum, whose tiles depend on the lens."""
        return self.gain - COST_WEIGHT * self.cost


@cache
def shipped_judge() -> Judge:
    """The network whose weights are in the package."""
    from ..models.registry import load_judge

    return load_judge()
