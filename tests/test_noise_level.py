"""How much noise there is in a picture, compressed or not, and what is restored with it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut, chelsea
from skimage.metrics import peak_signal_noise_ratio

import napari_blur2seq as b2s
from napari_blur2seq.restoration import noise_level, noise_of
from napari_blur2seq.restoration.half_quadratic import estimate_noise
from napari_blur2seq.shake import simulate_tremor

PICTURES = {"face": astronaut()[:256, 100:400], "cat": chelsea()[20:276, 80:380]}
MOTION = simulate_tremor((256, 300), extent=12.0, seed=5)


def tensor(picture: np.ndarray) -> torch.Tensor:
    values = torch.from_numpy(np.atleast_3d(picture).astype(np.float32))
    return values.permute(2, 0, 1) / 255


def compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def shaken(name: str, noise: float) -> np.ndarray:
    return np.asarray(b2s.blur(PICTURES[name], MOTION, noise=noise, seed=1))


def in_mean_of_channels(error: np.ndarray) -> float:
    """The formula of `noise_level`, of a true error (H, W, C) in levels."""
    mean = torch.from_numpy(error.mean(2))[None, None] / 255
    coarse = 2 * torch.nn.functional.avg_pool2d(mean, 2)
    return float((error.shape[2] * coarse.square().mean()).sqrt())


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("noise", [0.01, 0.04])
def test_white_noise_is_measured(name, noise):
    assert noise_level(tensor(shaken(name, noise))) == pytest.approx(noise, rel=0.25)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("quality", [75, 90])
def test_what_compression_leaves_behind_is_measured(name, quality):
    clean = np.asarray(b2s.blur(PICTURES[name].astype(np.float32) / 255, MOTION)) * 255
    file = compressed(shaken(name, 0.01), quality)
    level, true = noise_level(tensor(file)), in_mean_of_channels(file - clean)
    assert level == pytest.approx(true, rel=0.4)
    # It is not seen in the finest detail.
    assert estimate_noise(tensor(file)) < 0.5 * true


def test_pictures_of_more_than_8_bits_are_measured_by_their_finest_detail():
    image = tensor(shaken("cat", 0.02)) * 0.7
    assert noise_level(image) == estimate_noise(image)


def test_what_is_given_is_not_measured():
    assert noise_of(tensor(shaken("cat", 0.02)), 0.005, "white") == 0.005


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 33, 500), (3, 600, 700)])
def test_any_size_will_do(shape):
    generator = torch.Generator().manual_seed(0)
    noisy = 0.5 + 0.03 * torch.randn(shape, generator=generator)
    assert noise_level((noisy * 255).round() / 255) == pytest.approx(0.03, rel=0.3)


def test_nothing_is_said_of_what_is_saturated():
    image = torch.ones(1, 64, 64)
    assert noise_level(image) == estimate_noise(image)
    image[:, :, :32] = tensor(shaken("cat", 0.02))[:1, :64, :32]
    assert noise_level(image) == pytest.approx(0.02, rel=0.4)


def test_compressed_pictures_are_restored_without_their_blocks():
    file = compressed(shaken("cat", 0.01), 85)
    inner = np.s_[16:-16, 16:-16]
    scores = [
        peak_signal_noise_ratio(
            PICTURES["cat"][inner], b2s.restore(file, MOTION, noise=level)[inner]
        )
        for level in (None, estimate_noise(tensor(file)))
    ]
    assert scores[0] > scores[1] + 0.7, scores
