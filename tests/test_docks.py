"""What holds for every dock of the plugin."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from importlib.resources import files

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from napari_blur2seq.layers import picture_of, trajectory_layer
from napari_blur2seq.shake import simulate_tremor

pytestmark = pytest.mark.gui

PICTURE = np.random.default_rng(0).integers(0, 255, (40, 48), dtype=np.uint8)


def dock_classes() -> dict[str, str]:
    """Python name of each dock of the manifest, by its title."""
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(str(files("napari_blur2seq") / "napari.yaml"))
    commands = {c.id: c.python_name for c in manifest.contributions.commands}
    return {w.display_name: commands[w.command] for w in manifest.contributions.widgets}


def make(python_name: str, viewer):
    module, name = python_name.split(":")
    return getattr(import_module(module), name)(viewer)


@pytest.fixture
def viewer(make_napari_viewer):
    viewer = make_napari_viewer()
    viewer.add_image(PICTURE, name="a picture with a name much longer than any dock is wide")
    motion = simulate_tremor((40, 48), extent=6.0, n_poses=9)
    data, keywords, _ = trajectory_layer(motion, "motion", picture_of(viewer))
    viewer.add_tracks(data, **keywords)
    return viewer


@pytest.mark.parametrize("title", dock_classes())
def test_a_dock_fits_explains_itself_and_is_reached_by_keys(viewer, title):
    from qtpy.QtWidgets import (
        QAbstractButton,
        QAbstractSlider,
        QAbstractSpinBox,
        QComboBox,
        QLabel,
        QLineEdit,
        QScrollBar,
    )

    widget = make(dock_classes()[title], viewer)
    viewer.window.add_dock_widget(widget, name=title)
    assert widget.minimumSizeHint().height() < 600
    assert widget.minimumSizeHint().width() < 340
    letters: list[str] = []
    for kind in (QAbstractButton, QAbstractSlider, QAbstractSpinBox, QComboBox, QLabel, QLineEdit):
        for control in widget.findChildren(kind):
            within = control.parent()
            inner = isinstance(control, QScrollBar) or isinstance(
                within, QAbstractSpinBox | QComboBox
            )
            if inner or not control.objectName().startswith("qt_"):
                text = control.text() if isinstance(control, QAbstractButton | QLabel) else ""
                letters += re.findall(r"&(\w)", text.lower())
            if inner or "pyqtgraph" in type(within).__module__ or control.isHidden():
                continue
            assert control.toolTip() or not control.isEnabled() or not _said(control), control
    assert len(letters) == len(set(letters)), letters
    # Those of napari's menus: File, View, Layers, Plugins, Window, Help.
    assert not set(letters) & set("fvlpwh"), letters


def _said(control) -> str:
    return control.text() if hasattr(control, "text") else "a control"


@pytest.mark.parametrize("title", dock_classes())
def test_a_dock_is_closed_while_layers_come_and_go(viewer, title):
    widget = make(dock_classes()[title], viewer)
    viewer.window.add_dock_widget(widget, name=title)
    viewer.layers[0].name = "renamed"
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    del widget
    viewer.layers.clear()
    viewer.add_image(PICTURE)
    viewer.dims.ndisplay = 3
    viewer.theme = "light"


def test_what_does_not_fit_in_a_choice_is_in_its_tool_tip(qtbot, viewer):
    from qtpy.QtCore import QEvent, QPoint
    from qtpy.QtGui import QHelpEvent
    from qtpy.QtWidgets import QApplication, QToolTip

    from napari_blur2seq._qt.parts import LayerChoice

    choice = LayerChoice(viewer, lambda layer: layer.name.startswith("a picture"))
    qtbot.addWidget(choice)
    choice.setToolTip("The picture.")
    choice.resize(120, choice.sizeHint().height())
    choice.show()
    QApplication.sendEvent(choice, QHelpEvent(QEvent.Type.ToolTip, QPoint(5, 5), QPoint(5, 5)))
    assert QToolTip.text() == f"{viewer.layers[0].name}\n\nThe picture."
    viewer.layers[0].name = "a picture"
    QApplication.sendEvent(choice, QHelpEvent(QEvent.Type.ToolTip, QPoint(5, 5), QPoint(5, 5)))
    assert QToolTip.text() == "The picture."


def test_opening_all_docks_imports_nothing_heavy():
    code = f"""
import sys
from importlib import import_module
import napari
viewer = napari.Viewer(show=False)
before = set(sys.modules)
for name in {list(dock_classes().values())}:
    module, kind = name.split(":")
    viewer.window.add_dock_widget(getattr(import_module(module), kind)(viewer))
new = set(sys.modules) - before
print([m for m in ("torch", "pyqtgraph", "skimage", "matplotlib", "scipy.signal") if m in new])
viewer.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
