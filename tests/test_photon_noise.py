"""Photon noise: measured in the picture, and used where the picture is restored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.data import camera
from skimage.metrics import peak_signal_noise_ratio

import napari_blur2seq as b2s
from napari_blur2seq import pipeline
from napari_blur2seq.errors import OptionError
from napari_blur2seq.estimate.certainty import Certainty
from napari_blur2seq.estimate.kernel_based import Estimate
from napari_blur2seq.pipeline import Options
from napari_blur2seq.progress import Progress
from napari_blur2seq.restoration import noise_of
from napari_blur2seq.restoration.photon_noise import PhotonNoise, measure_photon_noise
from napari_blur2seq.shake import simulate_tremor

SHARP = camera()[100:260, 100:300].astype(np.float32) / 255
MOTION = simulate_tremor(SHARP.shape, extent=8.0, seed=3)


def counted(clean: np.ndarray, photons: float, read: float, black: float = 0.0) -> np.ndarray:
    """What a sensor sees: white stands for so many photons, read noise and black level in them."""
    random = np.random.default_rng(1)
    values = random.poisson(clean * photons) + random.normal(0, read, clean.shape)
    return ((values + black) / photons).astype(np.float32)


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return np.asarray(b2s.blur(camera().astype(np.float32) / 255, simulate_tremor((512, 512))))


@pytest.mark.parametrize(("photons", "read"), [(50, 2.0), (200, 4.0), (1000, 10.0)])
def test_gain_and_read_noise_are_measured(clean, photons, read):
    noise = measure_photon_noise(torch.from_numpy(counted(clean, photons, read))[None])
    assert noise.gain * photons == pytest.approx(1, rel=0.1)
    assert noise.read * photons == pytest.approx(read, rel=0.25)


def test_the_black_level_is_found(clean):
    noise = measure_photon_noise(torch.from_numpy(counted(clean * 0.8, 200, 0.0, 30))[None])
    assert noise.gain * 200 == pytest.approx(1, rel=0.1)
    assert noise.black * 200 == pytest.approx(30, abs=5)


def test_white_noise_has_no_gain(clean):
    noisy = clean + np.random.default_rng(0).normal(0, 0.02, clean.shape).astype(np.float32)
    image = torch.from_numpy(noisy)[None]
    assert measure_photon_noise(image).level(image) == pytest.approx(0.02, rel=0.05)
    assert noise_of(image, 0.1, "poisson").level(image) == pytest.approx(0.1, rel=1e-3)
    two = torch.zeros(1, 40, 40)
    two[:, 20:] = 1  # saturated: nothing to fit a line to
    assert measure_photon_noise(two) == PhotonNoise(0.0, 0.0)


@pytest.mark.parametrize(("prior", "gain_db"), [("learned", 2.0), ("sparse", 0.7)])
def test_dim_and_bright_parts_are_restored_each_by_its_noise(prior, gain_db):
    blurry = counted(np.asarray(b2s.blur(SHARP, MOTION)), 200, 2.0).clip(0, 1)
    inner = np.s_[10:-10, 10:-10]
    scores = {
        model: peak_signal_noise_ratio(
            SHARP[inner],
            b2s.restore(blurry, MOTION, noise_model=model, prior=prior)[inner],
            data_range=1,
        )
        for model in ("white", "poisson")
    }
    assert scores["poisson"] > scores["white"] + gain_db, scores


def test_a_result_says_what_was_measured(monkeypatch):
    def known(*_):
        yield Progress("estimate", 1.0, "Known")
        return Estimate(MOTION, True, Certainty(8.0, 0.5, 2.0, 1.0, 0.5, 5.0, 0.3))

    monkeypatch.setattr(pipeline, "_estimate", known)
    blurry = counted(np.asarray(b2s.blur(SHARP, MOTION)), 200, 2.0).clip(0, 1)
    result = b2s.deblur(blurry, refine=False, noise_model="poisson")
    assert result.metadata["noise"]["gain"] * 200 == pytest.approx(1, rel=0.25)
    assert result.metadata["parameters"]["noise_model"] == "poisson"
    with pytest.raises(OptionError, match="noise model"):
        Options(noise_model="pink")  # type: ignore[arg-type]
