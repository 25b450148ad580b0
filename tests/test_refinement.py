"""Refinement: the climb from a trajectory that is nearly right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.data import coffee

import napari_blur2seq as b2s
from napari_blur2seq.estimate.refinement import Objective, refine_steps
from napari_blur2seq.estimate.view import View
from napari_blur2seq.metrics import aligned_scores, path_error
from napari_blur2seq.progress import run

SHARP = coffee()[120:280, 180:340]
TRUE = b2s.shake.simulate_tremor(SHARP.shape, extent=8.0, seed=4, focal_length=320.0)
BLURRY = b2s.blur(SHARP, TRUE, noise=0.005)
IMAGE = torch.from_numpy(BLURRY).permute(2, 0, 1) / 255.0


def disturbed(trajectory: b2s.Trajectory, px: float, seed: int = 0) -> b2s.Trajectory:
    """Two slow waves more of pitch and yaw, so that points are about `px` off."""
    generator = np.random.default_rng(seed)
    time = (np.arange(len(trajectory)) + 0.5) / len(trajectory)
    waves = np.cos(np.pi * time[:, None] * [1, 2]) @ generator.standard_normal((2, 3))
    waves *= [1, 1, 0]
    waves *= px / np.sqrt(np.square(waves).sum(1).mean()) / trajectory.focal_length
    return b2s.Trajectory.from_camera(trajectory.rotations + waves, trajectory.camera).centered()


@pytest.fixture(scope="module")
def refined() -> tuple[b2s.Trajectory, b2s.Trajectory]:
    start = disturbed(TRUE, 0.8)
    return start, b2s.refine(BLURRY, start)


def test_the_result_is_nearer_to_the_truth(refined):
    start, result = refined
    assert path_error(result, TRUE) < 0.9 * path_error(start, TRUE)


def test_the_picture_gains_by_it(refined):
    before, after = (
        aligned_scores(b2s.restore(BLURRY, t, prior="sparse") / 255, SHARP / 255).psnr
        for t in refined
    )
    assert after > before + 1


def test_the_trajectory_keeps_its_form(refined):
    start, result = refined
    assert len(result) == len(start)
    assert result.camera == start.camera
    np.testing.assert_allclose(result.times, start.times)
    np.testing.assert_allclose(result.centered().rotations, result.rotations, atol=1e-9)


@torch.no_grad()
def test_the_truth_is_hardly_left():
    result = run(refine_steps(IMAGE, TRUE, steps=10)).trajectory
    assert path_error(result, TRUE) < 0.3


def test_gradient_is_that_of_finite_differences():
    # About: the prior's thresholds, where the objective has no slope, are passed over.
    view = View.of(IMAGE, TRUE.camera, 10**6)
    objective = Objective(view, 8.0, 64)
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(16, 3, generator=generator) / torch.arange(1, 17)[:, None] ** 2
    direction = torch.randn(16, 3, generator=generator)
    rest = torch.zeros(64, 3)
    values.requires_grad_(True)
    (gradient,) = torch.autograd.grad(objective(values, rest)[0], values)
    step = 2e-3
    with torch.no_grad():
        ahead, behind = (
            float(objective(values + sign * step * direction, rest)[0]) for sign in (1, -1)
        )
    slope = (ahead - behind) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=0.4)


@torch.no_grad()
def test_every_step_that_is_kept_is_higher_than_the_last():
    events = []
    refinement = run(refine_steps(IMAGE, disturbed(TRUE, 0.7), steps=6), events.append)
    assert len(refinement.objective) > 1
    assert (np.diff(refinement.objective) > 0).all()
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert {event.stage for event in events} == {"refine"}


def test_a_picture_that_says_nothing_hardly_moves_the_trajectory():
    noise = np.random.default_rng(0).integers(100, 103, (48, 40)).astype(np.uint8)
    start = b2s.shake.simulate_tremor(noise.shape, extent=4.0, seed=1)
    result = b2s.refine(noise, start)
    assert path_error(result, start) < 0.5


@torch.no_grad()
def test_the_same_again():
    start = disturbed(TRUE, 0.7)
    first, second = (run(refine_steps(IMAGE, start, steps=3)) for _ in range(2))
    assert first == second


def test_another_pictures_trajectory_is_refused():
    with pytest.raises(b2s.TrajectoryError, match="belongs to an image of"):
        b2s.refine(BLURRY[:100], TRUE)


def test_deblur_tells_what_refinement_did():
    small = BLURRY[:80, :80]
    without = b2s.deblur(small, refine=False)
    assert "refinement" not in without.metadata
    result = b2s.deblur(small)
    if np.any(result.trajectory.rotations):
        heights = result.metadata["refinement"]["objective_db"]
        assert heights == sorted(heights)
    else:
        assert "refinement" not in result.metadata
