"""The network from kernels to curves, and the kernels it learns from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_blur2seq import Trajectory, shake
from napari_blur2seq.camera import Camera
from napari_blur2seq.estimate.curve import to_trajectory
from napari_blur2seq.estimate.kernel_network import (
    COEFFICIENTS,
    HYPOTHESES,
    RASTER,
    KernelNetwork,
    network_curves,
    rasterise,
)
from napari_blur2seq.metrics import path_error
from napari_blur2seq.models import registry
from napari_blur2seq.motion_blur import local_kernels
from napari_blur2seq.training import kernels
from napari_blur2seq.training.kernels import KernelTask, synthesise
from napari_blur2seq.training.motions import Motions, divided, extents
from napari_blur2seq.training.paths import path_distances, predicted_paths

shipped = pytest.mark.skipif(
    not registry.available("kernels"), reason="these weights are not shipped"
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def motions() -> Motions:
    return Motions()


def test_rasters_keep_mass_and_place() -> None:
    points = 6 * torch.rand(3, 40, 2, generator=generator()) - 3
    weights = torch.rand(3, 40, generator=generator(1))
    scale = torch.tensor([0.5, 1.0, 2.0])
    rasters = rasterise(points, weights, scale)
    assert torch.allclose(rasters.sum((1, 2)), weights.sum(1))
    cell = torch.arange(RASTER) - (RASTER - 1) / 2
    for k in range(3):
        x = (rasters[k].sum(0) * cell).sum() * scale[k] / weights[k].sum()
        assert x == pytest.approx(float((points[k, :, 0] * weights[k]).sum() / weights[k].sum()))
    outside = rasterise(torch.tensor([[[99.0, 0.0]]]), torch.ones(1, 1), torch.ones(1))
    assert outside.sum() == 0


@pytest.mark.parametrize("regions", [1, 3])
def test_rendered_kernels_are_those_of_the_motion(motions: Motions, regions: int) -> None:
    batch = synthesise(motions, 60, generator(), regions=regions)
    assert batch.kernels.shape == (60, regions**2, RASTER, RASTER)
    assert batch.known.any(1).all()
    masses = batch.kernels.sum((2, 3))
    assert torch.allclose(masses, batch.known.float(), atol=1e-5)
    assert batch.paths.mean(1).abs().max() < 0.2 * extents(batch.paths).max()
    assert extents(batch.paths).max() < 101
    assert (batch.scale >= 1).all()
    # A kernel is about as wide as the path, halo and all.
    cell = torch.arange(RASTER) - (RASTER - 1) / 2
    if regions == 1:
        kernel = batch.kernels[:, 0]
        mean = (kernel.sum(1) * cell).sum(1, keepdim=True)
        spread = ((kernel.sum(1) * (cell - mean) ** 2).sum(1)).sqrt() * batch.scale
        true = batch.paths[:, :, 0, 0].std(1)
        assert np.corrcoef(spread, true)[0, 1] > 0.8


def test_kernels_at_their_true_size_have_a_pixel_a_cell(motions: Motions) -> None:
    batch = synthesise(motions, 4, generator(), regions=1, side=151, true_size=True)
    assert batch.kernels.shape == (4, 1, 151, 151)
    assert torch.equal(batch.scale, torch.ones(4))


def test_distances_are_free_of_order_and_direction() -> None:
    truth = torch.randn(2, 16, 3, 2, generator=generator())
    truth = truth - truth.mean(1, keepdim=True)
    other = torch.stack([truth, truth.flip(1), truth[:, torch.randperm(16)]], 1)
    free, ordered = path_distances(other, truth, generator())
    assert free.max() < 0.02
    assert ordered[:, :2].max() < 0.02
    assert ordered[:, 2].min() > 0.5
    at_rest, _ = path_distances(torch.zeros_like(other), truth, generator())
    exact = truth.square().sum(-1).mean((1, 2)).sqrt()
    assert torch.allclose(at_rest, exact[:, None].expand(-1, 3), rtol=0.15)


def test_curves_move_points_as_trajectories_do(motions: Motions) -> None:
    batch = synthesise(motions, 1, generator(), regions=2)
    curves = torch.randn(1, 2, 5, 3, generator=generator())
    pixels = curves * batch.scale[:, None, None, None]
    paths = predicted_paths(pixels, batch.points, batch.focal_length, 24)
    f = float(batch.focal_length)
    camera = Camera(f, (0.0, 0.0), (1, 1))
    expected = to_trajectory(curves[0, 1] * batch.scale, camera, 24).paths(batch.points[0] * f)
    expected = expected - expected.mean(0)
    assert np.allclose(paths[0, 1].numpy(), expected, atol=0.02 * np.abs(expected).max())


def test_the_network_learns_from_one_kernel_and_from_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = KernelTask(batch=16)
    network = task.network()
    assert isinstance(network, KernelNetwork)
    assert sum(p.numel() for p in network.parameters()) < 2_000_000
    task.begin((0, 0), torch.device("cpu"))
    for share_of_single in (1.0, 0.0):
        monkeypatch.setattr(kernels, "_SINGLE", share_of_single)
        task.loss(network, 0.5).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_unknown_regions_have_no_say(motions: Motions) -> None:
    network = KernelNetwork().eval()
    batch = synthesise(motions, 2, generator(), regions=2)
    known = torch.tensor([[True, True, False, False]] * 2)
    other = batch.kernels.clone()
    other[:, 2:] = torch.rand(2, 2, RASTER, RASTER, generator=generator())
    with torch.no_grad():
        one, _ = network(batch.kernels, batch.rays, batch.scale, known)
        two, _ = network(other, batch.rays, batch.scale, known)
    assert torch.allclose(one, two, atol=1e-4)
    assert one.shape == (2, HYPOTHESES, COEFFICIENTS, 3)


def test_the_end_of_a_recording_is_kept_apart() -> None:
    log = shake.simulate_gyroscope(5.0)
    (used,), (held,) = divided([log])
    assert used.times[-1] < held.times[0]
    assert held.times[-1] - held.times[0] == pytest.approx(1.0, abs=0.01)


@shipped
@pytest.mark.parametrize("seed", range(3))
def test_the_shipped_network_reads_a_kernel(seed: int) -> None:
    truth = shake.simulate_tremor((100, 100), focal_length=1e4, roll_ratio=0, extent=18, seed=seed)
    kernel = torch.from_numpy(local_kernels(truth.resample(200), [[50, 50]])[0])
    kernel = torch.where(kernel < 0.05 * kernel.max(), 0.0, kernel)
    curve = network_curves([kernel])[0][0]
    assert curve.shape == (COEFFICIENTS, 3)
    assert curve[:, 2].abs().max() == 0  # one kernel says nothing about roll
    at_rest = Trajectory.zero((100, 100), focal_length=1e4)
    error = path_error(truth, to_trajectory(curve, truth.camera, 64))
    assert error < 0.4 * path_error(truth, at_rest)


@shipped
def test_the_shipped_network_reads_many_regions() -> None:
    shape = (400, 600)
    truth = shake.simulate_tremor(shape, roll_ratio=3.0, extent=16.0, seed=4)
    points = np.array([[x, y] for y in (67, 200, 333) for x in (100, 300, 500)])
    local = [torch.from_numpy(k) for k in local_kernels(truth.resample(100), points)]
    camera = truth.camera
    rays = torch.from_numpy((points - camera.principal_point) / camera.focal_length)
    curves, expected = network_curves(local, rays)
    assert curves.shape == (HYPOTHESES, COEFFICIENTS, 3)
    assert (expected.diff() >= 0).all()
    found = to_trajectory(curves[0], camera, 64)
    at_rest = path_error(truth, Trajectory.zero(shape))
    assert curves[0, :, 2].abs().max() > 0  # many kernels tell of roll
    assert path_error(truth, found) < 0.8 * at_rest
