"""Take the pictures of the documentation: run the plugin for real in a viewer.

    make docs

needs the package installed and, without a screen, a virtual display with OpenGL. With names of
pictures as arguments, only those are made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
from imageio.v3 import imwrite
from napari._qt.utils import QImg2array
from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QWidget

IMAGES = Path(__file__).parent / "images"
# A small screen: every dock must be usable on it.
SIZE = (1400, 700)
LIMIT_MS = 60 * 60 * 1000


def settle(milliseconds: int = 1500) -> None:
    """Let the viewer draw and its notifications fade."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def wait_for(widget: Any, start: Callable[[], None]) -> None:
    """Start the work of a dock and run the event loop until it has ended well."""
    loop = QEventLoop()
    widget.done.connect(loop.quit)
    QTimer.singleShot(LIMIT_MS, loop.quit)
    before = widget.stage.text()
    start()
    if widget.working:
        loop.exec()
    if widget.stage.text() in (before, "Cancelled.") or "rror" in widget.stage.text():
        sys.exit(f"The work did not end well: {widget.stage.text()}")


def new_viewer() -> napari.Viewer:
    """An empty viewer of the size of a small screen."""
    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.window.resize(*SIZE)
    settle(500)
    return viewer


def dock(viewer: napari.Viewer, name: str) -> Any:
    """Open a dock of the plugin by its name in the menu."""
    _, widget = viewer.window.add_plugin_dock_widget("napari-blur2seq", name)
    settle(500)
    return widget


def close(viewer: napari.Viewer, widget: QWidget) -> None:
    """Close a dock."""
    viewer.window.remove_dock_widget(widget)
    settle(300)


def save(picture: np.ndarray, name: str) -> None:
    """Write a picture of the documentation."""
    IMAGES.mkdir(exist_ok=True)
    path = IMAGES / f"{name}.png"
    imwrite(path, np.ascontiguousarray(picture[..., :3]))
    print(path, flush=True)


def take(viewer: napari.Viewer, name: str) -> None:
    """Save the window, after a look at whether its canvas shows anything."""
    settle()
    canvas = viewer.screenshot(canvas_only=True, flash=False)
    if canvas[..., :3].std() <= 5:
        sys.exit("The canvas is black: use Qt's xcb platform on a display with OpenGL.")
    save(viewer.screenshot(canvas_only=False, flash=False), name)


def shaken_coffee(viewer: napari.Viewer) -> QWidget:
    """A sharp picture and the same shaken, with its true motion; the dock that did it."""
    from skimage.data import coffee

    viewer.add_image(coffee(), name="coffee")
    widget = dock(viewer, "Simulate shake")
    widget.extent.setValue(14)
    widget.seed.setValue(7)
    viewer.reset_view()
    wait_for(widget, widget.run)
    return widget


def simulate() -> None:
    """The dock that shakes."""
    viewer = new_viewer()
    shaken_coffee(viewer)
    take(viewer, "simulate")
    viewer.close()


def trajectory() -> None:
    """The curves of the simulated motion."""
    viewer = new_viewer()
    close(viewer, shaken_coffee(viewer))
    widget = dock(viewer, "Trajectory")
    widget.unit.setCurrentIndex(1)
    viewer.dims.set_current_step(0, 16)
    take(viewer, "trajectory")
    viewer.close()


def refine() -> None:
    """The dock that refines, held after some steps from a motion that is too short."""
    from skimage.data import coffee

    import napari_blur2seq as b2s
    from napari_blur2seq.layers import picture_of, trajectory_layer

    sharp = np.ascontiguousarray(coffee()[60:300, 150:450])
    motion = b2s.shake.simulate_tremor(sharp.shape, extent=14.0, seed=7)
    viewer = new_viewer()
    viewer.add_image(np.asarray(b2s.blur(sharp, motion, noise=0.005)), name="coffee")
    data, keywords, _ = trajectory_layer(motion.scaled(0.85), "motion", picture_of(viewer))
    viewer.add_tracks(data, **keywords)
    viewer.reset_view()
    widget = dock(viewer, "Refine")
    widget.run()
    while widget.working and len(widget._heights) < 12:
        settle(200)
    widget.pause_button.click()
    viewer.dims.set_current_step(0, len(motion) - 1)
    take(viewer, "refine")
    widget.cancel()
    while widget.working:
        settle(200)
    viewer.close()


def kernels() -> None:
    """The grid of kernels over the shaken picture."""
    viewer = new_viewer()
    close(viewer, shaken_coffee(viewer))
    viewer.layers["coffee true trajectory"].visible = False
    widget = dock(viewer, "Blur kernels")
    widget.draw()
    take(viewer, "kernels")
    viewer.close()


def comparison() -> None:
    """The swipe line between the shaken and the sharp picture, and the numbers."""
    viewer = new_viewer()
    close(viewer, shaken_coffee(viewer))
    viewer.layers["coffee true trajectory"].visible = False
    widget = dock(viewer, "Compare")
    widget.first.layer = viewer.layers["coffee shaken"]
    widget.second.layer = viewer.layers["coffee"]
    widget.reference.layer = viewer.layers["coffee"]
    wait_for(widget, widget.run)
    widget.show_button.click()
    take(viewer, "compare")
    viewer.close()


def viewer() -> None:
    """The shaken photograph of the samples, before and after."""
    viewer = new_viewer()
    viewer.open_sample("napari-blur2seq", "photograph")
    widget = dock(viewer, "Deblur")
    viewer.reset_view()
    wait_for(widget, widget.run)
    put_beside(viewer)
    take(viewer, "viewer")
    viewer.close()


def put_beside(viewer: napari.Viewer) -> None:
    """Move the blurry picture, the lowest layer, to the left of the result."""
    blurry = viewer.layers[0]
    blurry.translate = (0, -1.04 * blurry.data.shape[1])
    viewer.reset_view()


def night() -> None:
    """A rocket at night with lamps ten times as bright as white, before and after."""
    from skimage.data import rocket

    import napari_blur2seq as b2s

    light = (rocket() / 255.0) ** 2.2
    light += 10 * np.clip(light - 0.9, 0, None) / 0.1
    motion = b2s.shake.simulate_tremor(light.shape, extent=14.0, seed=7)
    seen = np.asarray(b2s.blur(light, motion)).clip(0, 1) ** (1 / 2.2)
    noise = np.random.default_rng(7).normal(0, 0.01, seen.shape)
    viewer = new_viewer()
    viewer.add_image(((seen + noise).clip(0, 1) * 255).round().astype(np.uint8), name="night")
    widget = dock(viewer, "Deblur")
    viewer.reset_view()
    wait_for(widget, widget.run)
    viewer.layers["night trajectory"].visible = False
    put_beside(viewer)
    take(viewer, "night")
    viewer.close()


def gallery() -> None:
    """Two photographs, a micrograph and a really shaken photograph, before and after."""
    from skimage.data import camera

    import napari_blur2seq as b2s

    viewer = new_viewer()
    widget = dock(viewer, "Deblur")
    pairs = []
    for name in ("photograph", "clock", "camera", "micrograph"):
        viewer.layers.clear()
        if name == "camera":
            motion = b2s.shake.simulate_tremor(camera().shape, extent=25.0, seed=7)
            viewer.add_image(np.asarray(b2s.blur(camera(), motion, noise=0.01)))
        else:
            viewer.open_sample("napari-blur2seq", name)
        microscope = name == "micrograph"
        widget.camera_choice.setCurrentIndex(widget.camera_choice.count() - 1 if microscope else 0)
        wait_for(widget, widget.run)
        pairs.append([layer.data for layer in viewer.layers[:2]])
    close(viewer, widget)
    viewer.layers.clear()
    # Two pairs a row, all pictures of the same width.
    width, gap, top = 350, 8, 0.0
    for row in (pairs[:2], pairs[2:]):
        left, bottom = 0, top
        for picture in (*row[0], *row[1]):
            scale = width / picture.shape[1]
            viewer.add_image(picture, scale=(scale, scale), translate=(top, left))
            left += width + gap
            bottom = max(bottom, top + scale * picture.shape[0])
        top = bottom + gap
    settle()
    save(viewer.export_figure(scale_factor=0.6, flash=False), "gallery")
    viewer.close()


def preferences() -> None:
    """The plugin's page of napari's preferences."""
    from napari_blur2seq.layers import plugin_settings

    viewer = new_viewer()
    plugin_settings()
    dialog = viewer.window._open_preferences_dialog()
    (page,) = dialog._list.findItems("Blur2seq", Qt.MatchFlag.MatchExactly)
    dialog._list.setCurrentItem(page)
    dialog.resize(1100, 640)
    settle()
    save(QImg2array(dialog.grab().toImage()), "preferences")
    dialog.reject()
    viewer.close()


PICTURES = {
    f.__name__: f
    for f in (
        simulate,
        trajectory,
        refine,
        kernels,
        comparison,
        viewer,
        night,
        gallery,
        preferences,
    )
}


def main(*names: str) -> None:
    """Make the pictures of these names, or all."""
    for name in names or PICTURES:
        PICTURES[name]()


if __name__ == "__main__":
    main(*sys.argv[1:])
