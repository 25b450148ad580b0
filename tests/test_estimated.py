"""Restoration with an estimated trajectory: trusted where it explains the picture."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from skimage.data import coffee

import napari_blur2seq as b2s
from napari_blur2seq.metrics import aligned_scores
from napari_blur2seq.motion_blur import MotionBlur
from napari_blur2seq.progress import finish, run
from napari_blur2seq.restoration import (
    estimated,
    load_prior,
    restore_estimated_steps,
    restore_steps,
)
from napari_blur2seq.restoration.local_blur import LocalBlur
from napari_blur2seq.restoration.merged_poses import merged_blur

SHAPE = (192, 224)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sharp():
    return coffee()[80 : 80 + SHAPE[0], 200 : 200 + SHAPE[1]]


@pytest.fixture(scope="module")
def motion():
    return b2s.shake.simulate_tremor(SHAPE, extent=9.0, seed=4, focal_length=2000.0)


@pytest.fixture(scope="module")
def blurry(sharp, motion):
    picture = b2s.blur(sharp, motion, noise=0.005, seed=1)
    return torch.from_numpy(picture.transpose(2, 0, 1).copy()).float() / 255


@pytest.fixture(scope="module", params=["learned", "sparse"])
def prior(request):
    return load_prior(request.param, CPU)[0]


def wrong(motion):
    """As long, but across the true path."""
    rotations = motion.rotations[:, [1, 0, 2]] * [1, -1, 1]
    return b2s.Trajectory(
        rotations, motion.focal_length, motion.principal_point, motion.image_shape
    )


def psnr(restored, sharp):
    return aligned_scores(restored.permute(1, 2, 0).numpy(), sharp / 255).psnr


def both_ways(blurry, motion, prior):
    """Restored cautiously, with trust, and by what explains the picture."""
    cautious, trusting = (one_way(blurry, motion, prior, trust) for trust in ("doubted", "known"))
    return cautious, trusting, run(restore_estimated_steps(blurry, motion, prior))


def one_way(blurry, motion, prior, trust):
    operator = partial(merged_blur, apart=estimated._MERGED)
    return run(
        restore_steps(blurry, motion, prior, trust=trust, operator=operator, early=LocalBlur)
    )


def test_a_true_motion_is_trusted(sharp, blurry, motion, prior):
    cautious, trusting, chosen = (psnr(u, sharp) for u in both_ways(blurry, motion, prior))
    assert trusting > cautious + 0.2
    assert chosen > (cautious + 3 * trusting) / 4


def test_the_result_lies_between_the_two(blurry, motion, prior):
    for found in (motion, wrong(motion)):
        cautious, trusting, chosen = both_ways(blurry, found, prior)
        lower, upper = torch.minimum(cautious, trusting), torch.maximum(cautious, trusting)
        assert (chosen >= lower - 1e-6).all() and (chosen <= upper + 1e-6).all()


def test_what_nothing_confirms_is_not_trusted(blurry, motion, prior):
    chosen = run(restore_estimated_steps(blurry, motion, prior, confirmed=False))
    torch.testing.assert_close(chosen, one_way(blurry, motion, prior, "doubted"))


def test_merged_poses_blur_as_all_do(blurry, motion):
    dense = motion.resample(96)
    exact = MotionBlur(dense, CPU, blurry.dtype)
    operator = merged_blur(dense, CPU, blurry.dtype, 0.5)
    assert len(operator.trajectory) < len(dense) / 2
    whole, merged = (finish(blur.parts(blurry[None])) for blur in (exact, operator))
    assert (whole - merged).abs().max() < 0.01
    assert (whole - merged).square().mean().sqrt() < 0.1 * (whole - blurry).square().mean().sqrt()


def test_trust_is_local(sharp, motion):
    """Half of the picture was shaken in another way than the rest: only there, care is taken."""
    learned = load_prior("learned", CPU)[0]
    wide = np.tile(sharp, (1, 2, 1))
    long = b2s.Trajectory(
        motion.rotations, motion.focal_length, (SHAPE[1], SHAPE[0] / 2), wide.shape[:2]
    )
    pictures = [b2s.blur(wide, m, noise=0.005, seed=1) for m in (long, wrong(long))]
    mixed = np.concatenate([pictures[0][:, : SHAPE[1]], pictures[1][:, SHAPE[1] :]], 1)
    blurry = torch.from_numpy(mixed.transpose(2, 0, 1).copy()).float() / 255
    cautious, trusting, chosen = both_ways(blurry, long, learned)
    trust = (chosen - cautious).abs().sum((0, 1)) / (trusting - cautious).abs().sum((0, 1))
    left, right = trust[: SHAPE[1] - 80].mean(), trust[SHAPE[1] + 80 :].mean()
    assert left > right + 0.3


def test_a_saturated_picture_and_a_small_one(prior):
    for picture in (torch.ones(3, 40, 48), torch.rand(1, 33, 35)):
        height, width = picture.shape[-2:]
        motion = b2s.shake.simulate_tremor((height, width), extent=6.0, seed=2)
        restored = run(restore_estimated_steps(picture, motion, prior))
        assert restored.shape == picture.shape and torch.isfinite(restored).all()


def test_the_denoiser_sees_the_picture_from_all_sides(blurry, motion):
    """What it does to one side of what it sees, it does to every side of the picture."""
    sparse = load_prior("sparse", CPU)[0]

    class Spoilt:
        schedules = sparse.schedules

        def __call__(self, image, sigma, trust):
            weight = torch.linspace(0, 1, image.shape[-1])
            return sparse(image + 0.02 * (weight - 0.5), sigma, trust)

    spoilt, good = (run(restore_steps(blurry, motion, p)) for p in (Spoilt(), sparse))
    left, right = (spoilt - good).mean((0, 1)).tensor_split(2)
    assert abs(left.mean() - right.mean()) < 0.5 * 0.01


def test_what_the_first_steps_get_wrong_is_put_right(sharp, prior):
    """Local kernels in half of the steps restore what the exact blur in all of them does."""
    rolling = b2s.shake.simulate_tremor(SHAPE, extent=14.0, seed=4, focal_length=224.0)
    picture = b2s.blur(sharp, rolling, noise=0.005, seed=1)
    shaken = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float() / 255
    exact, mixed, local = (
        psnr(run(restore_steps(shaken, rolling, prior, **blurs)), sharp)
        for blurs in ({}, {"early": LocalBlur}, {"operator": LocalBlur})
    )
    assert 0 < abs(mixed - exact) < 0.1
    assert mixed > local
