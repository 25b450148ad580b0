"""Motions sought by the power spectrum of a picture whose blur is the same all over."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.data import coffee

import napari_blur2seq as b2s
from napari_blur2seq.estimate.curve import coefficients_of, cosine_basis
from napari_blur2seq.estimate.hypotheses import dense
from napari_blur2seq.estimate.spectral_search import changed, likely_curves_steps
from napari_blur2seq.estimate.spectrum import Spectrum
from napari_blur2seq.estimate.view import View
from napari_blur2seq.metrics import path_error
from napari_blur2seq.progress import run

SHARP = coffee()[80:280, 200:440].mean(-1).round().astype(np.uint8)
TRUE = b2s.shake.simulate_tremor(
    SHARP.shape, extent=12.0, roll_ratio=0.0, seed=7, focal_length=4000.0, exposure=0.4
).resample(200)
BLURRY = torch.tensor(b2s.blur(SHARP, TRUE, noise=0.005))[None] / 255.0


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def curve_of(trajectory: b2s.Trajectory) -> torch.Tensor:
    poses = torch.tensor(trajectory.rotations).float() * trajectory.focal_length
    return coefficients_of(poses, 16)


@pytest.fixture(scope="module")
def view() -> View:
    return View.of(BLURRY, TRUE.camera, 10**6)


def test_many_motions_are_as_likely_as_each_alone(view):
    """And as likely as tile by tile, through a lens so long that all tiles move alike."""
    small = View(view.grey[:160], view.mask[:160], view.camera, view.noise)
    poses = cosine_basis(96, 16) @ torch.stack([s * curve_of(TRUE) for s in (0.6, 1.0, 1.5)])
    together = Spectrum(small, 16.0, alike=True)
    many = together.likelihood(together.moved(poses))
    for alike in (True, False):
        alone = []
        for motion in poses:
            spectrum = Spectrum(small, 16.0, alike=alike)
            alone.append(float(spectrum.likelihood(spectrum.moved(motion))))
        torch.testing.assert_close(many, torch.tensor(alone), atol=0.02, rtol=0)
    assert int(many.argmax()) == 1


def test_changed_motions_are_about_as_long_and_do_not_roll():
    curve = curve_of(TRUE) * torch.tensor([1.0, 1.0, 0.0])
    made = changed(curve[None], 12, TRUE.extent, torch.Generator().manual_seed(3))
    again = changed(curve[None], 12, TRUE.extent, torch.Generator().manual_seed(3))
    torch.testing.assert_close(made, again)
    assert made.shape == (12, 16, 3)
    assert made[:, :, 2].abs().max() == 0
    extents = [dense(c, TRUE.camera).extent for c in made]
    assert 0.4 * TRUE.extent < min(extents) and max(extents) < 2 * TRUE.extent
    distances = (made[:, None] - made).square().sum((2, 3)).sqrt() + 1e3 * torch.eye(12)
    assert distances.min() > 0.02 * TRUE.extent


def test_the_true_motion_is_found_from_half_of_it(view):
    """It, or its mirror image; half of it alone only becomes a little better."""
    path = cosine_basis(200, 16) @ curve_of(TRUE)
    half = coefficients_of(path[:100] - path[:100].mean(0), 16)
    found = run(likely_curves_steps(view, [half], 3))
    assert 1 <= len(found) <= 3

    def error(curve: torch.Tensor) -> float:
        return min(path_error(TRUE, dense(sign * curve, TRUE.camera)) for sign in (1, -1))

    assert min(map(error, found)) < 0.5 * error(half)
