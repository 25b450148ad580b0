"""Image and trajectory to sharp image."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import OptionError
from .half_quadratic import Prior, estimate_noise, restore_steps
from .sparse import SparseGradientPrior

__all__ = ["estimate_noise", "load_prior", "restore_steps"]


def load_prior(name: str, device: torch.device) -> tuple[Prior, str]:
    """The denoiser of a name, and what to call it in the metadata.

    ``"auto"`` is the learned prior where its weights are shipped, else the sparse one; the
    path of a ``.safetensors`` file is the learned prior with the weights that it holds.
    """
    from ..models import registry

    if name.endswith(".safetensors"):
        from .learned import LearnedPrior

        return LearnedPrior(registry.load_restoration(device, name)), Path(name).name

    if name == "learned" and not registry.available("denoiser"):
        raise OptionError("No weights for the learned prior are installed; choose prior='sparse'.")
    if name != "sparse" and registry.available("denoiser"):
        from .learned import LearnedPrior

        return LearnedPrior(registry.load_restoration(device)), registry.describe("denoiser")
    return SparseGradientPrior(), "sparse gradients"
