"""deblur, restore and blur through their public entry points."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from skimage.data import astronaut, coffee

import napari_blur2seq as b2s
from napari_blur2seq import pipeline, shake
from napari_blur2seq.estimate.certainty import Certainty
from napari_blur2seq.estimate.kernel_based import Estimate
from napari_blur2seq.metrics import aligned_scores, path_error
from napari_blur2seq.models import registry
from napari_blur2seq.pipeline import Options, deblur_steps
from napari_blur2seq.progress import Progress
from napari_blur2seq.restoration import learned

SHAPE = (200, 240)


@pytest.fixture(scope="module")
def sharp():
    return coffee()[80 : 80 + SHAPE[0], 200 : 200 + SHAPE[1]]


@pytest.fixture(scope="module")
def trajectory():
    return shake.simulate_tremor(SHAPE, extent=9.0, roll_ratio=0.3, seed=6)


@pytest.fixture(scope="module")
def blurry(sharp, trajectory):
    return b2s.blur(sharp, trajectory, noise=0.005)


@pytest.fixture(scope="module")
def deblurred(blurry):
    """Result and events of one run for all the tests that look at it."""
    events = []
    return b2s.deblur(blurry, progress=events.append), events


def psnr(image, reference):
    return aligned_scores(image, reference).psnr


@pytest.mark.parametrize("prior", ["sparse", "learned"])
def test_restore_with_the_true_trajectory(sharp, trajectory, blurry, prior):
    restored = b2s.restore(blurry, trajectory, prior=prior)
    assert restored.shape == blurry.shape
    assert restored.dtype == blurry.dtype
    assert psnr(restored, sharp) > psnr(blurry, sharp) + 4


def test_learned_prior_is_better_in_noise(sharp, trajectory):
    noisy = b2s.blur(sharp, trajectory, noise=0.02)
    learned, sparse = (b2s.restore(noisy, trajectory, prior=p) for p in ("learned", "sparse"))
    assert psnr(learned, sharp) > psnr(sparse, sharp) + 0.5


@pytest.mark.parametrize("prior", ["sparse", "learned"])
def test_restore_where_the_camera_jumped(sharp, prior):
    """Two stops take a frequency away: it must not come back as large waves."""
    x = np.r_[np.linspace(0, 2, 12), np.linspace(22, 24, 12)]
    rotations = np.stack([np.sin(x / 8), x, 0 * x], 1) / 2000
    camera = b2s.Camera(2000.0, (SHAPE[1] / 2, SHAPE[0] / 2), SHAPE)
    motion = b2s.Trajectory.from_camera(rotations, camera).centered()
    blurry = b2s.blur(sharp, motion, noise=0.004)
    restored = b2s.restore(blurry, motion, prior=prior)
    assert psnr(restored, sharp) > psnr(blurry, sharp) + 9


def test_borders_do_not_ring(sharp, trajectory, blurry):
    """The outermost pixels are not much worse than the rest."""
    restored = b2s.restore(blurry, trajectory).astype(float)
    error = np.abs(restored - sharp).mean(axis=2)
    frame = np.ones(SHAPE, bool)
    frame[3:-3, 3:-3] = False
    assert error[frame].mean() < 4 * error[~frame].mean()


def test_deblur_comes_closer_to_the_truth():
    # Of the cups of the other tests, too little is known: half a dB this way or that.
    sharp = astronaut()[: SHAPE[0], 130 : 130 + SHAPE[1]]
    motion = shake.simulate_tremor(SHAPE, extent=9.0, seed=3, focal_length=1500.0)
    blurry = b2s.blur(sharp, motion, noise=0.005)
    result = b2s.deblur(blurry)
    assert psnr(result.sharp, sharp) > psnr(blurry, sharp) + 2
    rest = b2s.Trajectory.zero(SHAPE, focal_length=1500.0)
    assert path_error(motion, result.trajectory) < 0.6 * path_error(motion, rest)


def test_parts_of_a_result_belong_together(blurry, deblurred):
    result, _ = deblurred
    assert result.sharp.shape == result.reblurred.shape == blurry.shape
    assert result.sequence.shape == (25, *blurry.shape) == result.frames.shape
    assert result.sequence.dtype == blurry.dtype
    mean = result.sequence.astype(float).mean(axis=0)
    assert np.abs(mean - result.reblurred).max() <= 1  # rounding to 8 bits
    assert np.abs(result.trajectory.rotations.mean(axis=0)).max() < 1e-9
    certainty = result.metadata["certainty"]
    assert certainty["spread_px"] >= 0
    assert 0 < certainty["error_px"] < result.trajectory.extent
    assert certainty["low_gain_db"] <= certainty["expected_gain_db"]


def test_progress_never_falls_and_ends_at_one(deblurred):
    _, events = deblurred
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert {event.stage for event in events} == {"estimate", "refine", "restore", "sequence"}


def test_previews_are_like_the_input(blurry, deblurred):
    _, events = deblurred
    previews = [event.preview for event in events if event.preview is not None]
    assert len(previews) >= 4
    assert all(p.shape == blurry.shape and p.dtype == blurry.dtype for p in previews)
    assert {event.stage for event in events if event.preview is not None} == {"restore"}


def test_large_picture_pauses_between_its_parts():
    """Nothing larger than a few hundred thousand pixels is worked on between two events."""
    image = np.tile(coffee()[::2, ::2].mean(axis=2).astype(np.uint8), (5, 5))
    assert image.shape == (1000, 1500)
    motion = shake.simulate_tremor(image.shape, extent=8.0)
    for prior, least in (("sparse", 8 * 6), ("learned", 6 * 12)):
        events = []
        b2s.restore(image, motion, prior=prior, progress=events.append)
        assert len(events) > least


def test_same_input_and_seed_same_output(blurry, deblurred):
    small = blurry[:96, :96]
    first, second = (b2s.deblur(small, seed=3) for _ in range(2))
    assert np.array_equal(first.sharp, second.sharp)
    assert first.trajectory == second.trajectory


def test_cancel_between_any_two_events(blurry):
    steps = deblur_steps(blurry[:64, :64])
    for _ in range(5):
        next(steps)
    steps.close()

    class Stop(Exception):
        pass

    def stop(event):
        raise Stop

    with pytest.raises(Stop):
        b2s.deblur(blurry[:64, :64], progress=stop)


def test_gradients_stay_on_for_the_caller(blurry):
    steps = deblur_steps(blurry[:64, :64])
    next(steps)
    next(steps)
    assert torch.is_grad_enabled()
    steps.close()


def test_the_processor_makes_no_difference_to_see(sharp, blurry, trajectory, monkeypatch):
    """Some run the network in bfloat16."""
    scores = []
    for context in (nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        monkeypatch.setattr(learned, "mixed_precision", lambda device, context=context: context)
        scores.append(aligned_scores(b2s.restore(blurry, trajectory), sharp).psnr)
    assert scores[0] == pytest.approx(scores[1], abs=0.1)


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint16, 1600), (np.float32, 0.02)])
def test_a_dim_picture_is_deblurred_like_a_bright_one(blurry, monkeypatch, dtype, scale):
    """A camera of 12 bits uses a sixteenth of a file of 16; one of float may use less."""
    shown = blurry[60:156, 60:172, 1] / 255
    motion = shake.simulate_tremor(shown.shape, extent=9.0, seed=4)

    def known(image, *_):
        estimated.append(image)
        yield Progress("estimate", 1.0, "Known")
        return Estimate(motion, True, Certainty(8.0, 0.5, 2.0, 1.0, 0.5, 5.0, 0.3))

    estimated = []
    monkeypatch.setattr(pipeline, "_estimate", known)
    # What differs by a rounding in one precision may differ by more in half of it.
    monkeypatch.setattr(learned, "mixed_precision", lambda device: nullcontext())
    image = scale * shown
    image = (np.rint(image) if dtype == np.uint16 else image).astype(dtype)
    bright, dim = (b2s.deblur(x, refine=False, n_poses=5) for x in (0.45 * shown, image))
    # A rounding in the file is one in what is looked at, and a few in what was restored.
    step = 1 / scale if dtype == np.uint16 else 0
    np.testing.assert_allclose(*estimated, atol=2 * step + 1e-5)
    for name in ("sharp", "reblurred", "sequence"):
        assert getattr(dim, name).dtype == dtype
        one, other = getattr(dim, name) / scale, getattr(bright, name) / 0.45
        np.testing.assert_allclose(one, other, atol=8 * step + 1e-3)
    black, white = dim.metadata["value_range"]
    assert black == image.min() and white == pytest.approx(image.max(), rel=0.03)


def test_points_of_a_dim_picture_may_get_brighter_than_all_its_pixels(trajectory):
    beads = np.full(SHAPE, 20, np.uint16)
    beads[20::40, 20::40] = 3000
    shaken = np.asarray(b2s.blur(beads, trajectory))
    restored = b2s.restore(shaken, trajectory, prior="sparse", noise=0.001)
    assert np.median(restored[20::40, 20::40]) > 1.5 * shaken.max()


def test_sharp_picture_is_not_harmed(sharp):
    still = b2s.Trajectory.zero(SHAPE)
    assert psnr(b2s.restore(sharp, still), sharp) > 36


@pytest.mark.parametrize("extent", [5.0, 7.0])
def test_a_motion_too_long_for_the_picture_is_not_believed(extent):
    # Smooth: what kernels are found in it is mostly chance, and longer than the truth.
    sharp = np.ascontiguousarray(coffee()[100:220, 150:270])
    motion = shake.simulate_tremor(sharp.shape, extent=extent, seed=7, focal_length=1000.0)
    blurry = b2s.blur(sharp, motion, noise=0.004)
    result = b2s.deblur(blurry, focal_length=1000.0, refine=False)
    assert psnr(result.sharp, sharp) > psnr(blurry, sharp) - 0.3


@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a[..., 0],
        lambda a: a.astype(np.uint16) * 257,
        lambda a: a.astype(np.float32) * 100 - 30,
        lambda a: np.dstack(
            [a, np.arange(a.shape[0] * a.shape[1]).reshape(a.shape[:2]) % 251]
        ).astype(np.uint8),
    ],
    ids=["grey", "uint16", "float range", "alpha"],
)
def test_same_kind_of_image_out(blurry, convert):
    image = convert(blurry[:65, :83])
    result = b2s.deblur(image, n_poses=7)
    for out in (result.sharp, result.reblurred):
        assert out.shape == image.shape
        assert out.dtype == image.dtype
    assert result.sequence.shape == (7, *image.shape)
    if image.ndim == 3 and image.shape[2] == 4:
        assert np.array_equal(result.sharp[..., 3], image[..., 3])


def test_smallest_image():
    image = np.random.default_rng(0).random((32, 32))
    assert b2s.deblur(image).sharp.shape == (32, 32)


@pytest.mark.parametrize(
    "options",
    [
        {"noise": -1},
        {"value_range": (3, 3)},
        {"value_range": (0, 1, 2)},
        {"prior": "best"},
        {"estimator": "best"},
        {"n_poses": 1},
        {"device": "abacus"},
        {"sharpness": 3},
    ],
)
def test_bad_options_are_named(blurry, options):
    with pytest.raises(b2s.OptionError, match=r"\."):
        b2s.deblur(blurry, **options)


@pytest.mark.parametrize("focal_length", [0, -5, float("nan"), float("inf")])
def test_bad_focal_length(blurry, focal_length):
    with pytest.raises(b2s.CameraError, match="focal length"):
        b2s.deblur(blurry, focal_length=focal_length)


def test_trajectory_of_another_image(blurry):
    with pytest.raises(b2s.TrajectoryError, match="belongs to an image"):
        b2s.restore(blurry, b2s.Trajectory.zero((50, 60)))


def test_options_are_documented():
    for field in dataclasses.fields(Options):
        assert f"{field.name} :" in (Options.__doc__ or "")


def test_damaged_weights_are_refused(monkeypatch):
    entries = {name: dict(entry) for name, entry in registry._entries().items()}
    entries["restoration"]["sha256"] = "0" * 64
    monkeypatch.setattr(registry, "_entries", lambda: entries)
    with pytest.raises(registry.WeightsError, match="damaged"):
        registry.load_state("restoration")


def test_the_motion_can_be_estimated_from_a_region(blurry, monkeypatch):
    from napari_blur2seq.estimate import kernel_based
    from napari_blur2seq.progress import Progress, run

    given = []

    def estimate(image, camera, focal_length_known, kernels, network):
        assert not focal_length_known
        assert kernels
        assert network is None
        given.append((tuple(image.shape), camera))
        yield Progress("estimate", 1.0, "quick")
        found = b2s.Trajectory.from_camera([[0, -0.01, 0.02], [0, 0.01, -0.02]], camera)
        return kernel_based.Estimate(found, False, Certainty(8.0, 0.5, 0.0, 0.0, -1.0, 5.0, 0.3))

    monkeypatch.setattr(kernel_based, "estimate_steps", estimate)
    whole = b2s.Camera.for_image(SHAPE)
    result = run(deblur_steps(blurry, Options(region=(-5, 100, 90, 1000), n_poses=2)))
    (shape, camera) = given[0]
    assert shape == (3, 90, 140)
    assert camera.focal_length == whole.focal_length
    # A point of the region is seen along the same ray by both cameras.
    assert camera.principal_point == (whole.principal_point[0] - 100, whole.principal_point[1])
    assert result.trajectory.camera == whole
    np.testing.assert_allclose(result.trajectory.rotations[:, 1], [-0.01, 0.01], atol=1e-9)
    with pytest.raises(b2s.OptionError, match="at least 32 px"):
        run(deblur_steps(blurry, Options(region=(0, 0, 20, 100))))
