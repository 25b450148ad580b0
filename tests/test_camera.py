"""Intrinsics, rotations, homographies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_blur2seq.camera import Camera, inverse_homographies, rotation_matrices
from napari_blur2seq.errors import CameraError

angles = st.floats(-3, 3, allow_nan=False)


def test_defaults_are_the_longer_side_and_the_middle() -> None:
    camera = Camera.for_image((300, 400))
    assert camera.focal_length == 400
    assert camera.principal_point == (200, 150)
    assert Camera.for_image((500, 400)).focal_length == 500


def test_film_equivalent_has_the_angle_of_view_of_the_diagonal() -> None:
    camera = Camera.from_film_equivalent((3000, 4000), 50)
    half = math.atan(2500 / camera.focal_length)
    assert half == pytest.approx(math.atan(math.hypot(36, 24) / 2 / 50))


def test_homographies_follow_the_formula() -> None:
    camera = Camera(320.0, (101.0, 77.0), (150, 200))
    vectors = np.random.default_rng(0).normal(0, 0.2, (5, 3))
    intrinsics = np.array([[320, 0, 101], [0, 320, 77], [0, 0, 1.0]])
    for vector, homography in zip(vectors, camera.homographies(vectors), strict=True):
        rotation = Rotation.from_rotvec(vector).as_matrix()
        np.testing.assert_allclose(
            homography, intrinsics @ rotation @ np.linalg.inv(intrinsics), atol=1e-9
        )


@pytest.mark.parametrize(
    ("rotation", "direction"),
    [
        ((0.01, 0, 0), (0, -1)),  # pitch about x (right): y (down) turns to z, the point rises
        ((0, 0.01, 0), (1, 0)),  # yaw about y (down): the point goes right
        ((0, 0, 0.01), (0, 0)),  # roll: the middle stays
    ],
)
def test_signs_of_the_axes(rotation: tuple[float, ...], direction: tuple[float, float]) -> None:
    camera = Camera(500.0, (100.0, 80.0), (160, 200))
    moved = camera.homographies([rotation])[0] @ [100, 80, 1]
    moved = moved[:2] / moved[2] - (100, 80)
    np.testing.assert_allclose(moved, 500 * math.tan(0.01) * np.array(direction), atol=1e-9)


def test_positive_roll_turns_right_to_down() -> None:
    camera = Camera(500.0, (100.0, 80.0), (160, 200))
    moved = camera.homographies([(0, 0, math.pi / 2)])[0] @ [150, 80, 1]
    np.testing.assert_allclose(moved[:2] / moved[2], (100, 130), atol=1e-9)


@given(st.tuples(angles, angles, angles))
def test_torch_rotations_equal_scipys(vector: tuple[float, float, float]) -> None:
    ours = rotation_matrices(torch.tensor(vector, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(ours, Rotation.from_rotvec(vector).as_matrix(), atol=1e-12)


def test_rotation_gradient_is_right_at_and_near_zero() -> None:
    vectors = torch.tensor([[0.0, 0, 0], [1e-9, 0, 0], [0.1, -0.2, 0.3]], dtype=torch.float64)
    assert torch.autograd.gradcheck(rotation_matrices, vectors.requires_grad_())


def test_inverse_homographies_invert() -> None:
    vectors = np.random.default_rng(1).normal(0, 0.3, (4, 3))
    camera = Camera(250.0, (60.0, 45.0), (90, 120))
    inverse = inverse_homographies(torch.tensor(vectors), 250.0, (60.0, 45.0)).numpy()
    product = inverse @ camera.homographies(vectors)
    np.testing.assert_allclose(product, np.tile(np.eye(3), (4, 1, 1)), atol=1e-9)


def test_scaled_camera_sees_the_same_motion() -> None:
    camera = Camera(400.0, (199.5, 149.5), (300, 400))
    half = camera.scaled(0.5, 0.5, (150, 200))
    rotation = [(0.01, -0.02, 0.03)]
    point = np.array([300.0, 40.0])
    small = (point + 0.5) / 2 - 0.5

    def displacement(c: Camera, x: np.ndarray) -> np.ndarray:
        moved = c.homographies(rotation)[0] @ [*x, 1]
        return moved[:2] / moved[2] - x

    np.testing.assert_allclose(displacement(half, small), displacement(camera, point) / 2)


@pytest.mark.parametrize(
    ("focal_length", "point", "shape"),
    [
        (0.0, (1.0, 1.0), (10, 10)),
        (-5.0, (1.0, 1.0), (10, 10)),
        (math.nan, (1.0, 1.0), (10, 10)),
        (math.inf, (1.0, 1.0), (10, 10)),
        ("long", (1.0, 1.0), (10, 10)),
        (5.0, (math.nan, 1.0), (10, 10)),
        (5.0, (1.0, 2.0, 3.0), (10, 10)),
        (5.0, (1.0, 1.0), (0, 10)),
        (5.0, (1.0, 1.0), (10,)),
    ],
)
def test_bad_intrinsics(focal_length: object, point: object, shape: object) -> None:
    with pytest.raises(CameraError):
        Camera(focal_length, point, shape)  # type: ignore[arg-type]
