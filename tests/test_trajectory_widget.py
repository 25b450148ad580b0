"""The trajectory view in a real viewer: curves, slider, mouse, export."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from napari_blur2seq._qt.trajectory_widget import TrajectoryWidget
from napari_blur2seq.errors import Blur2SeqError
from napari_blur2seq.layers import picture_of, trajectory_layer
from napari_blur2seq.readout import axis_curves
from napari_blur2seq.shake import simulate_tremor
from napari_blur2seq.trajectory import Trajectory

pytestmark = pytest.mark.gui

PICTURE = np.random.default_rng(0).integers(0, 255, (40, 48), dtype=np.uint8)
MOTION = simulate_tremor((40, 48), extent=6.0, n_poses=9, seed=2)


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


def docked(viewer) -> TrajectoryWidget:
    widget = TrajectoryWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Trajectory")
    return widget


def add_motion(viewer, trajectory: Trajectory = MOTION, name: str = "motion", error=0.5):
    metadata = {"certainty": {"error_px": error}}
    data, keywords, _ = trajectory_layer(trajectory, name, picture_of(viewer), metadata)
    return viewer.add_tracks(data, **keywords)


def curves(widget) -> list[tuple[str, np.ndarray, np.ndarray]]:
    items = widget._angles.listDataItems()
    return [(i.name(), *i.getData()) for i in items if i.name() is not None]


def test_curves_appear_with_the_first_trajectory(viewer):
    viewer.add_image(PICTURE)
    widget = docked(viewer)
    assert "No trajectory yet" in widget.message.text()
    assert not widget.export.isEnabled()
    add_motion(viewer)
    assert [name for name, _, _ in curves(widget)] == ["pitch", "yaw", "roll"]
    expected = axis_curves(MOTION)
    for axis, (_, time, angle) in enumerate(curves(widget)):
        np.testing.assert_allclose(time, np.linspace(0, 1, 9))
        np.testing.assert_allclose(angle, expected[:, axis])
    widget.unit.setCurrentIndex(1)
    np.testing.assert_allclose(curves(widget)[0][2], axis_curves(MOTION, "px")[:, 0])
    # A band about each of the three curves.
    from pyqtgraph import FillBetweenItem

    bands = [i for i in widget._angles.getPlotItem().items if isinstance(i, FillBetweenItem)]
    assert len(bands) == 3
    assert "likely right to 0.5 px" in widget.message.text()
    viewer.layers.clear()
    assert "No trajectory yet" in widget.message.text()


def test_micrometres_where_the_layer_has_them(viewer):
    viewer.add_image(PICTURE, scale=(0.5, 0.5), units=("um", "um"))
    widget = docked(viewer)
    micrometres = widget.unit.model().item(2)
    motion = add_motion(viewer)
    assert micrometres.isEnabled()
    widget.unit.setCurrentIndex(2)
    np.testing.assert_allclose(curves(widget)[1][2], axis_curves(MOTION, "px")[:, 1] / 2)
    assert "µm)" in widget.message.text()
    viewer.layers.remove(motion)
    viewer.layers.clear()
    viewer.add_image(PICTURE)
    add_motion(viewer)
    assert not micrometres.isEnabled()
    assert widget.unit.currentIndex() == 1  # px: nothing is shown in a unit it does not have


def test_the_line_and_the_slider_follow_each_other(viewer):
    viewer.add_image(PICTURE)
    widget = docked(viewer)
    add_motion(viewer)
    viewer.dims.set_current_step(0, 6)
    assert widget._cursor.value() == pytest.approx(6 / 8)
    widget._cursor.setValue(0.25)
    assert viewer.dims.current_step[0] == 2
    assert widget._cursor.value() == pytest.approx(0.25)


def test_the_path_is_that_of_the_point_under_the_mouse(viewer):
    viewer.add_image(PICTURE, scale=(0.5, 0.5))
    widget = docked(viewer)
    add_motion(viewer)

    def path() -> np.ndarray:
        return np.stack(widget._path.listDataItems()[0].getData(), axis=1)

    def expected(x: float, y: float) -> np.ndarray:
        moved = MOTION.paths([[x, y]])[:, 0]
        return moved - moved.mean(axis=0)

    np.testing.assert_allclose(path(), expected(24, 20))
    for position, point in (((0, 5.0, 10.0), (20, 10)), ((0, 90.0, 90.0), (20, 10))):
        viewer.cursor.position = position
        for callback in viewer.mouse_move_callbacks:
            callback(viewer, SimpleNamespace(type="mouse_move", modifiers=(), handled=False))
        np.testing.assert_allclose(path(), expected(*point))
    assert "x 20, y 10" in widget.message.text()


def test_several_are_overlaid_in_the_same_direction(viewer):
    viewer.add_image(PICTURE)
    widget = docked(viewer)
    first = add_motion(viewer)
    second = add_motion(viewer, MOTION.reversed(), "other", error=None)
    assert widget.ticked == [first]
    widget.tick(second)
    shown = curves(widget)
    assert len(shown) == 6 and shown[3][0] == "pitch, other"
    np.testing.assert_allclose(shown[0][2], shown[3][2], atol=1e-9)
    widget.align.setChecked(False)
    shown = curves(widget)
    np.testing.assert_allclose(shown[0][2], shown[3][2][::-1], atol=1e-9)
    second.name = "renamed"
    assert widget.ticked == [first, second]
    viewer.layers.remove(first)
    assert widget.ticked == [second]


def test_export(viewer, tmp_path):
    from imageio.v3 import imread

    viewer.add_image(PICTURE)
    widget = docked(viewer)
    with pytest.raises(Blur2SeqError, match="No trajectory yet"):
        widget.save(str(tmp_path / "a.csv"))
    motion = add_motion(viewer)
    widget.save(str(tmp_path / "a.csv"))
    assert Trajectory.load(tmp_path / "a.csv") == MOTION
    widget.save(str(tmp_path / "a.png"))
    picture = imread(tmp_path / "a.png")
    assert picture[..., :3].std() > 5
    widget.save(str(tmp_path / "a.svg"))
    assert "<svg" in (tmp_path / "a.svg").read_text(encoding="utf-8")[:1000]
    with pytest.raises(Blur2SeqError, match="No sequence belongs to 'motion'"):
        widget.save(str(tmp_path / "a.gif"))
    viewer.add_image(np.stack([PICTURE] * 9), metadata=motion.metadata)
    for name in ("a.gif", "a.ome.tif", "a.mp4"):
        widget.save(str(tmp_path / name))
        assert (tmp_path / name).stat().st_size > 0


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_themes_and_a_small_screen(viewer, theme):
    viewer.add_image(PICTURE)
    widget = docked(viewer)
    add_motion(viewer)
    viewer.theme = theme
    background = np.array([40, 40, 40] if theme == "dark" else [255, 255, 255])
    pen = widget._angles.getAxis("left").textPen().color()
    text = np.array([pen.red(), pen.green(), pen.blue()])
    assert np.abs(text - background).mean() > 100
    assert widget.minimumSizeHint().height() < 600
    assert widget.minimumSizeHint().width() < 340
    for name, control in vars(widget).items():
        if name[0] != "_" and hasattr(control, "toolTip"):
            assert control.toolTip(), name


def test_a_closed_dock_is_left_alone(viewer):
    viewer.add_image(PICTURE)
    widget = docked(viewer)
    add_motion(viewer)
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    del widget
    add_motion(viewer)
    viewer.dims.set_current_step(0, 3)
    viewer.theme = "light"
