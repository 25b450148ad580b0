r"""Noise of counted photons: its variance grows with the brightness.

A sensor that turns :math:`n` photons, Poisson distributed, into :math:`g n` units and adds the
noise of its read-out has the variance :math:`g\,(v - v_0) + r^2` at the mean brightness
:math:`v`, of which :math:`v_0` is the black level. Gain and read noise are measured in the
picture itself, from the finest detail at every brightness (Foi, Trimeche, Katkovnik and Egiazarian,
*Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data*, 2008).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from .half_quadratic import NORMAL_MEDIAN, SATURATED, fine_detail

_BINS = 32
_LEAST_VARIANCE = 1e-12
_ROUNDS = 5


@dataclass(frozen=True)
class PhotonNoise:
    """Noise of a sensor that counts photons, for values in [0, 1].

    Attributes
    ----------
    gain : float
        Growth of the variance with the brightness: one over the photons that white stands for.
    read : float
        Standard deviation where there is no light.
    black : float
        Brightness where there is no light.
    """

    gain: float
    read: float
    black: float = 0.0

    def sigma(self, brightness: Tensor) -> Tensor:
        """Standard deviation at each brightness, in a tensor of the same shape."""
        return (self.gain * (brightness - self.black).clamp_min(0) + self.read**2).sqrt()

    def level(self, image: Tensor) -> float:
        """Root mean square of the noise over a picture."""
        return float(self.sigma(image).square().mean().sqrt())

    def scaled(self, factor: float) -> PhotonNoise:
        """As much noise times `factor` everywhere."""
        return replace(self, gain=self.gain * factor**2, read=self.read * factor)


def measure_photon_noise(image: Tensor) -> PhotonNoise:
    """The noise of a picture (C, H, W) in [0, 1] whose values are proportional to light."""
    detail = fine_detail(image).flatten().abs().cpu().numpy()
    brightness = F.avg_pool2d(image[:, None], 3, 1)[:, 0].flatten().cpu().numpy()
    kept = brightness < SATURATED
    if kept.any():
        detail, brightness = detail[kept], brightness[kept]
    bins = np.array_split(np.argsort(brightness), min(_BINS, len(brightness)))
    mean = np.array([brightness[part].mean() for part in bins])
    variance = np.array([(np.median(detail[part]) / NORMAL_MEDIAN) ** 2 for part in bins])
    # Rounding is no noise.
    variance[variance < _LEAST_VARIANCE] = 0
    if np.ptp(mean) < 1e-6 or not variance.any():
        return PhotonNoise(0.0, float(np.sqrt(variance.mean())))
    # A measured variance is uncertain in proportion to itself: the fitted one tells the weights.
    fitted = np.maximum(variance, _LEAST_VARIANCE)
    for _ in range(_ROUNDS):
        slope, offset = np.polyfit(mean, variance, 1, w=1 / fitted)
        slope = max(float(slope), 0.0)
        if slope == 0:
            offset = np.average(variance, weights=1 / fitted**2)
        fitted = np.maximum(slope * mean + offset, 1e-2 * variance.max() + _LEAST_VARIANCE)
    if offset >= 0:
        return PhotonNoise(slope, float(np.sqrt(offset)))
    return PhotonNoise(slope, 0.0, float(-offset / slope))
