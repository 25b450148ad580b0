"""Layers saved as files, by napari's own way to writers."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
import tifffile

pytest.importorskip("napari")

from napari.components import ViewerModel

from napari_blur2seq.errors import ImageError, TrajectoryError
from napari_blur2seq.layers import trajectory_layer
from napari_blur2seq.trajectory import Trajectory
from napari_blur2seq.writers import write_sequence, write_trajectory

FRAMES = np.random.default_rng(0).integers(0, 255, (5, 40, 48), dtype=np.uint8)
TIMES = np.linspace(0, 0.1, 5)
TRAJECTORY = Trajectory(
    np.linspace(-0.02, 0.02, 5)[:, None] * [1.0, 2.0, 3.0], 60.0, (24.0, 20.0), (40, 48), TIMES
)


@pytest.fixture
def viewer(npe2pm) -> ViewerModel:
    """A viewer without windows that knows the plugin."""
    from npe2 import PluginManifest

    npe2pm.register(PluginManifest.from_file(str(files("napari_blur2seq") / "napari.yaml")))
    return ViewerModel()


def ome(path) -> tuple[np.ndarray, str, dict]:
    with tifffile.TiffFile(path) as file:
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        return file.series[0].asarray(), file.series[0].axes, pixels


@pytest.mark.parametrize("lazy", [False, True], ids=["memory", "dask"])
def test_a_sequence_is_saved_with_its_scale_and_time_step(viewer, tmp_path, lazy):
    import dask.array

    data = dask.array.from_array(FRAMES, chunks=(1, 40, 48)) if lazy else FRAMES
    layer = viewer.add_image(data, scale=(2, 0.5, 0.25), units=("ms", "um", "nm"))
    path = str(tmp_path / "a.ome.tif")
    assert layer.save(path) == [path]
    array, axes, pixels = ome(path)
    np.testing.assert_array_equal(array, FRAMES)
    assert axes == "TYX"
    assert pixels["TimeIncrement"] == pytest.approx(0.002)
    assert (pixels["PhysicalSizeY"], pixels["PhysicalSizeYUnit"]) == (0.5, "µm")
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeXUnit"]) == (0.25, "nm")


def test_the_time_step_of_the_trajectory_and_axes_of_length_one(viewer, tmp_path):
    layer = viewer.add_image(
        FRAMES[:, None], metadata={"blur2seq": {"trajectory_csv": TRAJECTORY.to_csv()}}
    )
    path = str(tmp_path / "a.ome.tiff")
    layer.save(path)
    array, _, pixels = ome(path)
    np.testing.assert_array_equal(array, FRAMES)
    assert pixels["TimeIncrement"] == pytest.approx(0.025)
    assert "PhysicalSizeX" not in pixels


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
def test_videos(viewer, tmp_path, suffix, colour):
    from imageio.v3 import imread

    y = np.linspace(0, 200, 40)[:, None] + np.zeros(48)
    frames = np.stack([np.roll(y, 3 * k, axis=0) for k in range(4)]).astype(np.uint8)
    if colour:
        frames = np.stack([frames, frames // 2, 255 - frames], axis=-1)
    layer = viewer.add_image(frames, rgb=colour)
    if not colour:
        layer.contrast_limits = (0, 100)
    path = str(tmp_path / f"a{suffix}")
    assert viewer.layers.save(path, plugin="napari-blur2seq") == [path]
    video = imread(path, plugin="pillow" if suffix == ".gif" else "FFMPEG")
    video = np.stack([v if v.ndim == 3 else np.stack([v] * 3, -1) for v in video])[..., :3]
    expected = frames if colour else np.stack([np.clip(frames * 2.55, 0, 255)] * 3, -1)
    assert video.shape == expected.shape
    assert np.abs(video.astype(float) - expected).mean() < 9


def test_a_trajectory_is_saved_as_csv(viewer, tmp_path):
    data, keywords, _ = trajectory_layer(TRAJECTORY, "t")
    viewer.add_tracks(data, **keywords)
    path = str(tmp_path / "t.csv")
    assert viewer.layers.save(path) == [path]
    assert Trajectory.load(path) == TRAJECTORY


def test_what_cannot_be_saved_is_told(tmp_path):
    viewer = ViewerModel()
    tracks = viewer.add_tracks(np.array([[0, 0, 1, 1], [0, 1, 2, 2.0]]))
    with pytest.raises(TrajectoryError, match="no camera trajectory"):
        write_trajectory(str(tmp_path / "a.csv"), *tracks.as_layer_data_tuple()[:2])
    for data in (FRAMES[0], np.stack([FRAMES] * 2, 1)):
        layer = viewer.add_image(data)
        with pytest.raises(ImageError, match="is no sequence"):
            write_sequence(str(tmp_path / "a.gif"), *layer.as_layer_data_tuple()[:2])
    with pytest.raises(ImageError, match=r"not as \.avi"):
        write_sequence(str(tmp_path / "a.avi"), FRAMES, {})
    assert not list(tmp_path.iterdir())
