r"""A pinhole camera that rotates: from rotation vectors to homographies.

A pixel :math:`x` (homogeneous, pixel centres at integer coordinates) of the sharp
image is seen at :math:`H_j x` while the camera has pose :math:`j`:

.. math:: H_j = K R_j K^{-1}, \qquad
          K = \begin{pmatrix} f & 0 & c_x \\ 0 & f & c_y \\ 0 & 0 & 1 \end{pmatrix}

where :math:`R_j` is the rotation matrix of the rotation vector (axis times angle,
radians) with components pitch, yaw and roll.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import CameraError

if TYPE_CHECKING:
    from torch import Tensor

# Focal length over the longer side from which on pitch and yaw shift the picture as a whole.
_STAGE = 8.0
# Width of a full 35 mm frame: EXIF "focal length in 35 mm film" refers to its diagonal.
_FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)


@dataclass(frozen=True)
class Camera:
    """Intrinsic parameters of a pinhole camera with square pixels.

    Parameters
    ----------
    focal_length : float
        In pixels, positive.
    principal_point : tuple of float
        ``(cx, cy)`` in pixels.
    image_shape : tuple of int
        ``(height, width)`` in pixels.

    Raises
    ------
    CameraError
        If a value is not finite, or the focal length or the shape not positive.
    """

    focal_length: float
    principal_point: tuple[float, float]
    image_shape: tuple[int, int]

    def __post_init__(self) -> None:
        try:
            focal_length = float(self.focal_length)
            cx, cy = (float(c) for c in self.principal_point)
            height, width = (int(s) for s in self.image_shape)
        except (TypeError, ValueError) as error:
            raise CameraError(
                "The focal length must be a number, the principal point (cx, cy) and the "
                "image shape (height, width)."
            ) from error
        if not (math.isfinite(focal_length) and focal_length > 0):
            raise CameraError(
                f"The focal length must be a positive number of pixels, not {focal_length:g}; "
                "leave it out to use the longer side of the image."
            )
        if not (math.isfinite(cx) and math.isfinite(cy)):
            raise CameraError(f"The principal point must be finite, not ({cx:g}, {cy:g}).")
        if height < 1 or width < 1:
            raise CameraError(f"The image shape must be positive, not ({height}, {width}).")
        object.__setattr__(self, "focal_length", focal_length)
        object.__setattr__(self, "principal_point", (cx, cy))
        object.__setattr__(self, "image_shape", (height, width))

    @property
    def field(self) -> float:
        """Distance of the corners from the middle, by the focal length."""
        return math.hypot(*self.image_shape) / 2 / self.focal_length

    @classmethod
    def for_image(
        cls,
        image_shape: tuple[int, int],
        focal_length: float | None = None,
        principal_point: tuple[float, float] | None = None,
    ) -> Camera:
        """Camera of an image of shape (height, width).

        The focal length defaults to the longer side, the principal point to
        ``(width / 2, height / 2)``.
        """
        height, width = image_shape
        if focal_length is None:
            focal_length = float(max(height, width))
        if principal_point is None:
            principal_point = (width / 2, height / 2)
        return cls(focal_length, principal_point, (height, width))

    @classmethod
    def from_film_equivalent(cls, image_shape: tuple[int, int], millimetres: float) -> Camera:
        """Camera from the 35 mm film equivalent focal length (equal diagonal angle of view)."""
        height, width = image_shape
        return cls.for_image(
            image_shape, float(millimetres) * math.hypot(height, width) / _FILM_DIAGONAL_MM
        )

    @classmethod
    def for_stage(cls, image_shape: tuple[int, int]) -> Camera:
        """Camera whose rotations are the motion of a microscope's stage.

        The long-focal-length limit: pitch and yaw shift the picture as a whole, alike
        everywhere to 0.4 %, and roll turns it in its plane.
        """
        return cls.for_image(image_shape, _STAGE * max(image_shape))

    @property
    def is_stage(self) -> bool:
        """Whether pitch and yaw shift the picture as a whole; see `for_stage`."""
        return self.focal_length >= 0.99 * _STAGE * max(self.image_shape)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Intrinsic matrix ``K``, shape (3, 3)."""
        cx, cy = self.principal_point
        f = self.focal_length
        return np.array([[f, 0, cx], [0, f, cy], [0, 0, 1.0]])

    def homographies(self, rotations: ArrayLike) -> NDArray[np.float64]:
        """Homographies ``H_j = K R_j K^-1`` of rotation vectors.

        Parameters
        ----------
        rotations : array_like
            Shape (T, 3), radians.

        Returns
        -------
        ndarray
            Shape (T, 3, 3).
        """
        from scipy.spatial.transform import Rotation

        poses = Rotation.from_rotvec(np.array(rotations, dtype=np.float64)).as_matrix()
        result: NDArray[np.float64] = self.matrix @ poses @ np.linalg.inv(self.matrix)
        return result

    def scaled(self, factor_y: float, factor_x: float, image_shape: tuple[int, int]) -> Camera:
        """Camera of the same picture resized (pixel edges, not centres, coincide)."""
        cx, cy = self.principal_point
        return Camera(
            self.focal_length * math.sqrt(factor_x * factor_y),
            ((cx + 0.5) * factor_x - 0.5, (cy + 0.5) * factor_y - 0.5),
            image_shape,
        )


def rotation_matrices(rotations: Tensor) -> Tensor:
    r"""Rodrigues' formula, differentiable everywhere, the zero rotation included.

    .. math:: R = I + \mathrm{sinc}(\theta)\,[r]_\times
                  + \tfrac12 \mathrm{sinc}^2(\theta/2)\,[r]_\times^2

    Parameters
    ----------
    rotations : Tensor
        Rotation vectors in radians, shape (..., 3).

    Returns
    -------
    Tensor
        Shape (..., 3, 3).
    """
    import torch

    x, y, z = rotations.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1)
    cross = cross.reshape(*rotations.shape[:-1], 3, 3)
    # torch.sinc(u) is sin(pi u) / (pi u); the norm is kept off zero for its gradient.
    square = rotations.square().sum(-1)
    angle = torch.where(square > 0, square, torch.ones_like(square)).sqrt()
    angle = torch.where(square > 0, angle, torch.zeros_like(angle)) / torch.pi
    first = torch.sinc(angle)[..., None, None]
    second = 0.5 * torch.sinc(angle / 2).square()[..., None, None]
    eye = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    return eye + first * cross + second * (cross @ cross)


def inverse_homographies(
    rotations: Tensor, focal_length: Tensor | float, principal_point: tuple[float, float]
) -> Tensor:
    """``H_j^-1 = K R_j^T K^-1``, differentiable in the rotations and the focal length.

    Parameters
    ----------
    rotations : Tensor
        Shape (..., 3), radians.
    focal_length : Tensor or float
        Pixels; a scalar.
    principal_point : tuple of float
        ``(cx, cy)`` in pixels.

    Returns
    -------
    Tensor
        Shape (..., 3, 3).
    """
    import torch

    f = torch.as_tensor(focal_length, dtype=rotations.dtype, device=rotations.device)
    cx, cy = principal_point
    zero, one = torch.zeros_like(f), torch.ones_like(f)
    matrix = torch.stack([f, zero, cx * one, zero, f, cy * one, zero, zero, one]).reshape(3, 3)
    inverse = torch.stack([1 / f, zero, -cx / f, zero, 1 / f, -cy / f, zero, zero, one]).reshape(
        3, 3
    )
    return matrix @ rotation_matrices(rotations).transpose(-1, -2) @ inverse
