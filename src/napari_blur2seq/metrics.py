"""Scores: aligned PSNR and SSIM of pictures, path error of trajectories."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .trajectory import Trajectory


def _displacements(a: Trajectory, b: Trajectory) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centred displacements of both, (T, 9, 2), at the same points and with as many poses."""
    points = a.grid(3, margin=0.1)
    n = max(len(a), len(b))
    paths = []
    for trajectory in (a, b):
        if len(trajectory) != n:
            trajectory = trajectory.resample(n)
        path = trajectory.paths(points)
        paths.append(path - path.mean(axis=0))
    return paths[0], paths[1]


def path_error(a: Trajectory, b: Trajectory) -> float:
    r"""Distance of two trajectories in px, free of order, direction and a constant rotation.

    .. math:: \sqrt{\frac19 \sum_{x} W_2^2\big(\{d^a_j(x)\}_j, \{d^b_j(x)\}_j\big)}

    with :math:`d_j(x) = H_j x - x` less its mean over time, :math:`x` on a 3x3 grid at
    10, 50 and 90 % of the image of `a`, and :math:`W_2` the optimal-transport
    distance of the two sets of displacements.
    """
    from scipy.optimize import linear_sum_assignment

    first, second = _displacements(a, b)
    total = 0.0
    for n in range(first.shape[1]):
        cost = np.square(first[:, None, n] - second[None, :, n]).sum(-1)
        total += cost[linear_sum_assignment(cost)].mean()
    return float(np.sqrt(total / first.shape[1]))


def ordered_error(a: Trajectory, b: Trajectory) -> float:
    """Like `path_error` with the poses matched in time; the better of both directions."""
    first, second = _displacements(a, b)
    return float(
        min(np.sqrt(np.square(first - other).sum(-1).mean()) for other in (second, second[::-1]))
    )


class Scores(NamedTuple):
    """Aligned scores of a picture against its reference."""

    psnr: float
    ssim: float


def aligned_scores(
    image: ArrayLike, reference: ArrayLike, *, margin: int = 10, align: bool = True
) -> Scores:
    """PSNR (dB) and SSIM after homography alignment and least-squares intensity scale.

    A constant rotation of the camera cannot be told from one picture, so an unaligned
    score says nothing about a blindly restored one.

    Parameters
    ----------
    image, reference : array_like
        Same shape (H, W) or (H, W, C), same range; integers by their dtype's maximum,
        floats in [0, 1].
    margin : int
        Border left out, px.
    align : bool
        Whether to align; without it only the intensity scale is fitted.
    """
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity
    from skimage.util import img_as_float32

    x = np.atleast_3d(img_as_float32(np.asarray(image)))
    y = np.atleast_3d(img_as_float32(np.asarray(reference)))
    if x.shape != y.shape:
        raise ValueError(f"The pictures have different shapes: {x.shape} and {y.shape}.")
    valid = np.ones(x.shape[:2], bool)
    if align:
        x, valid = _align(x, y)
    inner = (slice(margin, -margin or None),) * 2
    x, y, valid = x[inner], y[inner], valid[inner]
    weight = valid[..., None]
    x = np.clip(x * ((x * y * weight).sum() / max((x * x * weight).sum(), 1e-12)), 0, 1)
    x = np.where(weight, x, y)
    psnr = peak_signal_noise_ratio(y[valid], x[valid], data_range=1)
    ssim = structural_similarity(y, x, channel_axis=2, data_range=1)
    return Scores(float(psnr), float(ssim))


def _align(
    image: NDArray[np.float32], reference: NDArray[np.float32], steps: int = 60
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Warp `image` onto `reference` by the homography of highest correlation.

    Enhanced correlation coefficient maximisation (Evangelidis and Psarakis, PAMI 2008),
    started from the shift of phase correlation.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates
    from skimage.registration import phase_cross_correlation

    template = gaussian_filter(reference.mean(-1), 1.0).astype(np.float64)
    moving = gaussian_filter(image.mean(-1), 1.0).astype(np.float64)
    if min(np.ptp(moving), np.ptp(template)) < 1e-6:  # flat: there is nothing to align by
        return image, np.ones(template.shape, bool)
    height, width = template.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    scale = max(height, width) / 2
    u, v = (x - width / 2) / scale, (y - height / 2) / scale
    gradient_y = np.gradient(moving, axis=0)
    gradient_x = np.gradient(moving, axis=1)

    def positions(
        p: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        depth = 1 + p[6] * u + p[7] * v
        new_u = ((1 + p[0]) * u + p[1] * v + p[2]) / depth
        new_v = (p[3] * u + (1 + p[4]) * v + p[5]) / depth
        return new_u * scale + width / 2, new_v * scale + height / 2, depth

    shift = phase_cross_correlation(moving, template, upsample_factor=10, normalization=None)[0]
    p = np.zeros(8)
    if np.abs(shift).max() < 0.1 * max(height, width):
        p[2], p[5] = shift[1] / scale, shift[0] / scale
    best, best_p = -np.inf, p
    for _ in range(steps):
        px, py, depth = positions(p)
        inside = (px >= 0) & (px <= width - 1) & (py >= 0) & (py <= height - 1)
        warped = map_coordinates(moving, [py, px], order=1, mode="nearest")
        w = warped[inside] - warped[inside].mean()
        t = template[inside] - template[inside].mean()
        score = (w @ t) / max(np.sqrt((w @ w) * (t @ t)), 1e-12)
        if score < best:
            break
        improved = score - best
        best, best_p = score, p
        if improved < 1e-8:
            break
        gx = map_coordinates(gradient_x, [py, px], order=1, mode="nearest")[inside] * scale
        gy = map_coordinates(gradient_y, [py, px], order=1, mode="nearest")[inside] * scale
        uu, vv, d = u[inside], v[inside], depth[inside]
        qu, qv = (px[inside] - width / 2) / scale, (py[inside] - height / 2) / scale
        jacobian = np.stack(
            [
                gx * uu / d,
                gx * vv / d,
                gx / d,
                gy * uu / d,
                gy * vv / d,
                gy / d,
                -(gx * qu + gy * qv) * uu / d,
                -(gx * qu + gy * qv) * vv / d,
            ],
            axis=1,
        )
        jacobian -= jacobian.mean(axis=0)
        hessian = jacobian.T @ jacobian + 1e-9 * np.eye(8)
        jw, jt = jacobian.T @ w, jacobian.T @ t
        solved = np.linalg.solve(hessian, jw)
        numerator = w @ w - jw @ solved
        denominator = t @ w - jt @ solved
        if denominator <= 0:
            break
        p = p + np.linalg.solve(hessian, jacobian.T @ (numerator / denominator * t - w))
    px, py, _ = positions(best_p)
    inside = (px >= 0) & (px <= width - 1) & (py >= 0) & (py <= height - 1)
    warped = np.stack(
        [
            map_coordinates(image[..., c], [py, px], order=3, mode="nearest")
            for c in range(image.shape[2])
        ],
        axis=-1,
    )
    return warped.astype(np.float32), inside
