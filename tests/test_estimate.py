"""The kernel-based estimate, step by step, on pictures shaken on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.data import coffee

import napari_blur2seq as b2s
from napari_blur2seq import shake
from napari_blur2seq.estimate.certainty import Certainty, typical
from napari_blur2seq.estimate.curve import (
    cosine_basis,
    to_trajectory,
    trace_kernel,
)
from napari_blur2seq.estimate.hypotheses import dense, is_believed, is_clear
from napari_blur2seq.estimate.kernel_curve import CurveFit, drawn, kernel_curve, kernel_curves
from napari_blur2seq.estimate.latent import strongest
from napari_blur2seq.estimate.regions import gather
from napari_blur2seq.estimate.sample import Sample, verdict_steps
from napari_blur2seq.estimate.spectrum import Spectrum, fit_to_spectrum, likelihood_parts
from napari_blur2seq.estimate.uniform import Start, cleaned, improved_kernel, uniform_kernel
from napari_blur2seq.estimate.view import FINE_PIXELS, View, grey_and_mask
from napari_blur2seq.estimate.whole_kernels import WHOLE_STARTS
from napari_blur2seq.fourier import (
    differences,
    divergence,
    fast_size,
    transfer_functions,
)
from napari_blur2seq.metrics import path_error
from napari_blur2seq.motion_blur import local_kernels
from napari_blur2seq.progress import finish, run
from napari_blur2seq.restoration.sparse import shrink

SHAPE = (200, 240)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def shaken():
    """A sharp picture, its motion in the image plane, and the shaken picture."""
    sharp = coffee()[80 : 80 + SHAPE[0], 200 : 200 + SHAPE[1]]
    trajectory = shake.simulate_tremor(SHAPE, extent=9.0, roll_ratio=0.0, seed=4)
    return sharp, trajectory, b2s.blur(sharp, trajectory, noise=0.005)


def tensor(image):
    return torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)


def test_divergence_is_the_adjoint_of_differences():
    generator = torch.Generator().manual_seed(0)
    u, a, b = torch.randn(3, 15, 22, dtype=torch.float64, generator=generator)
    dx, dy = differences(u)
    assert torch.allclose((dx * a + dy * b).sum(), (u * divergence(a, b)).sum())


def test_differences_are_those_to_the_next_pixel():
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(2, 15, 22, dtype=torch.float64, generator=generator)
    dx, dy = differences(u)
    assert torch.equal(dx, u.roll(-1, -1) - u)
    assert torch.equal(dy, u.roll(-1, -2) - u)


@torch.enable_grad()
def test_gradients_of_differences_and_of_shrinkage():
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(5, 6, dtype=torch.float64, generator=generator) for _ in range(2))
    assert torch.autograd.gradcheck(differences, u.requires_grad_(True))
    assert torch.autograd.gradcheck(divergence, (u, v.requires_grad_(True)))
    # Of what is not shrunk to nothing, and where three steps have arrived.
    large = torch.linspace(0.2, 2.0, 9, dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda m: shrink(m, 1e-3, 0.7), large, atol=1e-5)


@torch.enable_grad()
def test_the_gradient_of_curves_is_that_of_their_objective():
    kernel = drawn(torch.tensor([[3.0, -2.0, 0.0], [1.0, 2.0, 0.0]]))
    fit = CurveFit(torch.stack([kernel, kernel.T, kernel.flip(0)]))
    values = torch.randn(3, 18, 2, generator=torch.Generator().manual_seed(0))
    values[:, -1, 0] = torch.tensor([0.5, -9.0, 9.0])  # free, narrowest and widest
    free = values.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(fit.objective(free).sum(), free)
    assert torch.allclose(fit.gradients(values), expected, atol=1e-6)


def test_transfer_functions_convolve():
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(24, 30, generator=generator)
    kernel = torch.zeros(1, 5, 5)
    kernel[0, 1, 4] = 1  # moves the picture by (x, y) = (2, -1)
    spectrum = torch.fft.rfft2(picture) * transfer_functions(kernel, (24, 30))[0]
    moved = torch.fft.irfft2(spectrum, s=(24, 30))
    assert torch.allclose(moved, torch.roll(picture, (-1, 2), (0, 1)), atol=1e-5)


@pytest.mark.parametrize("n", [1, 37, 97, 251])
def test_fast_size_is_even_and_no_smaller(n):
    assert fast_size(n) >= n
    assert fast_size(n) % 2 == 0


def followed(motion):
    """Path error of the curve of a motion's kernel, by that of no motion."""
    fine = motion.resample(200)
    kernel = torch.from_numpy(local_kernels(fine, [motion.principal_point])[0]).float()
    fitted = to_trajectory(finish(kernel_curve(kernel)), motion.camera, 64)
    rest = b2s.Trajectory.zero(motion.image_shape, 64, motion.focal_length)
    return path_error(motion, fitted) / path_error(motion, rest)


def test_curves_of_several_kernels_are_those_of_each():
    kernels = [drawn(torch.tensor([[a, -2.0, 0.0], [1.0, 2.0, 0.0]])) for a in (3.0, -6.0)]
    assert kernels[0].shape != kernels[1].shape
    curves = finish(kernel_curves(kernels, quick=True))
    for kernel, curve in zip(kernels, curves, strict=True):
        assert torch.allclose(curve, finish(kernel_curve(kernel, quick=True)), atol=1e-3)


def test_a_curve_follows_the_kernel_of_a_known_motion(shaken):
    _, trajectory, _ = shaken
    assert followed(trajectory) < 0.15


@pytest.mark.parametrize("apart", [1.0, 1.5, 2.5])
def test_a_curve_goes_there_and_back(apart):
    """A stroke of 10 px and another one back, a few px beside it, are not taken for one."""
    time = (np.arange(64) + 0.5) / 64
    x, y = 5 * np.cos(2 * np.pi * time), apart * np.cos(np.pi * time)
    camera = b2s.Camera(1e5, (120.0, 100.0), SHAPE)
    rotations = np.stack([-y, x, 0 * x], 1) / camera.focal_length
    assert followed(b2s.Trajectory.from_camera(rotations, camera)) < 0.15


def test_a_curve_is_that_of_the_kernel_wherever_it_lies(shaken):
    _, trajectory, _ = shaken
    kernel = torch.from_numpy(local_kernels(trajectory, [trajectory.principal_point])[0]).float()
    moved = torch.nn.functional.pad(kernel, (4, 0, 0, 4))
    curves = [
        to_trajectory(finish(kernel_curve(k)), trajectory.camera, 64) for k in (kernel, moved)
    ]
    assert path_error(*curves) < 0.05


def test_the_curve_of_a_point_stands_still():
    point = torch.zeros(5, 5)
    point[2, 2] = 1
    curve = finish(kernel_curve(point))
    assert float(curve.abs().max()) < 0.3


def test_a_trace_leaves_nothing_of_the_kernel_out(shaken):
    """A kernel with a corner and a place where the camera dwells is given back as it was."""
    kernel = torch.zeros(31, 31)
    kernel[5, 5:26] = 1
    kernel[5:26, 25] = 1
    kernel[25, 25] = 12
    kernel = kernel / kernel.sum()
    curve = trace_kernel(kernel)
    camera = b2s.Camera(1e5, (120.0, 100.0), SHAPE)
    trajectory = to_trajectory(curve, camera, len(curve) + 1)
    again = torch.from_numpy(local_kernels(trajectory, [[120.0, 100.0]])[0])
    side = 15
    middle = again.shape[0] // 2
    again = again[middle - side : middle + side + 1, middle - side : middle + side + 1]
    position = torch.arange(31.0) - 15
    centre = [round(float((kernel.sum(axis) * position).sum())) for axis in (1, 0)]
    moved = torch.roll(kernel, [-c for c in centre], (0, 1))
    smooth = torch.nn.functional.avg_pool2d
    difference = smooth((again - moved)[None, None], 3, stride=1, padding=1)
    assert float(difference.abs().sum()) < 0.4
    assert float(again.max()) > 0.1


def test_uniform_kernel_of_a_shaken_picture(shaken):
    _, trajectory, blurry = shaken
    grey, mask = grey_and_mask(tensor(blurry))
    *_, (fraction, kernel) = uniform_kernel(grey, mask, Start(0.5, 2))
    assert fraction == 1.0
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
    assert float(kernel.min()) >= 0
    fitted = to_trajectory(finish(kernel_curve(kernel)), trajectory.camera, 64)
    rest = b2s.Trajectory.zero(SHAPE, 64)
    assert path_error(trajectory, fitted) < 0.6 * path_error(trajectory, rest)


def test_uniform_kernel_of_a_picture_without_edges_is_a_point():
    flat = torch.full((96, 96), 0.5)
    for start in WHOLE_STARTS:
        *_, (_, kernel) = uniform_kernel(flat, torch.ones_like(flat), start)
        assert kernel.max() == 1


def test_of_a_kernel_in_small_pieces_the_largest_is_kept():
    pieces = torch.zeros(25, 25)
    pieces[::2, ::2] = 1.0
    pieces[10, 12:15] = 1.5
    kept = cleaned(pieces)
    assert float(kept.sum()) == pytest.approx(1)
    assert kept[10, 13] > 0
    assert int((kept > 0).sum()) == 3


def test_of_a_faint_kernel_is_kept_what_its_noise_is_weaker_than():
    generator = torch.Generator().manual_seed(0)
    kernel = 1e-3 * torch.randn(61, 61, generator=generator)
    kernel[30, 30:32] += 1.0
    kernel[30, 32:55] += 0.02
    line = (30, slice(32, 55))
    assert float(cleaned(kernel)[line].sum()) == 0
    faint = cleaned(kernel, faint=True)
    assert (faint[line] > 0).all()
    assert float(faint.sum()) == pytest.approx(1)
    assert float(faint[30].sum()) > 0.97


@pytest.fixture(scope="module")
def far():
    """A photograph shaken by 60 px through a long lens."""
    sharp = coffee()[:, 60:540]
    trajectory = shake.simulate_tremor(
        sharp.shape[:2], extent=60.0, seed=3, focal_length=3000.0, exposure=0.5
    )
    blurry = b2s.blur(sharp, trajectory.resample(200), noise=0.004, seed=1)
    return View.of(tensor(blurry), trajectory.camera, FINE_PIXELS), trajectory


def apart_from(trajectory, curve, view):
    """Path error of a curve by that of no motion."""
    found = dense(curve, view.camera)
    rest = b2s.Trajectory.zero(view.camera.image_shape, 64, view.camera.focal_length)
    return path_error(trajectory, found) / path_error(trajectory, rest)


def test_a_long_motion_is_found_in_half_the_size_and_followed_up(far):
    view, trajectory = far
    small = view.scaled(0.5)
    assert small.camera.focal_length == trajectory.focal_length / 2
    start = Start(0.5, 2, faint=True)
    *_, (_, kernel) = uniform_kernel(small.grey, small.mask, start, 75)
    assert len(kernel) <= 75
    curve = 2 * finish(kernel_curve(kernel))
    first = apart_from(trajectory, curve, view)
    assert first < 0.3
    *_, (fraction, kernel) = improved_kernel(view.grey, view.mask, drawn(curve), start)
    assert fraction == 1
    assert apart_from(trajectory, finish(kernel_curve(kernel)), view) < 1.1 * first


def test_a_drawn_curve_is_the_kernel_of_its_motion():
    curve = torch.zeros(16, 3)
    curve[0, 0], curve[1, 1] = 9.0, 5.0
    kernel = drawn(curve)
    assert len(kernel) % 2 == 1
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
    again = finish(kernel_curve(kernel))
    camera = b2s.Camera(1e5, (120.0, 100.0), SHAPE)
    assert path_error(*(to_trajectory(c, camera, 64) for c in (curve, again))) < 0.3


def test_the_judge_prefers_the_true_motion(shaken):
    """It promises a gain of it, and none of the same motion turned by 90 degrees."""
    sharp, _, _ = shaken
    true = shake.simulate_tremor(SHAPE, extent=9.0, roll_ratio=0.0, seed=5)
    turned = b2s.Trajectory(
        true.rotations[:, [1, 0, 2]] * [-1, 1, 1],
        true.focal_length,
        true.principal_point,
        true.image_shape,
    )
    view = View.of(tensor(b2s.blur(sharp, true, noise=0.005)), true.camera, 300_000)
    right, wrong = (run(verdict_steps(view, t)) for t in (true, turned))
    assert right.gain > 0.5
    assert wrong.gain < 0
    assert right.score > wrong.score


def test_tiles_are_spread_over_a_large_picture():
    """So that roll, which moves the edges of a picture only, is seen."""
    shape = (700, 1000)
    camera = b2s.Trajectory.zero(shape, 2).camera
    picture = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    x, y = Sample(View.of(picture, camera, 700_000), 10.0).middles.T
    assert len(x) <= 12
    assert x.min() < 100
    assert x.max() > 900
    assert y.min() < 100
    assert y.max() > 600


def test_the_spectrum_prefers_the_true_motion(shaken):
    """To none, to one across, and to longer and shorter ones; not to the one turned about."""
    _, true, blurry = shaken
    view = View.of(tensor(blurry), true.camera, 300_000)

    def of(rotations):
        parts = true.focal_length, true.principal_point, true.image_shape
        return finish(likelihood_parts(view, b2s.Trajectory(rotations, *parts)))

    best = of(true.rotations)
    assert best > of(np.zeros_like(true.rotations)) + 1
    assert best > of(true.rotations[:, [1, 0, 2]] * [-1, 1, 1]) + 1
    assert best > of(1.5 * true.rotations) + 1
    assert best > of(0.67 * true.rotations) + 1
    assert best == pytest.approx(of(-true.rotations), abs=1)


def test_the_likelihood_has_the_gradient_of_finite_differences(shaken):
    _, true, blurry = shaken
    spectrum = Spectrum(View.of(tensor(blurry), true.camera, 300_000), 12.0)
    direction = torch.from_numpy(true.rotations * true.focal_length).float()
    poses = 1.3 * direction  # where the slope is not near zero
    spectrum.likelihood(spectrum.moved(poses), 50)  # the sharp picture's spectrum is then at rest
    with torch.enable_grad():
        step = torch.zeros((), requires_grad=True)
        height = spectrum.likelihood(spectrum.moved(poses + step * direction), 0)
        (slope,) = torch.autograd.grad(height, step)
    size = 0.02
    up, down = (
        float(spectrum.likelihood(spectrum.moved(poses + s * direction), 0)) for s in (size, -size)
    )
    assert slope < -1
    assert float(slope) == pytest.approx((up - down) / (2 * size), rel=0.1)


def test_fitting_to_the_spectrum_makes_a_spoilt_motion_likely(shaken):
    """As likely as the true one, and no farther from it than it was."""
    _, true, blurry = shaken
    view = View.of(tensor(blurry), true.camera, 300_000)
    poses = torch.from_numpy(true.resample(64).rotations * true.focal_length).float()
    exact = 2 / 64 * cosine_basis(64, 12).T @ (poses - poses.mean(0))
    noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1))
    spoilt = exact + 0.4 * noise * torch.tensor([1.0, 1.0, 0.0])
    fitted = finish(fit_to_spectrum(view, spoilt))
    before, after = (to_trajectory(c, true.camera, 64) for c in (spoilt, fitted))
    heights = [finish(likelihood_parts(view, motion)) for motion in (before, true, after)]
    assert heights[0] < heights[1] < heights[2]
    assert path_error(true, after) < path_error(true, before)


def test_the_strongest_values_are_as_many_as_asked():
    values = torch.zeros(20, 30)
    values[5:10, 5:25] = torch.rand(5, 20, generator=torch.Generator().manual_seed(0)) + 0.1
    for count in (1, 40, 100, 500):
        chosen = strongest(values, count)
        assert int(chosen.sum()) == min(count, 100)  # zeros are never strong
        assert not chosen.any() or values[chosen].min() >= values[~chosen].max()
    assert not strongest(torch.zeros(20, 30), 10).any()


def test_what_is_said_of_the_error_grows_with_extent_and_falls_with_agreement():
    def bound(agreement, extent, field=0.3):
        return Certainty(extent, 0.5, agreement, 2.0, 1.0, 5.0, field).error

    assert 0 < bound(2.5, 5.0) < bound(2.5, 20.0) < bound(1.0, 20.0) < bound(0.0, 20.0) < 20
    assert bound(3.0, 20.0) == bound(6.0, 20.0)
    assert bound(2.0, 20.0, 0.0) < bound(2.0, 20.0, 0.5) < bound(2.0, 20.0, 0.6)


def test_saturated_pixels_are_masked():
    image = torch.full((3, 40, 40), 0.5)
    image[:, 20, 20] = 1
    _, mask = grey_and_mask(image)
    assert mask[18:23, 18:23].sum() == 0
    assert mask.sum() == 40 * 40 - 25


def test_evidence_is_strongest_at_the_true_displacements(shaken):
    """The correlation of sharp and blurry gradients is high along the motion's path."""
    _, trajectory, blurry = shaken
    grey, mask = grey_and_mask(tensor(blurry))
    evidence = finish(gather(grey, mask, trajectory, 2e-3))
    reach = evidence.cross.shape[-1] // 2
    table = evidence.cross.sum(0)
    path = trajectory.paths([[SHAPE[1] / 2, SHAPE[0] / 2]])[:, 0].round().astype(int) + reach
    on_path = float(table[path[:, 1], path[:, 0]].mean())
    assert on_path > 3 * float(table.abs().mean())


@pytest.mark.parametrize(
    ("extent", "agreement", "gain", "low", "likelier", "believed"),
    [
        (40.0, 1.5, -1.0, -5.0, 3.0, True),  # several starts found it
        (40.0, 1.5, -1.0, -5.0, -0.6, False),  # in a picture that shows no blur
        (40.0, 1.5, 1.0, -0.5, -0.6, False),
        (36.0, 0.0, 5.0, 1.0, 12.0, False),  # alone and long
        (20.0, 0.0, 15.0, 6.0, 2.0, False),  # alone, whatever it promises, in a brick wall
        (36.0, 0.8, 6.0, 0.4, 2.5, True),  # long, not quite alone, and promises much
        (36.0, 0.8, 3.0, 0.4, 2.5, False),
        (36.0, 0.8, 6.0, -0.4, 2.5, False),
        (48.0, 0.8, 6.0, 0.4, 2.5, False),  # longer
        (20.0, 0.0, 14.6, 7.3, 17.0, False),  # promises too much: the same wall
        (20.0, 0.0, 2.0, 0.3, 8.0, True),  # alone, but clear
        (20.0, 0.0, 2.0, 0.3, 2.0, False),
        (20.0, 0.0, 2.0, -0.3, 8.0, True),
        (20.0, 0.0, 2.0, -0.3, 5.0, False),
        (20.0, 0.5, 2.0, -2.0, 8.0, False),  # makes parts of the picture worse
        (20.0, 0.5, 5.0, -2.0, 8.0, True),  # but promises much
        (5.0, 2.0, 0.8, -0.3, 2.0, False),  # as in pictures that are sharp
        (5.0, 0.0, 1.2, -0.3, 2.0, True),
        (5.0, 2.0, 1.2, -2.0, 2.0, False),
    ],
)
def test_which_motions_are_believed(extent, agreement, gain, low, likelier, believed):
    certainty = Certainty(extent, 1.0, agreement, gain, low, likelier, 0.3)
    assert is_believed(certainty, (300, 400), 1.0) is believed


def test_in_small_pictures_starts_that_agree_must_promise_something():
    confirmed = Certainty(12.0, 1.0, 1.5, -1.0, -5.0, 10.0, 0.1)
    assert not is_believed(confirmed, (110, 120), 1.0)
    assert is_believed(replace(confirmed, expected_gain=3.0), (110, 120), 1.0)


def test_a_motion_is_clear_that_others_found_and_that_promises_something():
    short = Certainty(6.0, 0.1, 2.0, 3.0, -0.3, 10.0, 0.1)
    assert is_clear(short)
    assert not is_clear(replace(short, expected_gain=1.2))  # as in pictures that are sharp
    assert not is_clear(replace(short, agreement=0.4))


def test_what_both_judges_promise_is_believed_of_a_motion_found_once():
    alone = Certainty(11.0, 9.0, 0.0, 9.2, 0.6, 2.9, 0.2)
    assert not is_believed(replace(alone, quick_gain=3.4), (255, 255), 1.0)
    assert is_believed(replace(alone, quick_gain=4.6), (255, 255), 1.0)
    assert not is_believed(replace(alone, quick_gain=4.6, expected_gain=3.0), (255, 255), 1.0)


def test_what_was_sought_by_the_likelihood_must_promise_more():
    """True or not, it makes the picture's power spectrum likely."""
    alone = Certainty(20.0, 9.0, 0.0, 2.7, 0.5, 12.7, 0.1)
    assert is_believed(alone, (300, 300), 1.0)
    assert not is_believed(replace(alone, sought=True), (300, 300), 1.0)
    assert is_believed(replace(alone, sought=True, expected_gain=7.4), (300, 300), 1.0)


def test_among_many_starts_more_must_agree():
    """A motion of 24 px found in the smooth picture of a moon."""
    few = Certainty(24.0, 3.0, 0.35, 1.7, -0.3, 3.0, 0.2)
    assert is_believed(few, (512, 512), 1.0)
    assert not is_believed(replace(few, starts=7), (512, 512), 1.0)
    assert is_believed(replace(few, starts=7, agreement=0.8), (512, 512), 1.0)


def test_what_motions_that_are_alike_foretell_together():
    chosen = Certainty(10.0, 0.5, 1.2, 2.0, -0.1, 8.0, 0.3)
    others = [Certainty(11.0, 0.7, 0.0, g, n, 7.0, 0.3) for g, n in ((1.0, 0.3), (4.0, 0.2))]
    assert typical(chosen, [chosen, *others]) == Certainty(10.0, 0.5, 1.2, 2.0, 0.2, 7.0, 0.3)
