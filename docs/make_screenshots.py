"""Take the pictures of the documentation: run the plugin for real in a viewer.

    make screenshots

needs the package installed and, without a screen, a virtual display with OpenGL.
"""

from __future__ import annotations

import sys
from pathlib import Path

import napari
import numpy as np
from imageio.v3 import imwrite
from qtpy.QtCore import QEventLoop, QTimer

from napari_blur2seq._qt.deblur_widget import DeblurWidget

IMAGES = Path(__file__).parent / "images"
SIZE = (1500, 900)
LIMIT_MS = 10 * 60 * 1000


def wait_for(widget: DeblurWidget) -> None:
    """Run the event loop until the work of the widget has ended."""
    loop = QEventLoop()
    widget.done.connect(loop.quit)
    QTimer.singleShot(LIMIT_MS, loop.quit)
    loop.exec()
    if not widget.stage.text().startswith("Done"):
        sys.exit(f"The work did not end well: {widget.stage.text()}")


def settle(milliseconds: int = 1500) -> None:
    """Let the viewer draw and its notifications fade."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def take(viewer: napari.Viewer, name: str) -> None:
    """Save the window, after a look at whether its canvas shows anything."""
    canvas = viewer.screenshot(canvas_only=True, flash=False)
    if canvas[..., :3].std() <= 5:
        sys.exit("The canvas is black: use Qt's xcb platform on a display with OpenGL.")
    window = viewer.screenshot(canvas_only=False, flash=False)
    IMAGES.mkdir(exist_ok=True)
    path = IMAGES / f"{name}.png"
    imwrite(path, np.ascontiguousarray(window[..., :3]))
    print(path)


def main() -> None:
    """The clock that scikit-image ships, before and after."""
    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.window.resize(*SIZE)
    viewer.open_sample("napari-blur2seq", "clock")
    _, widget = viewer.window.add_plugin_dock_widget("napari-blur2seq")
    assert isinstance(widget, DeblurWidget)
    settle()
    viewer.reset_view()
    widget.run()
    wait_for(widget)
    # The blurry picture beside the result.
    blurry = viewer.layers[0]
    blurry.translate = (0, -1.04 * blurry.data.shape[1])
    viewer.reset_view()
    settle()
    take(viewer, "viewer")
    viewer.close()


if __name__ == "__main__":
    main()
