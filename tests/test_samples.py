"""The sample data need no network and carry their truth."""

from __future__ import annotations

import socket
from importlib.resources import files

import numpy as np
import pytest

from napari_blur2seq import samples
from napari_blur2seq.metrics import path_error
from napari_blur2seq.pipeline import blur
from napari_blur2seq.trajectory import Trajectory


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the sample data are downloaded")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_the_clock_is_the_photograph_as_it_is():
    ((picture, keywords, kind),) = samples.clock()
    assert picture.shape == (300, 400) and picture.dtype == np.uint8
    assert keywords["name"] == "shaken clock" and kind == "image"


@pytest.mark.parametrize(
    ("sample", "shipped"),
    [(samples.photograph, "coffee"), (samples.micrograph, "immunohistochemistry")],
)
def test_synthetic_samples_are_the_shaken_originals(sample, shipped, tmp_path):
    from skimage import data

    ((picture, keywords, kind),) = sample()
    sharp = getattr(data, shipped)()
    assert picture.shape == sharp.shape and picture.dtype == np.uint8 and kind == "image"
    file = tmp_path / "truth.csv"
    file.write_text(keywords["metadata"]["blur2seq"]["true_trajectory_csv"])
    truth = Trajectory.load(file)
    assert truth.extent == pytest.approx(12.0)
    assert path_error(truth, Trajectory.zero(truth.image_shape)) > 1
    again = blur(sharp, truth).astype(float)
    assert np.abs(picture - again).mean() < 2  # the noise
    assert np.abs(picture - sharp.astype(float)).mean() > 2 * np.abs(picture - again).mean()


@pytest.mark.gui
def test_napari_opens_them(npe2pm):
    components = pytest.importorskip("napari.components")
    from npe2 import PluginManifest

    npe2pm.register(PluginManifest.from_file(str(files("napari_blur2seq") / "napari.yaml")))
    viewer = components.ViewerModel()
    for key in ("clock", "photograph", "micrograph"):
        (layer,) = viewer.open_sample("napari-blur2seq", key)
        assert layer.name.startswith("shaken")
