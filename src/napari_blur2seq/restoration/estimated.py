r"""Restoration with a trajectory that is an estimate: trusted where it explains the picture.

Whether the errors of an estimate may be neglected, no one knows beforehand. A prior that takes the
motion for the true one brings back more detail; one that is cautious takes away what a wrong motion
leaves behind. The picture is restored both ways, :math:`u_t` and :math:`u_c`, and each is blurred
again: the detail of a true motion explains the blurry picture :math:`v`, that of a wrong one
contradicts it,

.. math:: u = w\,u_t + (1 - w)\,u_c, \qquad
          \log\frac{w}{1 - w} = \frac{2}{\tau} \left(e_c - e_t - b\right), \qquad
          e_i = \sqrt{g * (A u_i - v)^2} / \sigma ,

where :math:`g` is a Gaussian, wide enough for the noise :math:`\sigma` to be averaged out. Of a
wrong motion, too, the prior that relies on it leaves a little less unexplained: :math:`b`.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ..progress import Steps, announced, within
from ..trajectory import Trajectory
from .half_quadratic import (
    LEAST_SIGMA,
    SATURATED,
    Prior,
    Trust,
    estimate_noise,
    one_sided,
    reach_at_corners,
    restore_steps,
)
from .local_blur import LocalBlur
from .merged_poses import merged_blur
from .photon_noise import PhotonNoise

# Side of the cells whose squared residuals are averaged, px; spread of the Gaussian in cells;
# tau and b.
_CELL, _SPREAD, _SOFTNESS, _LESS = 16, 4.0, 0.1, 0.04
_LEAST_SHARE = 1e-3
# Px between poses: an estimate is not as fine.
_MERGED = 0.5
_MESSAGE = "Blurring what was restored"


def restore_estimated_steps(
    image: Tensor,
    trajectory: Trajectory,
    prior: Prior,
    *,
    confirmed: bool = True,
    noise: float | PhotonNoise | None = None,
    preview: bool = False,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Steps[Tensor]:
    """Restore (C, H, W) in [0, 1]; see the module's text.

    Parameters
    ----------
    image, trajectory, prior, noise, preview, bounds
        As for `restore_steps`.
    confirmed : bool
        Whether the trajectory was found in more than one way. One that was not is trusted nowhere:
        detail of a wrong motion that is far from the true one contradicts the picture no more
        than what is cautious does.

    Yields
    ------
    Progress
        Events of the stage ``"restore"``.

    Returns
    -------
    Tensor
        Shape (C, H, W).
    """
    if noise is None:
        noise = estimate_noise(image)
    operator = partial(merged_blur, apart=_MERGED)
    restoring = partial(
        restore_steps,
        image,
        trajectory,
        prior,
        noise=noise,
        bounds=bounds,
        operator=operator,
        early=LocalBlur,
    )
    if not confirmed:
        return (yield from restoring(trust="doubted", preview=preview))
    level = noise if isinstance(noise, float | int) else noise.level(image)
    blur = operator(trajectory, image.device, image.dtype)
    border = reach_at_corners(trajectory)
    restored, left = [], []
    # Once is enough to show how a picture becomes sharp.
    ways: tuple[tuple[float, float, Trust, bool], ...] = (
        (0.0, 0.29, "doubted", preview),
        (0.34, 0.95, "known", False),
    )
    for begin, end, trust, shown in ways:
        picture = yield from within(restoring(trust=trust, preview=shown), begin, end)
        blurring = blur.parts(picture[None])
        again = yield from announced(blurring, "restore", end, end + 0.05, _MESSAGE)
        restored.append(picture)
        left.append(_left(image, again[0], border) / max(level, LEAST_SIGMA))
    cautious, trusting = restored
    share = torch.sigmoid(2 / _SOFTNESS * (left[0] - left[1] - _LESS))
    size = image.shape[-2:]
    share = F.interpolate(share[None, None], size=size, mode="bilinear")[0]
    return torch.lerp(cautious, trusting, share)


def _left(image: Tensor, again: Tensor, border: int) -> Tensor:
    """Root of the mean squared residual around each cell."""
    squares = one_sided(image - again, image >= SATURATED).square().mean(0)
    known = torch.zeros_like(squares)
    border = min(border, (min(squares.shape) - 1) // 2)
    known[border : known.shape[0] - border, border : known.shape[1] - border] = 1
    sums, counts = (_smooth(_cells(part)) for part in (squares * known, known))
    return (sums / counts.clamp_min(_LEAST_SHARE)).sqrt()


def _cells(picture: Tensor) -> Tensor:
    """Means of the cells of (H, W)."""
    return F.avg_pool2d(picture[None, None], _CELL, ceil_mode=True, count_include_pad=False)[0, 0]


def _smooth(cells: Tensor) -> Tensor:
    """Gaussian average of (h, w), continued by replication."""
    smooth = gaussian_filter(cells.cpu().numpy(), _SPREAD, mode="nearest", truncate=3)
    return torch.from_numpy(smooth).to(cells)
