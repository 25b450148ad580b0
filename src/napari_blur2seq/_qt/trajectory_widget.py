"""The dock that shows trajectories: angles over time, the path of an image point, export."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.utils.notifications import show_error, show_info
from qtpy.compat import isalive
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ..errors import Blur2SeqError
from ..files import split_name
from ..layers import error_of, is_trajectory, sequence_of, trajectory_of
from ..readout import (
    Unit,
    axis_bands,
    axis_curves,
    axis_names,
    certainty,
    clock,
    same_direction,
)
from ..units import pixel_size
from ..writers import write_sequence
from .curves import make_plot, restyle, style_of
from .parts import Choice, Form

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from ..trajectory import Trajectory

_STYLES = (
    Qt.PenStyle.SolidLine,
    Qt.PenStyle.DashLine,
    Qt.PenStyle.DotLine,
    Qt.PenStyle.DashDotLine,
)
_LINES = ("——", "- - -", "· · · ·", "- · - ·")
_NONE = "No trajectory yet: deblur a picture, or drop a trajectory file on the viewer."
_UNITS: dict[str, Unit] = {
    "degrees": "degrees",
    "px at the corner": "px",
    "µm at the corner": "µm",
}


class TrajectoryWidget(QWidget):
    """Curves of one or several trajectories, tied to the viewer's time slider and cursor.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    parent : QWidget, optional

    Attributes
    ----------
    drawn : Signal
        The curves have been drawn anew.
    """

    drawn = Signal()

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = napari_viewer
        self._layers: list[Layer] = []
        self._shown: list[tuple[Layer, Trajectory]] = []
        self._point: tuple[float, float] | None = None
        self._angles: Any = None  # the plots, made when there is something to show
        self._path: Any = None
        self._cursor: Any = None
        self._build()
        events = napari_viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered, events.renamed):
            event.connect(self._list_layers)
        napari_viewer.dims.events.current_step.connect(self._follow_slider)
        napari_viewer.events.theme.connect(self._restyle)
        napari_viewer.mouse_move_callbacks.append(self._follow_mouse)
        self._list_layers()

    # ------------------------------------------------------------------ controls

    def _build(self) -> None:
        self.choice = QListWidget()
        self.choice.setToolTip(
            "The trajectories shown, each with its own kind of line; tick several to compare them. "
            "The path below and the export are those of the first one ticked."
        )
        self.choice.setMaximumHeight(76)
        self.choice.setMinimumWidth(120)
        self.choice.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.choice.itemChanged.connect(self._draw)
        self.unit = Choice()
        self.unit.addItems(list(_UNITS))
        self.unit.setToolTip(
            "Degrees of rotation, or how far each rotation alone moves the corner of the picture: "
            "in px, or in micrometres where the layer has units of length."
        )
        self.unit.currentIndexChanged.connect(self._draw)
        self.align = QCheckBox("same &direction of time")
        self.align.setChecked(True)
        self.align.setToolTip(
            "Turn round those that agree better with the first one when time runs backwards: one "
            "picture does not tell the direction."
        )
        self.align.toggled.connect(self._draw)
        self.export = QPushButton("&Export")
        self.export.setToolTip("Save the trajectory, the curves or the sequence as files.")
        menu = QMenu(self.export)
        for text, suffix in (
            ("Trajectory (CSV)", ".csv"),
            ("Curves (PNG)", ".png"),
            ("Curves (SVG)", ".svg"),
            ("Sequence (OME-TIFF)", ".ome.tif"),
            ("Sequence (MP4)", ".mp4"),
            ("Sequence (GIF)", ".gif"),
        ):
            action = menu.addAction(text + " ...")
            action.triggered.connect(partial(self._ask_and_save, suffix))
        self.export.setMenu(menu)
        self.message = QLabel(_NONE)
        self.message.setWordWrap(True)
        self.message.setToolTip("What the lower curve shows.")
        form = Form()
        form.rows.addRow(self.choice)
        form.add(("&Unit", self.unit), ("", self.align))
        layout = QVBoxLayout(self)
        layout.addWidget(form)
        self._plots = QVBoxLayout()
        layout.addLayout(self._plots, 1)
        layout.addWidget(self.message)
        layout.addWidget(self.export)

    def _list_layers(self, event: Any = None) -> None:
        """Offer the trajectory layers; keep what is ticked, and tick the newest at first."""
        if not isalive(self):  # the viewer's events outlive a closed dock
            return
        ticked = [layer for layer, _ in self._shown]
        found = [layer for layer in self._viewer.layers if is_trajectory(layer)]
        new = [layer for layer in found if layer not in self._layers]
        if new and not any(layer in ticked for layer in found):
            ticked = new[-1:]
        self._layers = found
        self.choice.blockSignals(True)
        self.choice.clear()
        for layer in found:
            item = QListWidgetItem()
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            on = Qt.CheckState.Checked if layer in ticked else Qt.CheckState.Unchecked
            item.setCheckState(on)
            self.choice.addItem(item)
        self.choice.blockSignals(False)
        self._draw()

    def tick(self, layer: Layer, on: bool = True) -> None:
        """Show a trajectory layer, or hide it."""
        item = self.choice.item(self._layers.index(layer))
        item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)

    @property
    def ticked(self) -> list[Layer]:
        """The layers whose trajectories are shown."""
        return [
            layer
            for i, layer in enumerate(self._layers)
            if self.choice.item(i).checkState() == Qt.CheckState.Checked
        ]

    def _name_items(self) -> None:
        """Names, after a sample of the line of those that are shown."""
        lines = {id(layer): _LINES[k % len(_LINES)] for k, (layer, _) in enumerate(self._shown)}
        self.choice.blockSignals(True)
        for i, layer in enumerate(self._layers):
            line = lines.get(id(layer), "")
            self.choice.item(i).setText(f"{line}  {layer.name}" if line else layer.name)
        self.choice.blockSignals(False)

    # ------------------------------------------------------------------ curves

    def _make_plots(self) -> None:
        import pyqtgraph as pg

        self._angles = make_plot("Drag the vertical line to move the viewer's time slider.")
        self._angles.setLabel("bottom", "share of the exposure")
        self._cursor = pg.InfiniteLine(0.0, movable=True, bounds=(0, 1))
        self._cursor.sigPositionChanged.connect(self._move_slider)
        self._path = make_plot(
            "Path that the motion draws at the image point under the mouse; the dot is the time "
            "of the slider."
        )
        self._path.setAspectLocked(True)
        self._path.invertY(True)
        self._path.setLabel("bottom", "x", units="px")
        self._path.setLabel("left", "y", units="px")
        for plot in (self._angles, self._path):
            self._plots.addWidget(plot, 1)

    def _pixel_size(self, layer: Layer) -> float | None:
        return pixel_size(tuple(layer.scale), layer.units)

    def _draw(self, *_: object) -> None:
        if not isalive(self):
            return
        self._shown = []
        for layer in self.ticked:
            trajectory = trajectory_of(layer, self._viewer.dims)
            if trajectory is not None:
                if self._shown and self.align.isChecked():
                    trajectory = same_direction(trajectory, self._shown[0][1])
                self._shown.append((layer, trajectory))
        sizes = [self._pixel_size(layer) for layer, _ in self._shown]
        physical = bool(sizes) and None not in sizes
        item = self.unit.model().item(list(_UNITS.values()).index("µm"))
        item.setEnabled(physical)
        # The angles that stand for the shifts of a stage mean nothing to anybody.
        stage = any(trajectory.camera.is_stage for _, trajectory in self._shown)
        self.unit.model().item(list(_UNITS.values()).index("degrees")).setEnabled(not stage)
        unit = _UNITS[self.unit.currentText()]
        if (unit == "µm" and not physical) or (unit == "degrees" and stage):
            self.unit.setCurrentIndex(2 if physical else 1)
            return  # which draws
        self.export.setEnabled(bool(self._shown))
        self._name_items()
        for plot in (self._angles, self._path):
            if plot is not None:
                plot.setVisible(bool(self._shown))
        if not self._shown:
            self.message.setText(_NONE)
            self.drawn.emit()
            return
        if self._angles is None:
            self._make_plots()
        self._draw_angles(sizes)
        self._follow_slider()
        self.drawn.emit()

    def _draw_angles(self, sizes: list[float | None]) -> None:
        import pyqtgraph as pg

        style = style_of(self._viewer)
        text, colours = style.text, style.curves
        unit = _UNITS[self.unit.currentText()]
        plot = self._angles
        plot.clear()
        plot.setLabel("left", "rotation" if unit == "degrees" else "shift", units=None)
        plot.getAxis("left").setLabel(f"{'rotation' if unit == 'degrees' else 'shift'} ({unit})")
        for k, ((layer, trajectory), size) in enumerate(zip(self._shown, sizes, strict=True)):
            curves, time = axis_curves(trajectory, unit, size), clock(trajectory)
            error = error_of(layer)
            bands = None if error is None else axis_bands(trajectory, error, unit, size)
            line = _STYLES[k % len(_STYLES)]
            for axis, name in enumerate(axis_names(trajectory)):
                pen = pg.mkPen(colours[axis], width=2, style=line)
                if bands is not None:
                    edges = [
                        pg.PlotCurveItem(time, curves[:, axis] + sign * bands[axis], pen=None)
                        for sign in (-1, 1)
                    ]
                    for edge in edges:
                        plot.addItem(edge)
                    plot.addItem(pg.FillBetweenItem(*edges, brush=(*colours[axis], 60)))
                label = f"{name}, {layer.name}" if len(self._shown) > 1 else name
                plot.plot(time, curves[:, axis], pen=pen, name=label)
        self._cursor.setPen(pg.mkPen(text, width=1))
        self._cursor.setHoverPen(pg.mkPen(text, width=3))
        plot.addItem(self._cursor)
        for each in (self._angles, self._path):
            restyle(each, style)
        # Angles by colour here, trajectories by kind of line in the list: no legend on the curves.
        words = (
            f'<span style="color: rgb{colour}">{name}</span>'
            for name, colour in zip(axis_names(self._shown[0][1]), colours, strict=True)
        )
        plot.setTitle(" &nbsp; ".join(words), size="9pt")

    def _draw_path(self) -> None:
        import pyqtgraph as pg

        colours = style_of(self._viewer).curves
        self._path.clear()
        layer, first = self._shown[0]
        height, width = first.image_shape
        x, y = self._point or (width / 2, height / 2)
        where = "the middle of the picture" if self._point is None else f"x {x:.0f}, y {y:.0f}"
        for k, (_, trajectory) in enumerate(self._shown):
            path = trajectory.paths([[x, y]])[:, 0]
            path = path - path.mean(axis=0)
            pen = pg.mkPen(colours[k % 3], width=2, style=_STYLES[k % len(_STYLES)])
            self._path.plot(path[:, 0], path[:, 1], pen=pen)
            here = [np.interp(self._cursor.value(), clock(trajectory), path[:, a]) for a in (0, 1)]
            self._path.plot(
                here[:1], here[1:], pen=None, symbol="o", symbolBrush=colours[k % 3], symbolSize=9
            )
        path = first.paths([[x, y]])[:, 0]
        size = self._pixel_size(layer)
        extent = float(np.linalg.norm(np.ptp(path, axis=0)))
        physical = "" if size is None else f" ({extent * size:.3g} µm)"
        certain = certainty(error_of(layer))
        self.message.setText(f"Path at {where}: {extent:.1f} px across{physical}{certain}")

    def _restyle(self, event: Any = None) -> None:
        self._draw()

    # ------------------------------------------------------------------ slider and mouse

    def _time_axis(self) -> int:
        """The viewer's axis along which the poses of the first trajectory lie."""
        return int(self._viewer.dims.ndim - self._shown[0][0].ndim)

    def _follow_slider(self, event: Any = None) -> None:
        if not (isalive(self) and self._shown and self._cursor is not None):
            return
        layer, trajectory = self._shown[0]
        if trajectory_of(layer, self._viewer.dims) != trajectory:  # another plane of a stack
            self._draw()
            return
        axis = self._time_axis()
        if 0 <= axis < self._viewer.dims.ndim and axis not in self._viewer.dims.displayed:
            world = self._viewer.dims.point[axis]
            pose = (world - layer.translate[0]) / layer.scale[0]
            last = max(len(trajectory) - 1, 1)
            share = float(
                np.interp(pose, np.arange(len(trajectory)), clock(trajectory)) if last else 0.0
            )
            self._cursor.blockSignals(True)
            self._cursor.setValue(share)
            self._cursor.blockSignals(False)
        self._draw_path()

    def _move_slider(self, *_: object) -> None:
        layer, trajectory = self._shown[0]
        pose = np.interp(self._cursor.value(), clock(trajectory), np.arange(len(trajectory)))
        world = layer.translate[0] + layer.scale[0] * round(float(pose))
        self._viewer.dims.set_point(self._time_axis(), world)
        self._draw_path()

    def _follow_mouse(self, viewer: Viewer, event: Any) -> None:
        if not (isalive(self) and self._shown and self._path is not None):
            return
        layer, trajectory = self._shown[0]
        height, width = trajectory.image_shape
        y, x = layer.world_to_data(viewer.cursor.position)[-2:]
        if 0 <= x <= width - 1 and 0 <= y <= height - 1:
            self._point = (float(x), float(y))
            self._draw_path()

    # ------------------------------------------------------------------ export

    def _ask_and_save(self, suffix: str, *_: object) -> None:
        stem = self._shown[0][0].name.replace("/", "_")
        path, _ = QFileDialog.getSaveFileName(self, "Export", f"{stem}{suffix}", f"*{suffix}")
        if path:
            path = path if path.lower().endswith(suffix) else path + suffix
            try:
                self.save(path)
            except (Blur2SeqError, OSError) as error:
                show_error(str(error))
            else:
                show_info(f"{Path(path).name} is saved.")

    def save(self, path: str) -> None:
        """Save what the name's ending says; where one is meant, of the first trajectory shown.

        ``.csv`` the trajectory; ``.png`` and ``.svg`` the curves of all that are shown;
        ``.ome.tif``, ``.mp4`` and ``.gif`` the sequence made with it.

        Raises
        ------
        Blur2SeqError
            If there is no trajectory, or no sequence belongs to it.
        """
        if not self._shown:
            raise Blur2SeqError(_NONE)
        suffix = split_name(path)[1].lower()
        if suffix == ".csv":
            self._shown[0][1].save(path)
        elif suffix in (".png", ".svg"):
            self._save_curves(path, "png" if suffix == ".png" else "svg")
        else:
            data, attributes = sequence_of(self._shown[0][0], self._viewer)
            write_sequence(path, data, attributes)

    def _save_curves(self, path: str, form: Literal["png", "svg"]) -> None:
        from ..files import write_whole
        from ..plots import curves_plot

        errors = {layer.name: error_of(layer) for layer, _ in self._shown}
        plot = curves_plot(
            {layer.name: trajectory for layer, trajectory in self._shown},
            _UNITS[self.unit.currentText()],
            self._pixel_size(self._shown[0][0]),
            {name: error for name, error in errors.items() if error is not None},
            form,
        )
        write_whole(path, plot)
