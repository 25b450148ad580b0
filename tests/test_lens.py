"""Whether the lens is a wide one, where nobody says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.data import coffee

import napari_blur2seq as b2s
from napari_blur2seq import shake
from napari_blur2seq.estimate import lens
from napari_blur2seq.estimate.curve import coefficients_of
from napari_blur2seq.estimate.kernel_based import estimate_steps
from napari_blur2seq.estimate.lens import among_lenses, wide_search_steps
from napari_blur2seq.estimate.roll_search import Rolling
from napari_blur2seq.estimate.rolled import with_roll
from napari_blur2seq.estimate.uniform import Start, uniform_kernel
from napari_blur2seq.estimate.view import View
from napari_blur2seq.progress import run

SHAPE = (240, 300)
CAMERA = b2s.Camera.for_image(SHAPE, 300.0)
SLOPE = torch.tensor([1.35, -1.05])
NONE = torch.zeros(2)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def shaken(focal_length, slope):
    """A picture, its view through a wide lens, a kernel, and the curve of its motion."""
    sharp = coffee()[80 : 80 + SHAPE[0], 200 : 200 + SHAPE[1]]
    flat = shake.simulate_tremor(
        SHAPE, extent=9.0, roll_ratio=0.0, seed=4, focal_length=focal_length
    ).resample(64)
    poses = with_roll(torch.from_numpy(flat.rotations.astype(np.float32)), slope)
    motion = b2s.Trajectory.from_camera(poses.numpy(), flat.camera).centered()
    blurry = b2s.blur(sharp, motion, noise=0.003)
    image = torch.from_numpy(blurry.astype(np.float32) / 255).permute(2, 0, 1)
    view = View.of(image, CAMERA, 10**6)
    *_, (_, kernel) = uniform_kernel(view.grey, view.mask, Start(0.5, 2))
    curve = coefficients_of(focal_length * poses, 12)
    return image, view, kernel, curve


@pytest.fixture(scope="module")
def wide():
    return shaken(300.0, SLOPE)


@pytest.fixture(scope="module")
def long():
    return shaken(3000.0, NONE)


@pytest.fixture
def found(monkeypatch):
    """What the search for roll finds: it takes minutes, and has tests of its own."""
    curves = []

    def search(view, kernels):
        ends = []
        for curve in curves:
            ends.append((yield from among_lenses(view, 0, curve)))
        return ends, Rolling(0, kernels[0], SLOPE)

    monkeypatch.setattr(lens, "coarse_to_fine_steps", search)
    return curves


def test_a_lens_is_wide_if_the_search_for_roll_explains_more(wide, found):
    _, view, kernel, curve = wide
    found.append(curve)
    ends, end = run(wide_search_steps(view, [kernel]))
    assert len(ends) == 1
    assert torch.equal(end.slope, SLOPE)


def test_it_is_long_if_the_search_explains_no_more_than_a_kernel(wide, found):
    _, view, kernel, curve = wide
    found.append(curve * torch.tensor([1.0, 1.0, -1.0]))
    assert run(wide_search_steps(view, [kernel])) is None


@pytest.mark.parametrize("place", ["below both", "between", "above both"])
def test_what_would_not_be_believed_tells_no_lens(wide, found, monkeypatch, place):
    """A better score through a long lens counts if the motion is believed, or the other is not."""
    _, view, kernel, curve = wide
    found.append(curve)
    plain = Rolling(0, kernel, NONE)
    unrolled = run(lens._plain_steps(view.with_longer_lens(), plain)).foretold.gain
    rolled = run(among_lenses(view, 0, curve)).foretold.gain
    assert unrolled < rolled
    least = {"below both": unrolled - 1, "between": rolled, "above both": rolled + 1}[place]
    monkeypatch.setattr(lens, "LEAST_GAIN", least)

    def preferring_long(view, hypothesis):
        yield from ()
        return view.camera.focal_length

    monkeypatch.setattr(lens, "_score_steps", preferring_long)
    searched = run(wide_search_steps(view, [kernel]))
    assert (searched is not None) == (place == "between")


def test_no_roll_is_searched_for_where_every_small_one_explains_less(long, monkeypatch):
    _, view, kernel, _ = long
    monkeypatch.setattr(lens, "coarse_to_fine_steps", None)
    assert run(wide_search_steps(view, [kernel])) is None


def test_nor_where_the_kernel_is_long(wide, monkeypatch):
    _, view, _, _ = wide
    monkeypatch.setattr(lens, "coarse_to_fine_steps", None)
    monkeypatch.setattr(lens, "Way", None)
    kernel = torch.zeros(61, 61)
    kernel[30, 5:56] = 1 / 51
    assert run(wide_search_steps(view, [kernel])) is None


def test_one_motion_is_judged_alike_through_all_lenses(long):
    """What the judges say of it must not hang on how the blur is computed."""
    _, view, _, curve = long
    one, other = (
        run(among_lenses(view.with_longer_lens(factor), 0, curve)) for factor in (10.0, 20.0)
    )
    assert one.score_among_lenses == pytest.approx(other.score_among_lenses, abs=0.02)
    through_wide = run(among_lenses(view, 0, curve))
    assert through_wide.score_among_lenses < one.score_among_lenses


def test_a_lens_that_is_not_given_is_told_by_the_picture(wide, long, found):
    for image, _, _, curve in (wide, long):
        found[:] = [curve]
        events = []
        steps = estimate_steps(image, CAMERA, focal_length_known=False)
        estimate = run(steps, events.append)
        assert estimate.moves
        factor = 1 if image is wide[0] else 4
        assert estimate.trajectory.focal_length == pytest.approx(300.0 * factor)
        fractions = [event.fraction for event in events]
        assert fractions == sorted(fractions)
