"""The dock that shakes a sharp picture, in a real viewer."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from napari.utils.notifications import notification_manager

from napari_blur2seq import pipeline, shake
from napari_blur2seq._qt.simulate_widget import SimulateWidget
from napari_blur2seq.layers import trajectory_of
from napari_blur2seq.progress import Progress
from napari_blur2seq.trajectory import Trajectory

pytestmark = pytest.mark.gui

TIMEOUT = 60_000
PICTURE = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


def docked(viewer) -> SimulateWidget:
    widget = SimulateWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Simulate")
    return widget


def run_to_end(qtbot, widget: SimulateWidget) -> None:
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        widget.run_button.click()


def test_tremor_is_that_of_the_library_and_lies_on_the_picture(qtbot, viewer):
    spatial = {"scale": (0.5, 0.25), "rotate": 20, "units": ("um", "um"), "translate": (3, 4)}
    image = viewer.add_image(PICTURE, name="sharp", **spatial)
    widget = docked(viewer)
    widget.extent.setValue(6)
    widget.seed.setValue(3)
    widget.noise.setValue(2)
    run_to_end(qtbot, widget)
    sharp, shaken, tracks = viewer.layers
    assert [layer.name for layer in viewer.layers] == [
        "sharp",
        "sharp shaken",
        "sharp true trajectory",
    ]
    truth = shake.simulate_tremor((40, 48), exposure=0.1, amplitude=0.15, extent=6.0, seed=3)
    assert trajectory_of(tracks) == truth
    np.testing.assert_array_equal(shaken.data, pipeline.blur(PICTURE, truth, noise=0.02, seed=3))
    np.testing.assert_array_equal(sharp.data, PICTURE)
    world = image.data_to_world((7, 11))
    np.testing.assert_allclose(shaken.data_to_world((7, 11)), world, atol=1e-6)
    np.testing.assert_allclose(tracks.data_to_world((2, 7, 11)), (2, *world), atol=1e-6)
    assert trajectory_of(shaken) is None  # what is to be found out is not given away
    assert shaken.metadata["blur2seq"]["simulation"]["seed"] == 3
    assert viewer.layers.selection.active is shaken


def test_motion_from_files(qtbot, viewer, tmp_path):
    viewer.add_image(PICTURE, name="sharp")
    widget = docked(viewer)
    widget.motion.setCurrentIndex(1)
    before = len(notification_manager.records)
    widget.run_button.click()
    assert "choose one with Browse" in notification_manager.records[before].message

    small = Trajectory(
        np.linspace(-0.02, 0.02, 9)[:, None] * [1, 2, 3], 24.0, (12.0, 10.0), (20, 24)
    )
    small.save(tmp_path / "small.csv")
    widget.file.setText(str(tmp_path / "small.csv"))
    assert not widget.exposure.isEnabled() and not widget.begin.isEnabled()
    run_to_end(qtbot, widget)
    used = trajectory_of(viewer.layers["sharp true trajectory"])
    assert (used.image_shape, used.focal_length) == ((40, 48), 48.0)
    np.testing.assert_array_equal(used.rotations, small.rotations)

    log = tmp_path / "gyro.txt"
    times = np.arange(400) * 0.005
    np.savetxt(log, np.column_stack([times, np.full((400, 3), [0.0, 0.2, 0.0])]))
    widget.file.setText(str(log))
    assert widget.exposure.isEnabled() and widget.begin.isEnabled()
    widget.begin.setValue(0.5)
    widget.exposure.setValue(50)
    widget.axes.setCurrentIndex(1)
    run_to_end(qtbot, widget)
    used = trajectory_of(viewer.layers["sharp true trajectory [1]"])
    assert used == shake.GyroscopeLog.load(log, np.diag([1, -1, -1])).trajectory(
        (40, 48), start=0.5, exposure=0.05
    )

    widget.begin.setValue(100)
    run_to_end(qtbot, widget)
    assert "is not within the recording" in widget.stage.text()
    assert widget.run_button.isEnabled()


def test_cancel_adds_nothing(qtbot, viewer, monkeypatch):
    viewer.add_image(PICTURE)
    widget = docked(viewer)

    gate = threading.Event()

    def held(image, trajectory, options):
        yield Progress("sequence", 0.5, "at work")
        assert gate.wait(30)
        yield Progress("sequence", 0.6, "at work")
        raise AssertionError("the work went on")

    monkeypatch.setattr(pipeline, "blur_steps", held)
    widget.run_button.click()
    qtbot.waitUntil(lambda: widget.stage.text() == "at work", timeout=TIMEOUT)
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        widget.run_button.click()
        gate.set()
    assert len(viewer.layers) == 1
    assert widget.stage.text() == "Cancelled."


def test_only_what_matters_is_shown_and_everything_is_explained(qtbot, viewer):
    widget = docked(viewer)
    assert not widget.run_button.isEnabled()
    assert widget.sizeHint().height() < 700
    assert widget.minimumSizeHint().width() < 340
    rows = widget.form.rows
    assert rows.isRowVisible(widget.amplitude) and not rows.isRowVisible(widget.begin)
    widget.motion.setCurrentIndex(1)
    assert rows.isRowVisible(widget.begin) and not rows.isRowVisible(widget.amplitude)
    for name, control in vars(widget).items():
        if name[0] != "_" and name != "form" and hasattr(control, "toolTip"):
            assert control.toolTip(), name
