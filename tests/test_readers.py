"""Files of camera motion dropped on napari open as tracks over the picture they fit."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari")

from napari.components import ViewerModel
from napari.layers import Tracks

from napari_blur2seq.errors import TrajectoryError
from napari_blur2seq.layers import trajectory_of
from napari_blur2seq.readers import get_reader
from napari_blur2seq.trajectory import Trajectory

SHAPE = (40, 48)
ROTATIONS = np.linspace(-0.02, 0.02, 7)[:, None] * [1.0, 2.0, 3.0]
PICTURE = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)


@pytest.fixture
def viewer(npe2pm, monkeypatch) -> ViewerModel:
    """A viewer without windows that knows the plugin."""
    from npe2 import PluginManifest

    npe2pm.register(PluginManifest.from_file(str(files("napari_blur2seq") / "napari.yaml")))
    viewer = ViewerModel()
    monkeypatch.setattr("napari.current_viewer", lambda: viewer)
    return viewer


def trajectory_file(folder: Path) -> Path:
    path = folder / "ours.csv"
    Trajectory(ROTATIONS, 60.0, (24.0, 20.0), SHAPE).save(path)
    return path


def authors_file(folder: Path) -> Path:
    path = folder / "authors.txt"
    np.savetxt(path, np.hstack([np.zeros_like(ROTATIONS), ROTATIONS]), delimiter=",")
    return path


def recording_file(folder: Path, seconds: float = 0.5, comment: str = "") -> Path:
    path = folder / "gyro.csv"
    times = np.arange(0, seconds, 0.005) + 100
    rates = np.stack([np.full_like(times, 0.1), np.zeros_like(times), -np.sin(times)], 1)
    np.savetxt(path, np.column_stack([times, rates]), delimiter=",", header=comment, comments="")
    return path


def test_our_file_opens_over_its_picture(viewer, tmp_path):
    viewer.add_image(np.zeros((90, 80), np.uint8), name="other")
    image = viewer.add_image(PICTURE, scale=(0.5, 0.25), units=("um", "um"), rotate=20)
    viewer.layers.selection.active = viewer.layers["other"]
    (tracks,) = viewer.open(trajectory_file(tmp_path), plugin="napari-blur2seq")
    assert isinstance(tracks, Tracks)
    assert tracks.name == "ours"
    np.testing.assert_allclose(
        tracks.data_to_world((2, 7, 11)), (2, *image.data_to_world((7, 11))), atol=1e-6
    )
    assert tracks.units[1:] == image.units
    assert trajectory_of(tracks) == Trajectory.load(tmp_path / "ours.csv")


def test_our_file_opens_without_a_picture(viewer, tmp_path):
    (tracks,) = viewer.open(trajectory_file(tmp_path), plugin="napari-blur2seq")
    assert tracks.ndim == 3
    assert tracks.axis_labels == ("t", "y", "x")


@pytest.mark.parametrize("make", [authors_file, recording_file])
def test_files_that_state_no_shape_take_that_of_the_active_picture(viewer, tmp_path, make):
    path = make(tmp_path)
    with pytest.raises(TrajectoryError, match="open the picture first"):
        viewer.open(path, plugin="napari-blur2seq")
    assert not viewer.layers
    viewer.add_image(PICTURE)
    (tracks,) = viewer.open(path, plugin="napari-blur2seq")
    trajectory = trajectory_of(tracks)
    assert trajectory.image_shape == SHAPE
    if make is authors_file:
        np.testing.assert_allclose(trajectory.rotations, ROTATIONS)
    else:
        assert trajectory.times[-1] == pytest.approx(0.495)
        # The camera's constant pitch rate turns the picture the other way.
        assert np.ptp(trajectory.rotations[:, 0]) == pytest.approx(0.0495, rel=0.02)


def test_the_first_second_of_a_long_recording(viewer, tmp_path):
    viewer.add_image(PICTURE)
    path = recording_file(tmp_path, 3.0, "t,x,y,z")
    (tracks,) = viewer.open(path, plugin="napari-blur2seq")
    assert trajectory_of(tracks).times[-1] == pytest.approx(1.0)


def test_several_files_at_once(viewer, tmp_path):
    viewer.add_image(PICTURE)
    paths = [str(trajectory_file(tmp_path)), str(recording_file(tmp_path))]
    assert [keywords["name"] for _, keywords, _ in get_reader(paths)(paths)] == ["ours", "gyro"]


@pytest.mark.parametrize(
    "data",
    [
        b"index,axis-0,axis-1\n0,1,2\n",
        b"once upon a time\n",
        b"",
        b"\xff\xfe\x00\x01",
        b"1,2,3\n4,5,6\n",
        b"1,2,3,4,5,x\n",
    ],
)
def test_other_files_are_left_to_others(tmp_path, data):
    path = tmp_path / "other.csv"
    path.write_bytes(data)
    assert get_reader(str(path)) is None
    assert get_reader([str(trajectory_file(tmp_path)), str(path)]) is None
    assert get_reader(str(tmp_path / "none.csv")) is None


def test_layers_of_others_remember_no_trajectory():
    viewer = ViewerModel()
    layer = viewer.add_image(PICTURE)
    for metadata in ({}, {"blur2seq": 1}, {"blur2seq": {"trajectory_csv": "nonsense"}}):
        layer.metadata = metadata
        assert trajectory_of(layer) is None
