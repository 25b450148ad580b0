"""Image and trajectory to sharp image."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import OptionError
from .estimated import restore_estimated_steps
from .half_quadratic import Prior, restore_steps
from .noise_level import noise_level
from .photon_noise import PhotonNoise, measure_photon_noise
from .sparse import SparseGradientPrior

__all__ = [
    "PhotonNoise",
    "load_prior",
    "noise_level",
    "noise_of",
    "restore_estimated_steps",
    "restore_steps",
]


def load_prior(name: str, device: torch.device, tile: int | None = None) -> tuple[Prior, str]:
    """The denoiser of a name, and what to call it in the metadata.

    ``"auto"`` is the learned prior where its weights are shipped, else the sparse one; the
    path of a ``.safetensors`` file is the learned prior with the weights that it holds. It works
    in tiles of at most `tile` px a side.
    """
    from ..models import registry

    if name.endswith(".safetensors"):
        from .learned import LearnedPrior

        return LearnedPrior(registry.load_restoration(device, name), tile), Path(name).name

    if name == "learned" and not registry.available("restoration"):
        raise OptionError("No weights for the learned prior are installed; choose prior='sparse'.")
    if name != "sparse" and registry.available("restoration"):
        from .learned import LearnedPrior

        prior = LearnedPrior(registry.load_restoration(device), tile)
        return prior, registry.describe("restoration")
    return SparseGradientPrior(tile=tile), "sparse gradients"


def noise_of(image: Tensor, level: float | None, model: str) -> float | PhotonNoise:
    """The noise of (C, H, W) as `restore_steps` takes it.

    Of ``"white"`` noise, the level alone; where none is given, see `noise_level`. Of ``"poisson"``
    noise, what is measured in the picture, scaled to the root mean square `level` where that is
    given.
    """
    if model == "white":
        return noise_level(image) if level is None else level
    measured = measure_photon_noise(image)
    if level is None:
        return measured
    return measured.scaled(level / max(measured.level(image), 1e-6))
