"""Stacks in the dock: planes appear as they are ready, cancelling keeps them."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from napari_blur2seq import pipeline, stacks
from napari_blur2seq._qt.deblur_widget import DeblurWidget
from napari_blur2seq.images import to_working
from napari_blur2seq.layers import trajectory_of
from napari_blur2seq.progress import Progress
from napari_blur2seq.trajectory import Trajectory

pytestmark = pytest.mark.gui

TIMEOUT = 60_000
STACK = np.random.default_rng(0).integers(0, 255, (5, 40, 48), dtype=np.uint8)
SPATIAL = {
    "scale": (3, 0.5, 0.25),
    "translate": (1, 2, 3),
    "units": ("um", "um", "um"),
    "axis_labels": ("z", "y", "x"),
}


def motion(plane: np.ndarray) -> Trajectory:
    """Another one for every plane."""
    slope = 1e-4 * (1 + float(plane.mean()))
    rotations = np.linspace(-slope, slope, 4)[:, None] * [1.0, 2.0, 0.0]
    return Trajectory(rotations, 48.0, (24.0, 20.0), (40, 48))


class Gate:
    """A pipeline that inverts pictures, and waits before the one numbered `at`."""

    def __init__(self) -> None:
        self.at = -1
        self.calls = 0
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, image, options):
        number, self.calls = self.calls, self.calls + 1
        if number == self.at:
            self.reached.set()
            assert self.open.wait(30)
        yield Progress("estimate", 0.5, "Looking")
        working, form = to_working(image)
        trajectory = motion(image)
        frames = pipeline.FrameSequence(working, trajectory, form)
        return pipeline.Result(255 - image, trajectory, image, {"version": "x"}, frames)


@pytest.fixture
def gate(monkeypatch):
    gate = Gate()
    monkeypatch.setattr(pipeline, "deblur_steps", gate)
    yield gate
    gate.open.set()


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


def docked(viewer) -> DeblurWidget:
    widget = DeblurWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Deblur")
    return widget


@pytest.mark.parametrize("kind", ["memory", "dask", "colour"])
def test_five_slices_each_with_its_own_motion(qtbot, viewer, gate, kind):
    import dask.array

    data = np.stack([STACK, STACK // 2, STACK // 3], -1) if kind == "colour" else STACK
    given = dask.array.from_array(data, chunks=(1, *data.shape[1:])) if kind == "dask" else data
    image = viewer.add_image(given, name="stack", rgb=kind == "colour", **SPATIAL)
    widget = docked(viewer)
    widget.planes.setCurrentIndex(1)
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        widget.run_button.click()
    assert [layer.name for layer in viewer.layers] == [
        "stack",
        "stack deblurred",
        "stack sequence",
        "stack trajectories",
    ]
    sharp, frames, tracks = viewer.layers[1:]
    np.testing.assert_array_equal(sharp.data, 255 - data)
    np.testing.assert_array_equal(np.asarray(image.data), data)
    world = image.data_to_world((3, 7, 11))
    np.testing.assert_allclose(sharp.data_to_world((3, 7, 11)), world, atol=1e-6)
    np.testing.assert_allclose(tracks.data_to_world((2, 3, 7, 11)), (2, *world), atol=1e-6)
    assert sharp.units == image.units and tracks.axis_labels == ("t", "z", "y", "x")
    assert tracks.color_by == "time"
    assert len(np.unique(tracks.data[:, 0])) == 5 * 49
    np.testing.assert_array_equal(np.unique(tracks.data[:, 2]), range(5))
    for z in (0, 3):
        viewer.dims.set_point(1, image.data_to_world((z, 0, 0))[0])
        assert trajectory_of(tracks, viewer.dims) == motion(data[z])
    assert widget.stage.text() == "Done."
    # The frames of every plane: computed when looked at, and the same as alone.
    assert not frames.visible and isinstance(frames.data, dask.array.Array)
    assert frames.data.shape == (4, *data.shape) and frames.data.dtype == data.dtype
    np.testing.assert_allclose(frames.data_to_world((2, 3, 7, 11)), (2, *world), atol=1e-6)
    for pose, z in ((0, 1), (3, 4)):
        working, form = to_working(255 - data[z])
        alone = pipeline.FrameSequence(working, motion(data[z]), form)[pose]
        np.testing.assert_array_equal(frames.data[pose, z].compute(), alone)
        assert not np.array_equal(alone, 255 - data[z])


def test_the_frames_of_the_plane_shown_are_exported(qtbot, viewer, gate, tmp_path):
    from tifffile import imread

    from napari_blur2seq._qt.trajectory_widget import TrajectoryWidget
    from napari_blur2seq.errors import TrajectoryError
    from napari_blur2seq.writers import write_trajectory

    viewer.add_image(STACK[:3], name="stack")
    widget = docked(viewer)
    widget.planes.setCurrentIndex(1)
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        widget.run_button.click()
    viewer.dims.set_current_step(1, 2)
    view = TrajectoryWidget(viewer)
    qtbot.addWidget(view)
    view.save(str(tmp_path / "plane.ome.tif"))
    frames = viewer.layers["stack sequence"].data
    np.testing.assert_array_equal(imread(tmp_path / "plane.ome.tif"), frames[:, 2].compute())
    with pytest.raises(TrajectoryError, match="for each plane"):
        tracks = viewer.layers["stack trajectories"]
        write_trajectory(str(tmp_path / "a.csv"), tracks.data, {"metadata": tracks.metadata})


def test_cancelling_keeps_the_planes_that_are_done(qtbot, viewer, gate):
    viewer.add_image(STACK, name="stack")
    widget = docked(viewer)
    widget.planes.setCurrentIndex(1)
    gate.at = 2
    widget.run_button.click()
    qtbot.waitUntil(gate.reached.is_set, timeout=TIMEOUT)
    qtbot.waitUntil(lambda: "stack deblurred (2 of 5)" in viewer.layers, timeout=TIMEOUT)
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        widget.run_button.click()
        gate.open.set()
    sharp = viewer.layers["stack deblurred (2 of 5)"]
    np.testing.assert_array_equal(sharp.data[:2], 255 - STACK[:2])
    assert not sharp.data[2:].any()
    frames = viewer.layers["stack sequence"].data
    assert frames[:, :2].any() and not frames[:, 2:].any()
    assert gate.calls == 3  # the one that was under way, and none after it
    assert len(sharp.metadata["blur2seq"]["planes"]) == 2
    assert widget.run_button.text() == "Deblur" and widget.run_button.isEnabled()


def test_the_stack_is_removed_while_the_work_runs(qtbot, viewer, gate):
    viewer.add_image(STACK, name="stack", **SPATIAL)
    widget = docked(viewer)
    widget.planes.setCurrentIndex(1)
    gate.at = 1
    widget.run_button.click()
    qtbot.waitUntil(gate.reached.is_set, timeout=TIMEOUT)
    viewer.layers.remove("stack")
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        gate.open.set()
    np.testing.assert_array_equal(viewer.layers["stack deblurred"].data, 255 - STACK)


def test_channels_take_the_motion_of_the_one_shown(qtbot, viewer, gate, monkeypatch):
    def restored(image, trajectory, options):
        yield Progress("restore", 1.0, "quick")
        return image // 2

    monkeypatch.setattr(stacks, "restored_steps", restored)
    viewer.add_image(STACK[:3], name="stack")
    viewer.dims.set_current_step(0, 1)
    widget = docked(viewer)
    widget.planes.setCurrentIndex(2)
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        widget.run_button.click()
    assert gate.calls == 1
    sharp = viewer.layers["stack deblurred"]
    np.testing.assert_array_equal(sharp.data[1], 255 - STACK[1])
    np.testing.assert_array_equal(sharp.data[[0, 2]], STACK[[0, 2]] // 2)


def test_a_plane_that_cannot_be_deblurred_is_told(qtbot, viewer, gate):
    stack = STACK[:3].copy()
    stack[1] = 9
    viewer.add_image(stack, name="stack")
    widget = docked(viewer)
    widget.planes.setCurrentIndex(1)
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        widget.run_button.click()
    assert "Plane 2 is left as it is" in widget.stage.text()
    np.testing.assert_array_equal(viewer.layers["stack deblurred"].data[1], stack[1])


def test_the_choice_of_planes_is_for_stacks(viewer):
    viewer.add_image(STACK, name="stack")
    widget = docked(viewer)
    widget.planes.setCurrentIndex(1)
    assert widget.planes.isEnabled()
    flat = viewer.add_image(STACK[0], name="flat")
    widget.layer = flat
    assert not widget.planes.isEnabled() and widget.planes.currentIndex() == 0
