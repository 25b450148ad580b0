"""The quick look at a part of a picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_blur2seq.camera import Camera
from napari_blur2seq.estimate import uniform
from napari_blur2seq.images import value_range
from napari_blur2seq.pipeline import Options, blur
from napari_blur2seq.preview import preview_steps
from napari_blur2seq.progress import run
from napari_blur2seq.trajectory import Trajectory


def scene(channels: int) -> np.ndarray:
    from skimage.data import astronaut

    sharp = astronaut()[20:148, 150:310]
    if channels == 1:
        return sharp[..., 1]
    if channels == 4:
        return np.dstack([sharp, np.tile(np.arange(160, dtype=np.uint8), (128, 1))])
    return sharp


def shaken(sharp: np.ndarray) -> np.ndarray:
    camera = Camera.for_stage(sharp.shape[:2])
    t = np.linspace(-1, 1, 25)
    path = np.stack([2.0 * t, 5.0 * t, 0 * t], 1) / camera.focal_length
    return np.asarray(blur(sharp, Trajectory.from_camera(path, camera), noise=0.005))


def blurriness(image: np.ndarray) -> float:
    from skimage.measure import blur_effect

    colour = image[..., :3] if image.ndim == 3 else image
    return float(blur_effect(colour, channel_axis=2 if image.ndim == 3 else None))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_preview_is_sharper_and_like_the_picture(channels: int) -> None:
    sharp = scene(channels)
    blurry = shaken(sharp)
    preview = run(preview_steps(blurry, 1.0, Options()))
    assert preview.dtype == blurry.dtype and preview.shape == blurry.shape
    assert blurriness(preview) < blurriness(blurry) - 0.05
    if channels == 4:
        np.testing.assert_array_equal(preview[..., 3], blurry[..., 3])


def test_what_the_screen_does_not_show_is_not_computed() -> None:
    blurry = shaken(scene(3)).astype(np.float32) * 3 - 100
    events = []
    preview = run(preview_steps(blurry, 0.5, Options(noise=0.01)), events.append)
    assert preview.shape == (64, 80, 3) and preview.dtype == np.float32
    assert preview.min() >= blurry.min() - 1 and preview.max() <= blurry.max() + 1
    fractions = [e.fraction for e in events]
    assert fractions == sorted(fractions)


@pytest.fixture
def known_kernel(monkeypatch) -> None:
    """In place of the estimate, which takes most of the time."""

    def known(*_):
        yield 1.0, torch.eye(9) / 9

    monkeypatch.setattr(uniform, "uniform_kernel", known)


def test_a_view_is_worked_on_in_the_range_of_the_whole_picture(known_kernel) -> None:
    whole = shaken(scene(1)).astype(np.uint16) * 12
    dark = whole[:48, :64] // 4
    told = Options(value_range=value_range(whole))
    seen = run(preview_steps(dark, 1.0, Options(), whole))
    np.testing.assert_array_equal(seen, run(preview_steps(dark, 1.0, told)))
    assert not np.array_equal(seen, run(preview_steps(dark, 1.0, Options())))


def test_a_preview_minds_the_noise_model(known_kernel) -> None:
    random = np.random.default_rng(0)
    counted = random.poisson(shaken(scene(1)) * 0.3).astype(np.uint16)
    white, poisson = (
        run(preview_steps(counted, 1.0, Options(noise_model=model))).astype(float)
        for model in ("white", "poisson")
    )
    # Where there is little light there is little noise, and less is taken for it.
    assert np.abs(poisson - white)[counted < 12].mean() > 0.3
