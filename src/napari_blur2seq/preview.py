"""A quick look: one start, one uniform kernel, brightness alone, at the size of the screen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from .camera import Camera
from .images import ImageFormat, to_working, value_range
from .pipeline import Options
from .progress import Progress, Steps, announced, within

if TYPE_CHECKING:
    from torch import Tensor

# More than these are reduced first: px of the view, and of what the motion is estimated from.
VIEW_PIXELS = 800 * 600
_ESTIMATE_PIXELS = 400 * 300
# Ridge and share of edges of the one start: of those of the estimate, the one that does best
# in pictures as small as this.
_RIDGE, _EDGES = 0.1, 4.0
# Of the motion: with more, it looks the same.
_POSES = 32


def preview_steps(
    image: NDArray[Any],
    magnification: float,
    options: Options,
    whole: NDArray[Any] | None = None,
) -> Steps[NDArray[Any]]:
    """Deblur a part of a picture as it is seen on the screen; returns it at that size.

    Parameters
    ----------
    image : ndarray
        The part, (H, W[, C]).
    magnification : float
        Px of the screen per px of the picture: what the screen does not show is not computed.
    options : Options
        ``value_range``, ``noise``, ``noise_model`` and ``linear`` count.
    whole : ndarray, optional
        The picture, (H, W[, C]), whose range of values is taken where `options` hold none.

    Returns
    -------
    ndarray
        Like the part, smaller where the screen shows it smaller.
    """
    yield Progress("estimate", 0.0, "Looking at the blur")
    limits = options.value_range
    if limits is None and whole is not None:
        limits = value_range(whole, linear=options.linear)
    working, form = to_working(image, options.linear, limits)

    import torch

    return (yield from torch.no_grad()(_steps)(working, form, magnification, options))


def _steps(
    working: NDArray[Any], form: ImageFormat, magnification: float, options: Options
) -> Steps[NDArray[Any]]:
    import torch
    import torch.nn.functional as F

    from .estimate.curve import to_trajectory
    from .estimate.kernel_curve import kernel_curve
    from .estimate.uniform import Start, uniform_kernel
    from .estimate.view import grey_and_mask, reduced
    from .restoration.quick import quick_steps
    from .trajectory import Trajectory

    tensor = torch.from_numpy(working)
    height, width = tensor.shape[-2:]
    seen = height * width * min(1.0, magnification) ** 2
    view, _ = reduced(tensor, int(min(seen, VIEW_PIXELS)))
    small, _ = reduced(view, _ESTIMATE_PIXELS)
    grey, mask = grey_and_mask(small)
    kernel = None
    for fraction, kernel in uniform_kernel(grey, mask, Start(_RIDGE, _EDGES)):
        message = f"Estimating the blur kernel ({kernel.shape[0]} px)"
        yield Progress("estimate", 0.4 * fraction, message)
    assert kernel is not None
    curve = yield from announced(kernel_curve(kernel), "estimate", 0.4, 0.5, message)
    # The part is seen by a camera of its own; a kernel alike everywhere does not mind.
    motion = to_trajectory(curve, _camera(small), _POSES)
    trajectory = Trajectory.from_camera(motion.rotations, _camera(view))
    restoring = quick_steps(view, trajectory, options.noise, options.noise_model, form.bounds)
    result = yield from within(restoring, 0.5, 1.0)
    if form.alpha is not None:
        alpha = torch.from_numpy(form.alpha.astype("float32"))[None, None]
        resized = F.interpolate(alpha, size=tuple(view.shape[-2:]), mode="nearest")[0, 0]
        form = replace(form, alpha=resized.numpy().astype(form.dtype))
    encoded: NDArray[Any] = form.encode(result.numpy())
    return encoded


def _camera(image: Tensor) -> Camera:
    """Of long focal length: the same blur everywhere, whatever the part."""
    return Camera.for_stage((int(image.shape[-2]), int(image.shape[-1])))
