"""Kernels drawn over the picture, in a real viewer."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from napari.layers import Image, Vectors

from napari_blur2seq._qt.kernel_widget import KernelWidget
from napari_blur2seq.kernel_field import grid_points, path_segments
from napari_blur2seq.layers import picture_of, trajectory_layer
from napari_blur2seq.shake import simulate_tremor

pytestmark = pytest.mark.gui

PICTURE = np.random.default_rng(0).integers(0, 255, (40, 48), dtype=np.uint8)
MOTION = simulate_tremor((40, 48), extent=6.0, n_poses=9, seed=2)
SPATIAL = {"scale": (0.5, 0.25), "rotate": 20, "units": ("um", "um"), "translate": (3, 4)}


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


def docked(viewer) -> KernelWidget:
    widget = KernelWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Blur kernels")
    return widget


def add_motion(viewer):
    data, keywords, _ = trajectory_layer(MOTION, "motion", picture_of(viewer))
    return viewer.add_tracks(data, **keywords)


def move_mouse(viewer, position) -> None:
    viewer.cursor.position = position
    for callback in viewer.mouse_move_callbacks:
        callback(viewer, SimpleNamespace(type="mouse_move", modifiers=(), handled=False))


@pytest.mark.parametrize("picture_is_open", [True, False])
def test_paths_and_kernels_lie_on_the_picture(viewer, picture_is_open):
    image = viewer.add_image(PICTURE, **SPATIAL)
    motion = add_motion(viewer)
    if not picture_is_open:
        viewer.layers.remove(image)
    widget = docked(viewer)
    widget.across.setValue(4)
    widget.magnification.setValue(2)
    widget.draw_button.click()
    paths = viewer.layers["motion blur"]
    assert isinstance(paths, Vectors)
    np.testing.assert_allclose(
        paths.data, path_segments(MOTION, grid_points((40, 48), 4), 2.0)[0], atol=1e-4
    )
    world = image.data_to_world((7, 11))
    np.testing.assert_allclose(paths.data_to_world((7, 11)), world, atol=1e-6)
    assert paths.units == image.units
    widget.kind.setCurrentIndex(1)
    widget.draw_button.click()
    kernels = viewer.layers["motion blur"]  # in place of the former
    assert isinstance(kernels, Image) and paths not in viewer.layers
    assert kernels.data.shape == (40, 48)
    np.testing.assert_allclose(kernels.data_to_world((7, 11)), world, atol=1e-6)
    assert kernels.colormap.map(np.array([0.0]))[0, 3] == 0  # clear where there is no kernel
    assert motion in viewer.layers


def test_the_path_under_the_mouse_comes_and_goes(viewer):
    stack = viewer.add_image(np.stack([PICTURE] * 3), name="stack")
    viewer.dims.set_current_step(0, 1)
    add_motion(viewer)
    widget = docked(viewer)
    move_mouse(viewer, (0, 1, 10, 20))
    assert "motion path here" not in viewer.layers
    widget.follow.setChecked(True)
    move_mouse(viewer, (0, 1, 10, 20))
    path = viewer.layers["motion path here"]
    assert path.data.shape == (8, 2, 3)
    centre = (path.data[:, 0, 1:].sum(0) + path.data[-1].sum(0)[1:]) / 9
    np.testing.assert_allclose(centre, (10, 20), atol=1e-4)
    assert "x 20, y 10" in widget.message.text()
    move_mouse(viewer, (0, 1, 30, 5))
    assert viewer.layers["motion path here"] is path
    centre = (path.data[:, 0, 1:].sum(0) + path.data[-1].sum(0)[1:]) / 9
    np.testing.assert_allclose(centre, (30, 5), atol=1e-4)
    viewer.layers.remove(stack)
    widget.follow.setChecked(False)
    assert path not in viewer.layers


def test_without_a_trajectory_there_is_nothing_to_draw(viewer):
    viewer.add_image(PICTURE)
    widget = docked(viewer)
    assert not widget.draw_button.isEnabled()
    assert "No trajectory yet" in widget.message.text()
    assert widget.minimumSizeHint().width() < 340
    for name, control in vars(widget).items():
        if name[0] != "_" and hasattr(control, "toolTip"):
            assert control.toolTip(), name
    motion = add_motion(viewer)
    assert widget.draw_button.isEnabled()
    viewer.layers.remove(motion)
    assert not widget.draw_button.isEnabled()
