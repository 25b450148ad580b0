"""Refinement: the climb from a trajectory that is nearly right."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.data import coffee

import napari_blur2seq as b2s
from napari_blur2seq.estimate import budget, refinement, roll_search
from napari_blur2seq.estimate.refinement import Objective, Refinement, refine_steps
from napari_blur2seq.estimate.view import View
from napari_blur2seq.metrics import aligned_scores, path_error
from napari_blur2seq.pipeline import Options, deblur_steps
from napari_blur2seq.progress import Climbed, Progress, finish, run

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
def test_a_kernel_sought_again_finds_what_no_climb_reaches(monkeypatch):
    """The camera rolls about a point beside the picture."""
    monkeypatch.setattr(roll_search, "_IMPROVING", ((1.0, 1), (0.75, 2)))
    sharp = coffee()[100:280, 180:400]
    flat = b2s.shake.simulate_tremor(
        sharp.shape, extent=10.0, roll_ratio=0.0, seed=4, focal_length=220.0
    )
    pitch, yaw, _ = flat.rotations.T
    rolling = np.stack([pitch, yaw, 0.7 * yaw + 0.5 * pitch], 1)
    true = b2s.Trajectory.from_camera(rolling, flat.camera).centered()
    image = torch.from_numpy(b2s.blur(sharp, true, noise=0.004)).permute(2, 0, 1) / 255.0
    start = disturbed(true, 2.0)
    sought = run(refine_steps(image, start, steps=1))
    found, scores = sought.trajectory, sought.kernel_scores
    assert len(scores) > 1 and scores == sorted(scores)
    monkeypatch.setattr(refinement, "_MOST_IMPROVEMENTS", 0)
    without = run(refine_steps(image, start, steps=1)).trajectory
    assert path_error(found, true) < 0.6 * path_error(start, true)
    assert path_error(found, true) < 0.7 * path_error(without, true)


def test_stopped_while_a_kernel_is_sought_it_keeps_the_start():
    stop, start = threading.Event(), disturbed(TRUE, 0.8)

    def watch(event: Progress) -> None:
        if "roll" in event.message:
            stop.set()

    assert b2s.refine(BLURRY, start, progress=watch, stop=stop) == start
    assert stop.is_set()


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
    rest = torch.zeros(64, 3)
    for _ in range(40):  # the sharp picture's power spectrum is estimated further in each
        _, gradient, moved = finish(objective.parts(values, rest))
    first = moved + 0.5  # a place to be gone from at a price
    _, gradient, _ = finish(objective.parts(values, rest, first))
    direction = gradient / gradient.norm()
    step = 2e-3
    ahead, behind = (
        finish(objective.parts(values + sign * step * direction, rest, first))[0]
        for sign in (1, -1)
    )
    slope = (ahead - behind) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=0.4)


@torch.no_grad()
def test_every_step_that_is_kept_is_higher_than_the_last(monkeypatch):
    monkeypatch.setattr(refinement, "_MOST_IMPROVEMENTS", 0)
    events = []
    result = run(refine_steps(IMAGE, disturbed(TRUE, 0.7), steps=6), events.append)
    assert len(result.objective) > 1
    assert (np.diff(result.objective) > 0).all()
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert {event.stage for event in events} == {"refine"}


def test_a_picture_that_says_nothing_hardly_moves_the_trajectory():
    noise = np.random.default_rng(0).integers(100, 103, (48, 40)).astype(np.uint8)
    start = b2s.shake.simulate_tremor(noise.shape, extent=4.0, seed=1)
    result = b2s.refine(noise, start)
    assert path_error(result, start) < 0.5


@torch.no_grad()
def test_the_same_again(monkeypatch):
    monkeypatch.setattr(roll_search, "_IMPROVING", ((1.0, 1), (0.75, 2)))
    start = disturbed(TRUE, 0.7)
    first, second = (run(refine_steps(IMAGE, start, steps=3)) for _ in range(2))
    assert first == second


# What ends it, and what it tells meanwhile


def climbed(steps) -> tuple[Refinement, list[Climbed]]:
    events: list[Progress] = []
    with torch.no_grad():
        result = run(steps, events.append)
    return result, [event for event in events if isinstance(event, Climbed)]


@pytest.fixture(scope="module")
def small() -> tuple[torch.Tensor, b2s.Trajectory]:
    """A picture that takes little time, and a motion that is nearly right."""
    motion = b2s.shake.simulate_tremor((80, 80), extent=5.0, seed=4, n_poses=9)
    shaken = b2s.blur(np.ascontiguousarray(SHARP[:80, :80]), motion)
    return torch.from_numpy(shaken).permute(2, 0, 1) / 255.0, motion.scaled(0.7)


def test_events_hold_the_best_so_far(small):
    result, events = climbed(refine_steps(*small, steps=4))
    assert len(events) == 5  # the start, too
    assert events[0].trajectory == small[1]
    bests = [event.best for event in events]
    assert bests == np.maximum.accumulate([event.objective for event in events]).tolist()
    assert sorted(set(bests)) == result.objective
    assert events[-1].trajectory == result.trajectory
    assert all(event.preview is None for event in events)


def test_climbs_follow_each_other_until_the_steps_are_used_up(small, monkeypatch):
    monkeypatch.setattr(refinement, "_CLIMB", 3)
    monkeypatch.setattr(refinement, "_WORTH_MORE", 0.0)
    _, events = climbed(refine_steps(*small, steps=4))
    told = [event.message.split(":")[0] for event in events]
    assert told == [*(f"Step {k} of 3" for k in range(4)), "Step 0 of 1", "Step 1 of 1"]


def test_a_climb_that_stalls_ends(monkeypatch):
    monkeypatch.setattr(refinement, "_LEAST_RISE", 1.0)  # dB in ten steps
    noise = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.01 + 0.5
    start = b2s.shake.simulate_tremor((64, 64), extent=3.0, seed=1)
    _, events = climbed(refine_steps(noise, start))
    assert 10 <= len(events) < 31


def test_seconds_end_it(small):
    result, events = climbed(refine_steps(*small, seconds=1e-9))
    assert len(events) == 1 and result.trajectory == small[1]
    with_time, without = (climbed(refine_steps(*small, steps=2, seconds=s))[0] for s in (1e9, None))
    assert with_time == without


def test_pauses_of_the_caller_cost_no_seconds():
    spending = budget.Budget(steps=1, seconds=10.0)

    def steps():
        yield Progress("refine", 0.0, "")
        yield Progress("refine", 1.0, "")

    counted = spending.counting(steps())
    next(counted)
    before = spending.spent
    for _ in range(1000):  # the caller's own work
        pass
    assert spending.spent == before
    next(counted)
    assert spending.spent > before and not spending.over


def test_stopped_it_keeps_the_best_so_far(small):
    stop, seen = threading.Event(), []

    def watch(event: Progress) -> None:
        if isinstance(event, Climbed):
            seen.append(event)
            if len(seen) == 3:
                stop.set()

    image = (small[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    result = b2s.refine(image, small[1], progress=watch, stop=stop)
    assert len(seen) == 3
    assert result == seen[-1].trajectory != small[1]


def test_the_best_of_several_starts_is_followed(monkeypatch):
    # From both, the search for kernels would find the truth.
    monkeypatch.setattr(refinement, "_MOST_IMPROVEMENTS", 0)
    far = b2s.shake.simulate_tremor(SHARP.shape, extent=8.0, seed=9, focal_length=320.0)
    result, events = climbed(refine_steps(IMAGE, [far.resample(9), disturbed(TRUE, 0.5)], steps=2))
    assert result.start == 1 and len(result.trajectory) == len(TRUE)
    assert path_error(result.trajectory, TRUE) < 0.6 < path_error(far, TRUE)
    assert result.spread is not None and result.spread > 0.6
    # Each is climbed from.
    assert len([event for event in events if "Step 0" in event.message]) == 2
    with pytest.raises(b2s.TrajectoryError, match="at least one"):
        b2s.refine(BLURRY, [])


def test_a_focal_length_that_is_far_off_is_found(monkeypatch):
    monkeypatch.setattr(refinement, "_MOST_IMPROVEMENTS", 0)
    sharp = np.ascontiguousarray(coffee()[60:300, 150:450])
    wide = b2s.shake.simulate_tremor(sharp.shape, extent=16.0, seed=3, focal_length=150.0)
    image = torch.from_numpy(b2s.blur(sharp, wide, noise=0.003)).permute(2, 0, 1) / 255.0
    # The same shifts in the middle, through a lens twice as long.
    long = b2s.Camera.for_image(sharp.shape[:2], 300.0)
    start = b2s.Trajectory.from_camera(wide.rotations / [2, 2, 1], long)
    kept, _ = climbed(refine_steps(image, start, steps=1))
    assert kept.trajectory.focal_length == 300
    fitted, _ = climbed(refine_steps(image, start, steps=1, fit_focal_length=True))
    assert fitted.trajectory.focal_length == 150
    assert path_error(fitted.trajectory, wide) < 0.2 < 0.8 < path_error(start, wide)
    again, _ = climbed(refine_steps(image, wide, steps=1, fit_focal_length=True))
    assert again.trajectory.focal_length == 150


def test_deblur_starts_from_trajectories_instead_of_an_estimate():
    small, start = BLURRY[:96, :96], b2s.shake.simulate_tremor((96, 96), extent=5.0, n_poses=6)
    options = Options(n_poses=6, steps=2, prior="sparse")
    events: list[Progress] = []
    result = run(deblur_steps(small, options, [start]), events.append)
    assert {event.stage for event in events} == {"estimate", "refine", "restore", "sequence"}
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    refined = b2s.refine(small, start, steps=2)
    np.testing.assert_allclose(result.trajectory.rotations, refined.rotations, atol=1e-12)
    previews = [e.preview for e in events if e.stage == "refine" and e.preview is not None]
    assert previews and all(p.shape == small.shape and p.dtype == np.uint8 for p in previews)
    plain = run(deblur_steps(small, replace(options, refine=False), [start]))
    np.testing.assert_allclose(plain.trajectory.rotations, start.centered().rotations, atol=1e-9)
    assert "refinement" not in plain.metadata
    with pytest.raises(b2s.TrajectoryError, match="belongs to an image of"):
        run(deblur_steps(BLURRY, options, [start]))


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
