"""The comparison in a real viewer."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from napari.utils.notifications import notification_manager

from napari_blur2seq._qt.compare_widget import CompareWidget
from napari_blur2seq.layers import picture_of, trajectory_layer
from napari_blur2seq.shake import simulate_tremor

pytestmark = pytest.mark.gui

A = np.random.default_rng(0).integers(0, 255, (40, 48), dtype=np.uint8)
B = np.random.default_rng(1).integers(0, 255, (40, 48), dtype=np.uint8)
MOTION = simulate_tremor((40, 48), extent=6.0, n_poses=9, seed=2)


@pytest.fixture
def viewer(make_napari_viewer):
    viewer = make_napari_viewer()
    viewer.add_image(A, name="a", scale=(2, 2))
    viewer.add_image(B, name="b", scale=(2, 2))
    return viewer


@pytest.fixture
def widget(viewer) -> CompareWidget:
    widget = CompareWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Compare")
    widget.first.layer = viewer.layers["a"]
    widget.second.layer = viewer.layers["b"]
    return widget


def grid(viewer):
    return getattr(viewer, "canvas", viewer).grid


def names(viewer) -> list[str]:
    return [layer.name for layer in viewer.layers]


def test_swipe_with_the_slider_and_the_mouse(viewer, widget):
    widget.show_button.click()
    assert names(viewer) == ["a", "b", "first | second", "swipe line"]
    joined, line = viewer.layers[2:]
    np.testing.assert_array_equal(joined.data[:, :24], A[:, :24])
    np.testing.assert_array_equal(joined.data[:, 24:], B[:, 24:])
    np.testing.assert_array_equal(joined.scale, (2, 2))
    widget.position.setValue(250)
    np.testing.assert_array_equal(joined.data[:, 12:], B[:, 12:])
    assert line.data[0, 0, 1] == 11.5
    assert widget.first.count() == 2  # what is shown here is not offered

    drag = widget._drag_line
    far = SimpleNamespace(type="mouse_press", position=(20, 90))
    assert list(drag(viewer, far)) == []
    assert viewer.camera.mouse_pan
    event = SimpleNamespace(type="mouse_press", position=(20, 24))
    steps = drag(viewer, event)
    next(steps)
    assert not viewer.camera.mouse_pan
    event.type, event.position = "mouse_move", (20, 72)
    next(steps)
    np.testing.assert_array_equal(joined.data[:, :36], A[:, :36])
    np.testing.assert_array_equal(joined.data[:, 36:], B[:, 36:])
    event.type = "mouse_release"
    assert list(steps) == []
    assert viewer.camera.mouse_pan
    widget.show_button.click()
    assert names(viewer) == ["a", "b"]


def test_blink_and_side_by_side_leave_the_viewer_as_it_was(viewer, widget):
    a, b = viewer.layers
    other = viewer.add_image(A, name="other", visible=False)
    shown = viewer.add_image(A, name="shown")
    widget.mode.setCurrentIndex(1)
    widget.show_button.click()
    assert [layer.visible for layer in viewer.layers] == [True, False, False, False]
    widget._timer.timeout.emit()
    assert b.visible
    widget._timer.timeout.emit()
    assert not b.visible
    widget.mode.setCurrentIndex(2)  # from one to the other
    assert not widget._timer.isActive()
    assert grid(viewer).enabled
    assert [layer.visible for layer in (a, b, other, shown)] == [True, True, False, False]
    layers = list(viewer.layers)
    left, right = (grid(viewer).position(layers.index(layer), layers) for layer in (a, b))
    assert (left, right) == ((0, 0), (0, 1))
    widget.show_button.click()
    assert not grid(viewer).enabled
    assert [layer.visible for layer in (a, b, other, shown)] == [True, True, False, True]
    # The other way round, and with a layer between them.
    widget.first.layer, widget.second.layer = shown, a
    widget.show_button.click()
    left, right = (grid(viewer).position(layers.index(layer), layers) for layer in (shown, a))
    assert (left, right) == ((0, 0), (0, 1))


def test_difference_is_symmetric_about_black(viewer, widget):
    widget.mode.setCurrentIndex(3)
    widget.show_button.click()
    layer = viewer.layers["second less first"]
    np.testing.assert_allclose(layer.data, (B.astype(float) - A) / 255, atol=1e-6)
    low, high = layer.contrast_limits
    assert low == -high
    np.testing.assert_allclose(layer.colormap.map(np.array([0.5]))[0], (0, 0, 0, 1), atol=0.02)


def test_contrast_is_linked_and_unlinked(viewer, widget):
    a, b = viewer.layers
    a.contrast_limits = (10, 100)
    widget.link.setChecked(True)
    assert tuple(b.contrast_limits) == (10, 100)
    b.contrast_limits = (20, 50)
    assert tuple(a.contrast_limits) == (20, 50)
    widget.link.setChecked(False)
    b.contrast_limits = (0, 200)
    assert tuple(a.contrast_limits) == (20, 50)


def test_layers_that_go_away_end_the_comparison(viewer, widget):
    widget.show_button.click()
    viewer.layers.remove("b")
    assert names(viewer) == ["a"]
    assert not widget.show_button.isChecked() and not widget.show_button.isEnabled()
    assert not widget.run_button.isEnabled()
    viewer.add_image(B, name="b")
    widget.second.layer = viewer.layers["b"]
    widget.show_button.click()
    viewer.layers.remove("swipe line")
    assert names(viewer) == ["a", "b"]


def test_pictures_of_different_sizes_are_refused(viewer, widget):
    viewer.add_image(A[:36], name="small")
    widget.second.layer = viewer.layers["small"]
    before = len(notification_manager.records)
    widget.show_button.click()
    assert "same size" in notification_manager.records[before].message
    assert not widget.show_button.isChecked()
    assert names(viewer) == ["a", "b", "small"]


def test_numbers_stand_in_the_table(qtbot, viewer, widget):
    data, keywords, _ = trajectory_layer(MOTION, "truth", picture_of(viewer))
    viewer.add_tracks(data, **keywords)
    viewer.layers["b"].metadata = {"blur2seq": {"trajectory_csv": MOTION.scaled(0.5).to_csv()}}
    assert widget.reference.layer is None
    widget.reference.layer = viewer.layers["a"]
    widget.reference_trajectory.layer = viewer.layers["truth"]
    with qtbot.waitSignal(widget.done, timeout=300_000):
        widget.run_button.click()
    rows = [
        [widget.table.item(i, j).text() for j in range(3)] for i in range(widget.table.rowCount())
    ]
    assert [row[0] for row in rows] == [
        "blur effect",
        "reblur residual (%)",
        "PSNR (dB)",
        "SSIM",
        "path error (px)",
    ]
    assert rows[1][1] == "-" and float(rows[1][2]) > 0
    assert rows[3][1] == "1"
    assert widget.table.item(0, 0).toolTip()
    assert widget.sizeHint().height() < 700
    assert widget.minimumSizeHint().width() < 340
    for name, control in vars(widget).items():
        if name[0] != "_" and name != "form" and hasattr(control, "toolTip"):
            assert control.toolTip(), name
