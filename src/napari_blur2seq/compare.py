"""Two pictures of the same thing: shown in one, and in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ImageError
from .images import value_range
from .metrics import Scores, aligned_scores, path_error
from .pipeline import Options, blur_steps
from .progress import Progress, Steps, within
from .trajectory import Trajectory

Array = NDArray[Any]


@dataclass(frozen=True)
class Row:
    """One measure of two pictures.

    Attributes
    ----------
    name, unit, meaning : str
        What it is, in what unit, and how to read it.
    values : tuple
        Of the first and of the second picture; None where it cannot be had.
    """

    name: str
    unit: str
    meaning: str
    values: tuple[float | None, float | None]


def check_pair(a: Array, b: Array) -> None:
    """Raise an `ImageError` unless both pictures have the same pixels and channels."""
    if a.shape != b.shape:
        raise ImageError(
            f"Pictures of {_size(a)} and {_size(b)} cannot be laid over each other; choose two "
            "layers of the same size and colours."
        )


def swipe(a: Array, b: Array, column: int) -> Array:
    """The first picture left of a column, the second from there on; shape (H, W[, C])."""
    check_pair(a, b)
    joined = np.array(b, dtype=np.result_type(a, b))
    joined[:, :column] = a[:, :column]
    return joined


def difference(a: Array, b: Array) -> NDArray[np.float32]:
    """Second less first picture, mean of the colours, as a share of the range; (H, W)."""
    check_pair(a, b)
    limits = _limits(a, b)
    result = _grey(b, limits[1]) - _grey(a, limits[0])
    return result.astype(np.float32)


def blur_effect(image: Array) -> float:
    """The blur effect of Crete et al. (2007): 0 for sharp, 1 for entirely blurred.

    No reference is needed: it is how little the picture changes when it is blurred again.
    *The Blur Effect: Perception and Estimation with a New No-Reference Perceptual Blur
    Metric*, SPIE 6492.
    """
    from skimage.measure import blur_effect as crete

    return float(crete(_grey(image, value_range(image)), h_size=11))


def measure_steps(
    a: Array,
    b: Array,
    *,
    trajectories: tuple[Trajectory | None, Trajectory | None] = (None, None),
    reference: Array | None = None,
    reference_trajectory: Trajectory | None = None,
) -> Steps[list[Row]]:
    """Measure two pictures, as a generator of `Progress`.

    Parameters
    ----------
    a, b : ndarray
        Shape (H, W[, C]).
    trajectories : tuple of Trajectory or None
        With which `a` and `b` were restored: with it, a picture is blurred again and
        compared with the other one.
    reference : ndarray, optional
        The sharp truth.
    reference_trajectory : Trajectory, optional
        The true motion.

    Returns
    -------
    list of Row
    """
    check_pair(a, b)
    if reference is not None:
        check_pair(a, reference)
    pictures = (a, b)
    rows = []
    effects: list[float | None] = []
    for k, picture in enumerate(pictures):
        yield Progress("sequence", 0.15 * k, "Measuring the sharpness")
        effects.append(blur_effect(picture))
    rows.append(
        Row(
            "blur effect",
            "",
            "Crete et al. 2007, without a reference: 0 is sharp, 1 entirely blurred.",
            (effects[0], effects[1]),
        )
    )
    if any(trajectories):
        residuals: list[float | None] = [None, None]
        for k, trajectory in enumerate(trajectories):
            if trajectory is not None and trajectory.image_shape == pictures[k].shape[:2]:
                steps = blur_steps(pictures[k], trajectory, Options(noise=0.0))
                start = 0.3 + 0.2 * k
                again = yield from within(steps, start, start + 0.2, message="Blurring again")
                residuals[k] = 100 * _rms(difference(pictures[1 - k], np.asarray(again)))
        rows.append(
            Row(
                "reblur residual",
                "%",
                "Root mean square of what the picture, blurred again by its trajectory, differs "
                "from the other one, in percent of the range: at best, its noise.",
                (residuals[0], residuals[1]),
            )
        )
    if reference is not None:
        scores = []
        for k, picture in enumerate(pictures):
            yield Progress("sequence", 0.7 + 0.15 * k, "Comparing with the reference")
            # Not left to rounding: equal pictures are infinitely near.
            equal = np.array_equal(picture, reference)
            limits = _limits(picture, reference)
            scores.append(
                Scores(math.inf, 1.0)
                if equal
                else aligned_scores(_colour(picture, limits[0]), _colour(reference, limits[1]))
            )
        rows.append(
            Row(
                "PSNR",
                "dB",
                "Aligned to the reference by a homography; higher is nearer, infinite is equal.",
                (scores[0].psnr, scores[1].psnr),
            )
        )
        rows.append(
            Row(
                "SSIM",
                "",
                "Aligned to the reference by a homography; 1 is equal.",
                (scores[0].ssim, scores[1].ssim),
            )
        )
    if reference_trajectory is not None:
        errors = tuple(
            None if t is None else path_error(reference_trajectory, t) for t in trajectories
        )
        rows.append(
            Row(
                "path error",
                "px",
                "Distance of the trajectory from the reference trajectory, free of the direction "
                "of time and of a constant rotation.",
                (errors[0], errors[1]),
            )
        )
    yield Progress("sequence", 1.0, "Measured")
    return rows


def _limits(a: Array, b: Array) -> tuple[tuple[float, float], tuple[float, float]]:
    """Black and white of both pictures: the same, unless they are of different units."""
    if a.dtype != b.dtype:
        return value_range(a), value_range(b)
    common = value_range(a, b)
    return common, common


def _colour(image: Array, limits: tuple[float, float]) -> NDArray[np.float32]:
    """Without alpha, as a share of the range."""
    image = image[..., :3] if image.ndim == 3 else image
    low, high = limits
    scaled: NDArray[np.float32] = ((image - low) / max(high - low, 1e-12)).astype(np.float32)
    return scaled


def _grey(image: Array, limits: tuple[float, float]) -> NDArray[np.float32]:
    scaled = _colour(image, limits)
    return scaled.mean(axis=-1) if scaled.ndim == 3 else scaled


def _rms(values: Array) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def _size(image: Array) -> str:
    channels = f" x {image.shape[2]}" if image.ndim == 3 else ""
    return f"{image.shape[1]} x {image.shape[0]}{channels}"
