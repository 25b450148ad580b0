"""One kernel for a camera whose roll goes with its path."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.data import coffee

import napari_blur2seq as b2s
from napari_blur2seq import parallel, shake
from napari_blur2seq.estimate import exact, roll_search, rolled, sample
from napari_blur2seq.estimate.curve import to_trajectory
from napari_blur2seq.estimate.exact import exact_verdict_steps
from napari_blur2seq.estimate.hypotheses import exactly_steps
from napari_blur2seq.estimate.kernel_based import estimate_steps
from napari_blur2seq.estimate.kernel_curve import kernel_curve
from napari_blur2seq.estimate.roll_search import (
    Rolling,
    Way,
    coarse_to_fine_steps,
    from_kernels_steps,
)
from napari_blur2seq.estimate.rolled import resized, rolled_kernel, slope_of, with_roll
from napari_blur2seq.estimate.uniform import Start, uniform_kernel
from napari_blur2seq.estimate.view import View
from napari_blur2seq.estimate.whole_kernels import WHOLE_STARTS, kernel_steps
from napari_blur2seq.metrics import path_error
from napari_blur2seq.motion_blur import local_kernels
from napari_blur2seq.progress import finish, run

SHAPE = (240, 300)
SLOPE = torch.tensor([1.35, -1.05])
START = Start(0.5, 2)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def shaken(extent, slope):
    """A motion whose roll goes with its path, a view of the picture, and its uniform kernel."""
    sharp = coffee()[80 : 80 + SHAPE[0], 200 : 200 + SHAPE[1]]
    flat = shake.simulate_tremor(
        SHAPE, extent=extent, roll_ratio=0.0, seed=4, focal_length=SHAPE[1]
    ).resample(64)
    curve = torch.from_numpy(flat.rotations.astype(np.float32))
    motion = b2s.Trajectory.from_camera(with_roll(curve, slope).numpy(), flat.camera).centered()
    blurry = b2s.blur(sharp, motion, noise=0.003)
    image = torch.from_numpy(blurry.astype(np.float32) / 255).permute(2, 0, 1)
    view = View.of(image, flat.camera, 10**6)
    *_, (_, kernel) = uniform_kernel(view.grey, view.mask, START)
    return motion, view, kernel


@pytest.fixture(scope="module")
def rolling():
    return shaken(9.0, SLOPE)


def error(kernel, slope, motion):
    """Of the motion through a kernel, by that of no motion."""
    curve = with_roll(finish(kernel_curve(kernel)), slope)
    still = b2s.Trajectory.zero(motion.image_shape, 2, motion.focal_length)
    found = to_trajectory(curve, motion.camera, 64)
    return path_error(found, motion) / path_error(still, motion)


def test_roll_goes_with_the_displacement_of_the_middle():
    """Yaw moves the picture along +x, pitch along -y."""
    curve = torch.tensor([[1.0, 0.0, 9.0], [0.0, 2.0, 9.0]])
    assert torch.equal(
        with_roll(curve, torch.tensor([3.0, 5.0])),
        torch.tensor([[1.0, 0.0, -5.0], [0.0, 2.0, 6.0]]),
    )


def test_the_slope_of_a_curve_is_told_from_it():
    generator = torch.Generator().manual_seed(0)
    curve = with_roll(torch.randn(6, 3, generator=generator), SLOPE)
    torch.testing.assert_close(slope_of(curve), SLOPE)
    # Along a line, the slope across it means nothing.
    line = with_roll(torch.tensor([[0.0, 3.0, 0.0], [0.0, -1.0, 0.0]]), SLOPE)
    torch.testing.assert_close(slope_of(line), SLOPE * torch.tensor([1.0, 0.0]))
    assert not slope_of(torch.zeros(4, 3)).any()


@pytest.mark.parametrize("factor", [0.5, 0.7071, 1.6])
def test_a_resized_kernel_moves_the_picture_as_far_in_its_own_px(factor, rolling):
    motion, _, _ = rolling
    kernel = torch.from_numpy(local_kernels(motion, [motion.principal_point])[0]).float()
    changed = resized(kernel, factor)
    assert float(changed.sum()) == pytest.approx(1)

    def spread(k):
        x = torch.arange(k.shape[0]) - k.shape[0] // 2
        mean = float((k.sum(0) * x).sum())
        return float((k.sum(0) * (x - mean) ** 2).sum()) ** 0.5

    assert spread(changed) == pytest.approx(factor * spread(kernel), rel=0.15)


def test_the_right_roll_gives_the_right_motion(rolling):
    motion, view, kernel = rolling
    none, right, wrong = (
        error(finish(rolled_kernel(view, kernel, slope, START)), slope, motion)
        for slope in (torch.zeros(2), SLOPE, -SLOPE)
    )
    assert right < 0.8 * none
    assert none < wrong


@pytest.fixture
def unchanged(monkeypatch):
    """The kernels are left as they are: only the way to a slope is of interest."""

    def steps(view, kernel, slope, start, *, coarse):
        yield 1.0
        return kernel

    monkeypatch.setattr(roll_search, "rolled_kernel", steps)


def searched(way):
    run(way.begin_steps())
    run(way.look_around_steps())
    run(way.go_on_steps())
    return way.best


@pytest.mark.parametrize("near", [False, True])
def test_the_search_goes_to_where_the_score_points(rolling, unchanged, monkeypatch, near):
    # The judge is so quick that all would be done before anything is told.
    monkeypatch.setattr(parallel, "_WHILE", 0.0)
    _, view, kernel = rolling
    slope = 0.9 * SLOPE if near else torch.zeros(2)
    scores = []

    def judge(view, number, curve):
        """Ever worse away from a place."""
        assert number == 2
        scores.append(-float((curve - with_roll(curve, SLOPE / 2)).norm()))
        return SimpleNamespace(score=scores[-1])
        yield

    events = []
    way = Way(view, Rolling(2, kernel, slope), near=near, judge=judge)
    run(way.begin_steps())
    assert len(scores) == 1
    if not near:
        run(way.look_around_steps())
    begun = len(scores)
    assert begun == (1 if near else 5)
    run(way.go_on_steps(), events.append)
    found = way.best
    assert way.score == max(scores)
    assert found.kernel is kernel
    assert max(scores) > 0.7 * scores[0]
    curve = run(found.curve_steps(quick=True))
    assert -float((curve - with_roll(curve, SLOPE / 2)).norm()) == pytest.approx(max(scores))
    assert len(scores) <= begun + roll_search._MORE_TRIALS
    assert [e.fraction for e in events] == sorted(e.fraction for e in events)
    assert events[-1].fraction <= 1


def test_what_is_judged_exactly_anyway_is_not_judged_twice(rolling, monkeypatch):
    _, view, kernel = rolling
    curve = finish(kernel_curve(kernel))
    known = run(roll_search.exactly(view, 0, curve))
    monkeypatch.setattr(sample, "Sample", None)
    found = run(exactly_steps(view, run(roll_search.hardly(view, 0, curve))))
    assert found.score == pytest.approx(known.score)


def test_the_search_prefers_less_roll_among_equals(rolling, unchanged):
    _, view, kernel = rolling

    def judge(view, number, curve):
        return SimpleNamespace(score=0.0)
        yield

    found = searched(Way(view, Rolling(0, kernel, torch.zeros(2)), judge=judge))
    assert not found.slope.any()


def test_what_is_found_in_reduced_pictures_fits_the_full_one(monkeypatch):
    """Three ways are begun with nothing in half the size; the two best are followed."""
    motion, view, kernel = shaken(16.0, 0.7 * SLOPE)
    monkeypatch.setattr(roll_search, "_BEGINNING", (1, 2, 4))
    monkeypatch.setattr(roll_search, "_MORE_TRIALS", 4)
    kernels = [run(kernel_steps(view, start)) for start in WHOLE_STARTS]
    found, best = run(coarse_to_fine_steps(view, kernels))
    assert {h.start for h in found} == {0, 1, 2, 3, 4}
    assert best.kernel.sum() == pytest.approx(1, abs=1e-4)
    still = b2s.Trajectory.zero(motion.image_shape, 2, motion.focal_length)
    errors = [path_error(h.motion, motion) / path_error(still, motion) for h in found]
    # Two ends in each reduced picture, two curves of one way in the full one, and of each start
    # what it makes of the slope there.
    assert len(found) == 2 + 2 + 2 + 4 + 1
    assert [h.exact is None for h in found].count(True) == 1
    judged = [(h.score, e) for h, e in zip(found, errors, strict=True) if h.exact is not None]
    assert max(judged)[1] < 0.5 * error(kernel, torch.zeros(2), motion)


def test_a_picture_is_searched_from_kernels_that_are_given(rolling, monkeypatch):
    motion, view, kernel = rolling
    monkeypatch.setattr(roll_search, "_MORE_TRIALS", 2)
    first = Rolling(3, kernel, torch.zeros(2))
    found, best = run(from_kernels_steps(view, [first]))
    assert [h.start for h in found] == [3, 3]
    assert error(best.kernel, best.slope, motion) < 0.8 * error(kernel, torch.zeros(2), motion)


def test_a_small_picture_has_a_small_kernel():
    sharp = coffee()[80:112, 200:240]
    image = torch.from_numpy(sharp.astype(np.float32) / 255).permute(2, 0, 1)
    camera = b2s.Camera.for_image(sharp.shape[:2], 40.0)
    line = torch.zeros(9, 9)
    line[4, 1:-1] = 1 / 7
    found = finish(rolled_kernel(View.of(image, camera, 10**6), line, SLOPE, START))
    assert found.shape[0] == found.shape[1] <= 17
    assert float(found.sum()) == pytest.approx(1)


def test_a_table_without_a_least_value_leaves_the_kernel_finite():
    """Correlations cut off at their reach need not be those of any picture."""

    class Same:
        def forward(self, kernel):
            return kernel[None]

        def adjoint(self, kernels):
            return kernels[0]

    cross, first = torch.zeros(1, 5, 5), torch.full((5, 5), 0.04)
    cross[0, 2, 1] = 1
    for middle in (-1.0, 0.0):
        auto = torch.zeros(1, 9, 9)
        auto[0, 4, 4] = middle
        assert rolled._least_squares(Same(), cross, auto, 0.5, first).isfinite().all()


def test_the_share_of_the_work_that_is_done_never_falls(rolling, monkeypatch):
    monkeypatch.setattr(roll_search, "_MORE_TRIALS", 2)
    _, view, _ = rolling
    part = view.grey[60:180, 90:210]
    camera = b2s.Camera(view.camera.focal_length, (60.0, 60.0), (120, 120))
    events = []
    run(estimate_steps(part[None], camera), events.append)
    assert "Searching for the roll of the camera" in {event.message for event in events}
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)


def test_the_exact_verdict_is_best_for_the_true_motion(rolling):
    """Of the motion, it without its roll, with too much of it, and turned the other way."""
    motion, view, _ = rolling
    factors = ([1, 1, 1], [1, 1, 0], [1, 1, 2], [1, 1, -1], [0.7, 0.7, 0.7], [0, 0, 0])
    verdicts = []
    for factor in factors:
        other = b2s.Trajectory.from_camera(motion.rotations * factor, motion.camera)
        events = []
        verdicts.append(run(exact_verdict_steps(view, other), events.append))
        assert {e.stage for e in events} == {"estimate"}
        assert [e.fraction for e in events] == sorted(e.fraction for e in events)
    assert verdicts[0].cost == min(v.cost for v in verdicts)
    assert verdicts[0].gain == max(v.gain for v in verdicts)
    assert verdicts[0].gain > 2 > 1 > verdicts[-1].gain
    assert all(v.low_gain < v.gain for v in verdicts)


def test_the_exact_cost_merges_poses_that_hardly_differ(rolling, monkeypatch):
    motion, view, _ = rolling
    merged = run(exact_verdict_steps(view, motion)).cost
    operator = exact._merged(motion, torch.device("cpu"), torch.float32)
    assert len(operator.trajectory) < len(motion) / 2
    monkeypatch.setattr(exact, "_MERGED", 0.0)
    assert run(exact_verdict_steps(view, motion)).cost == pytest.approx(merged, abs=0.01)


def test_the_exact_cost_does_not_depend_on_the_resolution_of_the_motion(rolling):
    motion, view, _ = rolling
    camera = motion.camera.scaled(2, 2, tuple(2 * n for n in motion.image_shape))
    larger = b2s.Trajectory.from_camera(motion.rotations, camera)
    costs = [run(exact_verdict_steps(view, m)).cost for m in (motion, larger)]
    assert costs[0] == pytest.approx(costs[1], abs=0.03)
