"""The dock that draws the blur over the picture: a grid of local kernels, a path on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.compat import isalive
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QLabel,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from ..kernel_field import fitting_magnification, grid_points
from ..layers import (
    Source,
    is_trajectory,
    kernels_layer,
    paths_layer,
    picture_of,
    place_of_tracks,
    trajectory_of,
)
from .parts import Choice, Form, LayerChoice

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from ..trajectory import Trajectory

_PATHS, _KERNELS = range(2)
_NONE = "No trajectory yet: deblur a picture, or drop a trajectory file on the viewer."


class KernelWidget(QWidget):
    """Draw local blur kernels as a layer that zooms with the picture.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    parent : QWidget, optional
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = napari_viewer
        self._under_mouse: Layer | None = None
        self._field: Layer | None = None
        self.trajectory_choice = LayerChoice(napari_viewer, is_trajectory)
        self.trajectory_choice.setToolTip("The camera motion whose blur is drawn.")
        self.kind = Choice()
        self.kind.addItems(["paths over time", "kernels"])
        self.kind.setToolTip(
            "Paths show the order of the motion by colour, from blue to red; kernels how long the "
            "picture stayed at each place, which is what a convolution needs."
        )
        self.across = QSpinBox()
        self.across.setRange(1, 40)
        self.across.setValue(8)
        self.across.setToolTip("How many kernels are drawn along the longer side of the picture.")
        self.magnification = QDoubleSpinBox()
        self.magnification.setRange(0, 100)
        self.magnification.setDecimals(1)
        self.magnification.setSpecialValueText("to fit")
        self.magnification.setToolTip(
            "How many times larger than the blur itself the kernels are drawn; 1 is true to scale, "
            "0 fills the grid."
        )
        self.draw_button = QPushButton("&Draw")
        self.draw_button.setToolTip("Add the kernels as a layer, or draw the last one anew.")
        self.draw_button.clicked.connect(self.draw)
        self.follow = QCheckBox("show the path under the &mouse")
        self.follow.setToolTip(
            "While it is ticked, the path at the image point under the mouse is drawn there."
        )
        self.follow.toggled.connect(self._follow_toggled)
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setToolTip("What is drawn.")
        form = Form()
        form.add(
            ("&Trajectory", self.trajectory_choice),
            ("Draw &as", self.kind),
            ("&Number across", self.across),
            ("Ma&gnification", self.magnification),
        )
        layout = QVBoxLayout(self)
        layout.addWidget(form)
        for widget in (self.draw_button, self.follow, self.message):
            layout.addWidget(widget)
        layout.addStretch(1)
        napari_viewer.mouse_move_callbacks.append(self._follow_mouse)
        self.trajectory_choice.changed.connect(self._trajectory_changed)
        self._trajectory_changed()

    def _trajectory_changed(self) -> None:
        there = self.trajectory_choice.layer is not None
        self.draw_button.setEnabled(there)
        self.follow.setEnabled(there)
        self.message.setText("" if there else _NONE)
        self._remove_path()

    def _chosen(self) -> tuple[Trajectory, Source, str] | None:
        """The trajectory, where it lies, and the name of its layer."""
        layer = self.trajectory_choice.layer
        trajectory = None if layer is None else trajectory_of(layer)
        if layer is None or trajectory is None:
            return None
        return trajectory, self._place(layer, trajectory), layer.name

    def _place(self, layer: Layer, trajectory: Trajectory) -> Source:
        """The picture the tracks lie on, or, where it is gone, a stand-in at their place."""
        return picture_of(self._viewer, trajectory.image_shape) or place_of_tracks(
            layer, trajectory
        )

    def _magnification(self, trajectory: Trajectory) -> float:
        return self.magnification.value() or fitting_magnification(trajectory, self.across.value())

    def draw(self) -> None:
        """Draw the grid of kernels."""
        chosen = self._chosen()
        if chosen is None:
            return
        trajectory, source, name = chosen
        points = grid_points(trajectory.image_shape, self.across.value())
        factor = self._magnification(trajectory)
        make = paths_layer if self.kind.currentIndex() == _PATHS else kernels_layer
        data = make(trajectory, points, factor, f"{name} blur", source)
        if self._field is not None and self._field in self._viewer.layers:
            self._viewer.layers.remove(self._field)
        self._field = self._add(data)
        self.message.setText(
            f"{len(points)} places, drawn {factor:.3g} times larger than the blur itself."
            if factor != 1
            else f"{len(points)} places, true to scale."
        )

    def _add(self, data: Any) -> Layer:
        from napari.layers import Layer

        active = self._viewer.layers.selection.active
        layer = self._viewer.add_layer(Layer.create(*data))
        self._viewer.layers.selection.active = active
        return layer

    # ------------------------------------------------------------------ path under the mouse

    def _follow_toggled(self, on: bool) -> None:
        if not on:
            self._remove_path()

    def _remove_path(self) -> None:
        path, self._under_mouse = self._under_mouse, None
        if path is not None and path in self._viewer.layers:
            self._viewer.layers.remove(path)

    def _follow_mouse(self, viewer: Viewer, event: Any) -> None:
        if not isalive(self) or not self.follow.isChecked():
            return
        chosen = self._chosen()
        if chosen is None:
            return
        trajectory, source, name = chosen
        layer = self.trajectory_choice.layer
        assert layer is not None
        y, x = np.asarray(layer.world_to_data(viewer.cursor.position))[1:][list(source.shown)]
        height, width = trajectory.image_shape
        if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
            return
        factor = self.magnification.value() or 1.0
        data, keywords, kind = paths_layer(
            trajectory, [[x, y]], factor, f"{name} path here", source
        )
        if self._under_mouse is None or self._under_mouse not in viewer.layers:
            # A thin line: it is looked at near by.
            keywords["edge_width"] /= 3
            self._under_mouse = self._add((data, keywords, kind))
        else:
            self._under_mouse.data = data
        path = trajectory.paths([[x, y]])[:, 0]
        length = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
        self.message.setText(f"Path at x {x:.0f}, y {y:.0f}: {length:.1f} px long.")
