"""A quick look at what a trajectory makes of a picture."""

from __future__ import annotations

from torch import Tensor

from ..progress import Steps
from ..trajectory import Trajectory
from . import noise_of
from .half_quadratic import restore_steps
from .sparse import SparseGradientPrior

# With more, it looks the same.
_ITERATIONS = 5


def quick_steps(
    image: Tensor,
    trajectory: Trajectory,
    noise: float | None = None,
    noise_model: str = "white",
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Steps[Tensor]:
    """Restore the brightness of (C, H, W) in [0, 1], and add the change to all channels alike.

    Parameters
    ----------
    image : Tensor
    trajectory : Trajectory
    noise : float, optional
        Standard deviation of the noise; estimated when not given.
    noise_model : str
        See `noise_of`.
    bounds : tuple of float
        Least and largest value of the result.

    Returns
    -------
    Tensor
        Shape (C, H, W).
    """
    brightness = image.mean(0, keepdim=True)
    prior = SparseGradientPrior(iterations=_ITERATIONS)
    level = noise_of(brightness, noise, noise_model)
    sharp = yield from restore_steps(
        brightness, trajectory, prior, noise=level, trust="doubted", bounds=bounds
    )
    # Colours are seen less sharply than brightness.
    return (image + (sharp - brightness)).clamp(*bounds)
