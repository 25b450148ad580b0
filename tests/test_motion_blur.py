"""The projective motion blur operator, against the formula and its own properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from napari_blur2seq import motion_blur
from napari_blur2seq.motion_blur import MotionBlur, local_kernels, projective_blur
from napari_blur2seq.progress import finish
from napari_blur2seq.trajectory import Trajectory


def shaken(
    shape: tuple[int, int], n: int = 7, size: float = 0.1, seed: int = 0, focal: float = 50.0
) -> Trajectory:
    """Poses that reach far over the border of a small image."""
    rotations = np.random.default_rng(seed).normal(0, size, (n, 3))
    return Trajectory(rotations, focal, (shape[1] / 2, shape[0] / 2), shape)


def by_the_formula(image: np.ndarray, trajectory: Trajectory) -> np.ndarray:
    """Mean of u(H_j^-1 x), bilinear, reflected about the border pixel, in float64."""
    height, width = image.shape
    y, x = np.mgrid[:height, :width]
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    result = np.zeros(image.shape)
    for homography in trajectory.homographies:
        sx, sy, depth = np.linalg.inv(homography) @ points
        result += map_coordinates(image, [sy / depth, sx / depth], order=1, mode="mirror").reshape(
            image.shape
        )
    return result / len(trajectory)


@pytest.mark.parametrize("shape", [(33, 48), (48, 33), (1, 20), (64, 2)])
@pytest.mark.parametrize("size", [0.01, 0.15])
def test_forward_is_the_formula(shape: tuple[int, int], size: float) -> None:
    trajectory = shaken(shape, size=size)
    image = np.random.default_rng(1).random(shape)
    expected = by_the_formula(image, trajectory) if min(shape) > 1 else None
    operator = MotionBlur(trajectory, dtype=torch.float64)
    out = operator(torch.from_numpy(image)[None, None])[0, 0].numpy()
    if expected is None:  # one row: there is nothing to reflect about, but also nothing to break
        assert np.isfinite(out).all()
    else:
        np.testing.assert_allclose(out, expected, atol=1e-10)


def test_kept_positions_blur_alike() -> None:
    """The second time, those of the first are taken, for other pictures, too."""
    operator = MotionBlur(shaken((40, 50)))
    for seed in (0, 1):
        image = torch.rand(1, 3, 40, 50, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(finish(operator.parts(image)), operator(image))


def test_the_picture_moves_where_the_point_goes() -> None:
    trajectory = Trajectory([[0.0, 0.1, 0.0]], 50.0, (20.0, 16.0), (33, 41))
    image = torch.zeros(1, 1, 33, 41)
    image[0, 0, 16, 20] = 1
    moved = trajectory.paths([[20, 16]])[0, 0]
    assert moved[0] == pytest.approx(50 * np.tan(0.1))
    out = MotionBlur(trajectory)(image)[0, 0]
    column = int((out.sum(0) @ torch.arange(41.0) / out.sum()).round())
    assert column == round(20 + moved[0])


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(2, 40),
    width=st.integers(2, 40),
    channels=st.integers(1, 3),
    poses=st.integers(1, 9),
    size=st.floats(0, 0.25),
    seed=st.integers(0, 1000),
    double=st.booleans(),
)
def test_adjoint(
    height: int, width: int, channels: int, poses: int, size: float, seed: int, double: bool
) -> None:
    dtype = torch.float64 if double else torch.float32
    operator = MotionBlur(shaken((height, width), poses, size, seed), dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2, channels, height, width, generator=generator, dtype=dtype)
    y = torch.rand(2, channels, height, width, generator=generator, dtype=dtype)
    left = (operator(x) * y).double().sum().item()
    right = (x * operator.adjoint(y)).double().sum().item()
    assert left == pytest.approx(right, rel=1e-12 if double else 1e-5)


def test_adjoint_is_the_transposed_matrix() -> None:
    shape = (6, 7)
    operator = MotionBlur(shaken(shape, size=0.05), dtype=torch.float64)
    deltas = torch.eye(42, dtype=torch.float64).reshape(42, 1, *shape)
    forward = operator(deltas).reshape(42, 42)
    backward = operator.adjoint(deltas).reshape(42, 42)
    assert torch.allclose(backward, forward.T, atol=1e-14)
    assert not torch.allclose(backward, forward, atol=1e-3)  # no symmetric operator by chance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mean_of_the_frames_is_the_blurry_image(dtype: torch.dtype) -> None:
    operator = MotionBlur(shaken((30, 45)), dtype=dtype)
    image = torch.rand(2, 3, 30, 45, dtype=dtype)
    frames = operator.frames(image)
    assert frames.shape == (7, 2, 3, 30, 45)
    assert (frames.mean(0) - operator(image)).abs().max() < 1e-6
    for j in (0, 3, 6, -1, -7):
        assert torch.equal(operator.frame(image, j), frames[j])


def test_poses_that_stand_for_more_of_the_time() -> None:
    """A pose of two thirds of the exposure is one that comes twice."""
    twice = shaken((30, 45), n=3)
    rotations = twice.rotations.copy()
    rotations[1] = rotations[0]
    twice = Trajectory.from_camera(rotations, twice.camera)
    once = Trajectory.from_camera(rotations[1:], twice.camera)
    expected = MotionBlur(twice, dtype=torch.float64)
    operator = MotionBlur(once, dtype=torch.float64, weights=torch.tensor([2.0, 1.0]) / 3)
    image = torch.rand(2, 3, 30, 45, dtype=torch.float64)
    for method in ("__call__", "adjoint"):
        of_three, of_two = (getattr(o, method)(image) for o in (expected, operator))
        assert torch.allclose(of_two, of_three, atol=1e-7)


def test_a_camera_at_rest_changes_nothing() -> None:
    image = torch.rand(2, 3, 37, 52)
    operator = MotionBlur(Trajectory.zero((37, 52)))
    assert torch.allclose(operator(image), image, atol=1e-5)
    assert torch.allclose(operator.adjoint(image), image, atol=1e-5)
    exact = MotionBlur(Trajectory.zero((37, 52)), dtype=torch.float64)
    assert torch.allclose(exact(image.double()), image.double(), atol=1e-12)


def test_a_constant_image_stays() -> None:
    image = torch.full((1, 1, 30, 45), 0.7)
    assert torch.allclose(MotionBlur(shaken((30, 45), size=0.2))(image), image, atol=1e-6)


def test_channels_and_batches_are_independent() -> None:
    operator = MotionBlur(shaken((30, 45)))
    image = torch.rand(2, 3, 30, 45)
    together, back = operator(image), operator.adjoint(image)
    for b in range(2):
        for c in range(3):
            one = image[b : b + 1, c : c + 1]
            assert torch.allclose(operator(one)[0, 0], together[b, c], atol=1e-6)
            assert torch.allclose(operator.adjoint(one)[0, 0], back[b, c], atol=1e-6)


def test_bands_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = MotionBlur(shaken((61, 45), n=5), dtype=torch.float64)
    image = torch.rand(2, 3, 61, 45, dtype=torch.float64)
    whole, back = operator(image), operator.adjoint(image)
    for chunk in (1, 500, 1234):
        monkeypatch.setattr(motion_blur, "_CHUNK_CPU", chunk)
        assert torch.allclose(operator(image), whole, atol=1e-13)
        assert torch.allclose(operator.adjoint(image), back, atol=1e-13)


def test_wrong_shapes_are_refused() -> None:
    operator = MotionBlur(Trajectory.zero((30, 45)))
    for image in (torch.rand(1, 1, 45, 30), torch.rand(30, 45)):
        with pytest.raises(ValueError, match="shape"):
            operator(image)
        with pytest.raises(ValueError, match="shape"):
            operator.adjoint(image)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    trajectory = shaken((61, 45), n=25)
    image = torch.rand(2, 3, 61, 45, dtype=torch.float64)
    here = MotionBlur(trajectory, dtype=torch.float64)
    there = MotionBlur(trajectory, "cuda", torch.float64)
    assert torch.allclose(there(image.cuda()).cpu(), here(image), atol=1e-12)
    assert torch.allclose(there.adjoint(image.cuda()).cpu(), here.adjoint(image), atol=1e-12)
    gradients = []
    for device in ("cpu", "cuda"):
        rotations = torch.tensor(trajectory.rotations, device=device).requires_grad_()
        out = projective_blur(image.to(device), rotations, 50.0, (22.5, 30.5))
        (gradient,) = torch.autograd.grad(out.square().sum(), rotations)
        gradients.append(gradient.cpu())
    assert torch.allclose(*gradients, rtol=1e-9)


# Gradients


def test_gradients_by_finite_differences() -> None:
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(2, 2, 7, 9, generator=generator, dtype=torch.float64)
    rotations = 0.05 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
    focal = torch.tensor(11.0, dtype=torch.float64)

    def blur(u: torch.Tensor, r: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        return projective_blur(u, r, f, (4.5, 3.5))

    inputs = [v.requires_grad_() for v in (image, rotations, focal)]
    assert torch.autograd.gradcheck(blur, inputs, eps=1e-7, atol=1e-6)


def test_gradient_of_the_poses_over_several_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.rand(1, 3, 20, 31, dtype=torch.float64)
    target = torch.rand(1, 3, 20, 31, dtype=torch.float64)

    def gradients() -> list[torch.Tensor]:
        rotations = torch.tensor(shaken((20, 31)).rotations).requires_grad_()
        focal = torch.tensor(40.0, dtype=torch.float64).requires_grad_()
        out = projective_blur(image, rotations, focal, (15.5, 10.0))
        return list(torch.autograd.grad(((out - target) ** 2).sum(), [rotations, focal]))

    whole = gradients()
    monkeypatch.setattr(motion_blur, "_CHUNK_CPU", 64)
    for a, b in zip(whole, gradients(), strict=True):
        assert a.abs().max() > 1e-3
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


def test_function_and_operator_agree() -> None:
    trajectory = shaken((30, 45))
    image = torch.rand(1, 3, 30, 45, dtype=torch.float64).requires_grad_()
    out = projective_blur(
        image,
        torch.tensor(trajectory.rotations),
        trajectory.focal_length,
        trajectory.principal_point,
    )
    operator = MotionBlur(trajectory, dtype=torch.float64)
    assert torch.allclose(out, operator(image.detach()), atol=1e-13)
    above = torch.rand_like(out)
    (gradient,) = torch.autograd.grad(out, image, above)
    assert torch.allclose(gradient, operator.adjoint(above), atol=1e-13)


# Local kernels


@pytest.mark.parametrize("point", [(20, 18), (44, 30), (32, 24)])
def test_local_kernels_are_the_response_to_a_point(point: tuple[int, int]) -> None:
    shape, focal = (49, 65), 2000.0
    generator = np.random.default_rng(5)
    rotations = generator.normal(0, [0.0012, 0.0012, 0.004], (9, 3))
    trajectory = Trajectory(rotations, focal, (32.5, 24.5), shape)
    (kernel,) = local_kernels(trajectory, [point])
    image = torch.zeros(1, 1, *shape, dtype=torch.float64)
    image[0, 0, point[1], point[0]] = 1
    response = MotionBlur(trajectory, dtype=torch.float64)(image)[0, 0].numpy()
    half = kernel.shape[0] // 2
    rows = slice(point[1] - half, point[1] + half + 1)
    columns = slice(point[0] - half, point[0] + half + 1)
    # The response sees the homography change over the kernel, the kernel does not.
    assert np.abs(response[rows, columns] - kernel).max() < 0.05 * kernel.max()
    assert abs(response[rows, columns].sum() - 1) < 0.02


def test_local_kernels_sum_to_one_and_differ_under_roll() -> None:
    trajectory = Trajectory(
        np.stack([np.zeros(9), np.zeros(9), np.linspace(-0.1, 0.1, 9)], 1), 50.0, (32, 24), (49, 65)
    )
    kernels = local_kernels(trajectory, [[32, 24], [60, 24], [32, 46]], size=15)
    assert kernels.shape == (3, 15, 15)
    np.testing.assert_allclose(kernels.sum((1, 2)), 1, rtol=1e-6)
    assert kernels[0, 7, 7] == pytest.approx(1)  # the principal point does not move
    height = [np.flatnonzero(k.sum(1) > 1e-6) for k in kernels]
    width = [np.flatnonzero(k.sum(0) > 1e-6) for k in kernels]
    assert np.ptp(height[1]) > np.ptp(width[1])  # to the right of it, up and down
    assert np.ptp(width[2]) > np.ptp(height[2])  # below it, left and right


def test_local_kernels_in_a_small_box_keep_their_mass() -> None:
    trajectory = shaken((49, 65), size=0.1)
    for size in (1, 3, 5):
        kernels = local_kernels(trajectory, trajectory.grid(), size=size)
        assert kernels.shape == (9, size, size)
        np.testing.assert_allclose(kernels.sum((1, 2)), 1, rtol=1e-6)
