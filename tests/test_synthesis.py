"""Motions and pairs for training: what must hold for any of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut, coffee

import napari_blur2seq as b2s
from napari_blur2seq.errors import ImageError, OptionError
from napari_blur2seq.motion_blur import projective_blur
from napari_blur2seq.shake import GyroscopeLog, simulate_gyroscope, simulate_tremor
from napari_blur2seq.training import motions, synthesis
from napari_blur2seq.training.jpeg import jpeg
from napari_blur2seq.training.motions import Motions
from napari_blur2seq.training.sharp import dead_leaves, load_images, random_crops
from napari_blur2seq.training.synthesis import Synthesis, prefetched, projective_blurs


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


@pytest.fixture(scope="module")
def tremor() -> Motions:
    return Motions()


@pytest.fixture(scope="module")
def pairs(tremor: Motions) -> synthesis.Pairs:
    return Synthesis([tensor(astronaut()), tensor(coffee())], tremor, size=64, seed=1).batch(48)


# Motions


def test_motions_are_centred_smooth_and_of_many_kinds(tremor: Motions) -> None:
    drawn = tremor.sample(200, 25, torch.Generator().manual_seed(0))
    assert drawn.shape == (200, 25, 3)
    assert drawn.mean(1).abs().max() < 1e-5
    steps, bends = (drawn.diff(n=n, dim=1).norm(dim=2).amax(1) for n in (1, 2))
    assert ((bends < steps).float().mean()) > 0.98
    axes = drawn.std(1)
    assert (axes.argmax(1).bincount(minlength=3) > 20).all()  # each axis leads in some


def test_motions_of_a_recording_are_pieces_of_it() -> None:
    log = simulate_gyroscope(1.0, seed=3)
    source = Motions([log], tremor=False)
    drawn = source.sample(20, 12, torch.Generator().manual_seed(0))
    speeds = np.linalg.norm(log.rates, axis=1)
    # However the axes are turned, nothing moves further than the fastest rate allows.
    assert (drawn[:, -1] - drawn[:, 0]).norm(dim=1).max() < 0.3 * speeds.max()
    assert drawn.abs().max() > 0


def test_recordings_are_cut_at_their_gaps() -> None:
    times = np.r_[np.arange(0, 1, 0.005), np.arange(3, 4, 0.005)]
    rates = np.zeros((len(times), 3))
    rates[times > 2, 0] = 1.0
    drawn = Motions([GyroscopeLog(times, rates)], tremor=False).sample(
        100, 9, torch.Generator().manual_seed(0)
    )
    straight = drawn.diff(dim=1).norm(dim=2)
    assert torch.allclose(straight, straight[:, :1].expand_as(straight), atol=1e-4)


def test_motions_follow_given_trajectories() -> None:
    known = simulate_tremor((100, 100), seed=2)
    drawn = Motions(trajectories=[known], tremor=False).sample(
        8, 25, torch.Generator().manual_seed(0)
    )
    lengths = np.linalg.norm(known.rotations, axis=1).max()
    assert (drawn.norm(dim=2).amax(1) < 2 * lengths).all()
    with pytest.raises(OptionError, match="recording"):
        Motions(tremor=False)


def test_displacements_and_extents_are_those_of_trajectories() -> None:
    shape = (120, 90)
    known = simulate_tremor(shape, focal_length=200.0, extent=13.0, seed=5)
    rotations = torch.from_numpy(known.rotations)[None]
    points = motions.grid_points(shape).double()
    assert np.allclose(points.numpy(), known.grid())
    centre = torch.tensor([known.principal_point], dtype=torch.float64)
    focal = torch.tensor([200.0], dtype=torch.float64)
    rays = motions.rays(points, focal, centre)
    moved = motions.displacements(rotations, rays, focal)
    assert np.allclose(moved[0].numpy(), known.paths(known.grid()), atol=1e-9)
    assert motions.extents(moved).item() == pytest.approx(known.extent)
    longer = motions.with_extents(rotations, rays, focal, torch.tensor([31.0]))
    scaled = b2s.Trajectory.from_camera(longer[0].numpy(), known.camera)
    assert scaled.extent == pytest.approx(31.0, rel=1e-3)


# Sharp pictures


def test_crops_are_parts_of_the_pictures_turned_or_flipped() -> None:
    image = tensor(astronaut())
    crops = random_crops([image], 20, 300, np.random.default_rng(0))
    assert crops.shape == (20, 3, 300, 300)
    assert crops.dtype == torch.uint8
    assert abs(crops.float().mean() - image.float().mean()) < 15
    assert len({int(crop.sum()) for crop in crops}) == 20


def test_small_pictures_are_continued_by_reflection() -> None:
    image = torch.arange(48, dtype=torch.uint8).reshape(1, 6, 8).expand(3, -1, -1)
    crops = random_crops([image], 4, 12, np.random.default_rng(0))
    assert set(crops.unique().tolist()) <= set(range(48))


def test_folders_without_pictures_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ImageError, match="no PNG, JPEG or TIFF"):
        load_images(tmp_path)


def test_dead_leaves_look_like_the_world() -> None:
    one, two = (dead_leaves(128, np.random.default_rng(seed)) for seed in (0, 1))
    assert one.shape == (3, 128, 128)
    assert not torch.equal(one, two)
    assert torch.equal(one, dead_leaves(128, np.random.default_rng(0)))
    gradients = one.float().mean(0).diff(dim=1).abs().flatten()
    # Mostly nothing, sometimes much: what makes deblurring possible.
    assert gradients.median() < 0.3 * gradients.square().mean().sqrt()


# The camera


@pytest.mark.parametrize("quality", [60, 85, 95])
def test_jpeg_does_what_jpeg_does(quality: int) -> None:
    image = astronaut()[100:164, 180:260]
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg", quality=quality, subsampling=2)
    expected = np.array(Image.open(buffer)).astype(float)
    values = jpeg(tensor(image)[None] / 255, torch.tensor([float(quality)]))[0]
    ours = values.permute(1, 2, 0).numpy() * 255
    # The rest is rounding: files hold luminance and chrominance in 8 bits, too.
    assert np.abs(ours - expected).mean() < min(1.5, 0.5 * np.abs(expected - image).mean())


def test_blur_of_a_batch_is_the_projective_blur_of_each() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 2, 40, 56, generator=generator)
    rotations = 0.03 * torch.randn(3, 5, 3, generator=generator)
    focal = torch.tensor([30.0, 60.0, 200.0])
    centre = torch.tensor([[28.0, 20.0], [0.0, 0.0], [90.0, -10.0]])
    ours = projective_blurs(images, rotations, focal, centre)
    inner = projective_blurs(images, rotations, focal, centre, margin=8)
    assert torch.equal(inner, ours[..., 8:-8, 8:-8])
    for k in range(3):
        x, y = centre[k].tolist()
        expected = projective_blur(images[k : k + 1], rotations[k], focal[k], (x, y))
        assert torch.allclose(ours[k], expected[0], atol=2e-4)


def test_pairs_are_pictures_of_many_extents(pairs: synthesis.Pairs) -> None:
    assert pairs.sharp.shape == pairs.blurry.shape == (48, 3, 64, 64)
    assert pairs.rotations.shape == (48, 25, 3)
    for pictures in (pairs.sharp, pairs.blurry):
        assert pictures.min() >= 0
        assert pictures.max() <= 1
    assert torch.allclose((pairs.blurry * 255).round(), pairs.blurry * 255, atol=1e-3)
    rays = motions.rays(motions.grid_points((64, 64)), pairs.focal_length, pairs.principal_point)
    moved = motions.displacements(pairs.rotations, rays, pairs.focal_length)
    sizes = motions.extents(moved)
    assert sizes.max() < 60.5
    assert sizes.max() > 35
    assert sizes.min() == 0


def test_pairs_at_rest_are_sharp(tremor: Motions) -> None:
    source = Synthesis([tensor(astronaut())], tremor, size=64, seed=3)
    pairs = source.batch(64)
    resting = (pairs.rotations.abs().amax((1, 2)) == 0) & (pairs.noise < 0.004)
    assert resting.any()
    differences = (pairs.blurry - pairs.sharp)[resting].abs().mean((1, 2, 3))
    assert differences.max() < 0.03


def test_shaken_pictures_have_less_detail(pairs: synthesis.Pairs) -> None:
    quiet = (pairs.noise < 0.01) & (pairs.rotations.abs().amax((1, 2)) > 0)
    blurry, sharp = (p[quiet].diff(dim=3).abs().mean() for p in (pairs.blurry, pairs.sharp))
    assert blurry < 0.7 * sharp


def test_the_response_can_be_undone() -> None:
    values = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    gamma = torch.tensor([1.0, 1.7, 2.4, 2.6])
    light = synthesis._decode(values, gamma)
    assert torch.allclose(synthesis._encode(light, gamma), values, atol=1e-5)
    assert torch.equal(light[0], values[0])
    srgb = np.where(values[2] > 0.04045, ((values[2] + 0.055) / 1.055) ** 2.4, values[2] / 12.92)
    assert np.allclose(light[2], srgb, atol=1e-4)


def test_pairs_depend_on_the_seed_alone(tremor: Motions) -> None:
    def first(seed: int) -> torch.Tensor:
        return Synthesis([], tremor, size=48, poses=5, seed=seed).batch(2).blurry

    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))


def test_pairs_are_made_ahead_by_threads(tremor: Motions) -> None:
    source = Synthesis([tensor(coffee())], tremor, size=48, poses=5)
    stream = prefetched(source, 2, workers=2)
    batches = [next(stream) for _ in range(4)]
    stream.close()
    assert len({float(pairs.blurry.sum()) for pairs in batches}) == 4
    assert torch.equal(batches[0].blurry, source.reseeded(0).batch(2).blurry)


@pytest.mark.cuda
def test_pairs_are_made_on_the_gpu() -> None:
    pairs = Synthesis([tensor(coffee())], Motions(device="cuda"), size=64).batch(4)
    assert pairs.blurry.device.type == "cuda"
    assert pairs.blurry.isfinite().all()
