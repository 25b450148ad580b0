"""The dock that compares two pictures: swipe, blink, side by side, difference, numbers."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QHeaderView,
    QPushButton,
    QSlider,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from .. import compare
from ..errors import Blur2SeqError
from ..layers import Source, is_trajectory, read_source, trajectory_of
from .parts import Choice, LayerChoice, camera_of, grid_of
from .work_dock import WorkDock

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

_SWIPE, _BLINK, _SIDE, _DIFFERENCE = range(4)
_GRID = ("enabled", "shape", "stride")
_OURS = "blur2seq comparison"
# Near the line, in px of the screen.
_REACH = 12
_BLINK_MS = 700
_STEPS = 1000


class CompareWidget(WorkDock):
    """Compare two image layers in the canvas and in numbers.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    parent : QWidget, optional
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        ready = "Choose two pictures of the same size; Show both lays them over each other."
        super().__init__(napari_viewer, "&Measure", ready, parent)
        self._added: list[Layer] = []  # by this dock, for as long as it shows something
        self._shown: tuple[Layer, Layer] | None = None
        self._pictures: tuple[Any, Any] | None = None
        self._before: dict[str, Any] = {}
        self._linked: tuple[Layer, Layer] | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(_BLINK_MS)
        self._timer.timeout.connect(self._blink)
        self._build()
        napari_viewer.mouse_drag_callbacks.append(self._drag_line)
        napari_viewer.layers.events.removed.connect(self._layer_removed)

    # ------------------------------------------------------------------ controls

    def _build(self) -> None:
        viewer = self._viewer
        self.first = LayerChoice(viewer, self._is_picture)
        self.first.setToolTip("The picture on the left, or shown first.")
        self.second = LayerChoice(viewer, self._is_picture)
        self.second.setToolTip("The picture on the right, or shown second.")
        self.mode = Choice()
        self.mode.addItems(["swipe line", "blink", "side by side", "difference"])
        self.mode.setToolTip(
            "Swipe: drag the line in the canvas, or the slider below. Blink: one after the other. "
            "Side by side: two views that move together. Difference: second less first, orange "
            "where it is brighter, blue where it is darker."
        )
        self.mode.currentIndexChanged.connect(self._again)
        self.position = QSlider(Qt.Orientation.Horizontal)
        self.position.setRange(0, _STEPS)
        self.position.setValue(_STEPS // 2)
        self.position.setToolTip("Where the swipe line is; the arrow keys move it.")
        self.position.valueChanged.connect(self._move_line)
        self.link = QCheckBox("same &contrast")
        self.link.setToolTip(
            "Give the second picture the contrast limits of the first, and keep them equal."
        )
        self.link.toggled.connect(self._link_contrast)
        self.reference = LayerChoice(viewer, self._is_picture, none="none")
        self.reference.setToolTip("The sharp truth, for PSNR and SSIM, where it is known.")
        self.reference_trajectory = LayerChoice(viewer, is_trajectory, none="none")
        self.reference_trajectory.setToolTip("The true motion, for the path error.")
        self.form.add(
            ("F&irst", self.first),
            ("&Second", self.second),
            ("Sh&ow as", self.mode),
            ("Li&ne", self.position),
            ("", self.link),
            ("&Reference", self.reference),
            ("Reference pa&th", self.reference_trajectory),
        )
        self.show_button = QPushButton("Show &both")
        self.show_button.setCheckable(True)
        self.show_button.setToolTip("Show the comparison in the canvas; press again to end it.")
        self.show_button.toggled.connect(self._toggle)
        self.buttons.insertWidget(0, self.show_button)
        self.table = QTableWidget(0, 3)
        self.table.setToolTip("The numbers of the last measurement; point at one for its meaning.")
        self.table.setHorizontalHeaderLabels(["", "first", "second"])
        self.table.verticalHeader().hide()
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in (1, 2):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setMinimumHeight(60)
        self.table.hide()
        layout = self.layout()
        layout.insertWidget(layout.count() - 1, self.table)
        for choice in (self.first, self.second):
            choice.changed.connect(self._pair_changed)
        self._pair_changed()

    def _is_picture(self, layer: Layer) -> bool:
        from napari.layers import Image

        return isinstance(layer, Image) and _OURS not in layer.metadata

    def why_not(self) -> str:
        """Two pictures are needed."""
        a, b = self.first.layer, self.second.layer
        return "" if None not in (a, b) and a is not b else "Choose two different pictures."

    def explain_action(self) -> str:
        """For the tool tip."""
        return "Measure the sharpness of both, and how near they are to the references."

    def _pair_changed(self) -> None:
        self.link.setChecked(False)
        self.show_button.setEnabled(not self.why_not())
        self.update_button()
        self._again()

    # ------------------------------------------------------------------ in the canvas

    def _again(self, *_: object) -> None:
        """Show anew what is shown."""
        self.position.setEnabled(self.mode.currentIndex() == _SWIPE)
        if self.show_button.isChecked():
            self._leave()
            if self.why_not():
                self.show_button.setChecked(False)
            else:
                self._enter()

    def _toggle(self, on: bool) -> None:
        self.show_button.setText("&End" if on else "Show &both")
        if on:
            self._enter()
        else:
            self._leave()

    def _enter(self) -> None:
        a, b = self.first.layer, self.second.layer
        assert a is not None and b is not None
        mode = self.mode.currentIndex()
        try:
            source = read_source(a, self._viewer.dims)
            pixels = source.pixels(), read_source(b, self._viewer.dims).pixels()
            if mode in (_SWIPE, _DIFFERENCE):
                compare.check_pair(*pixels)
        except Blur2SeqError as error:
            self.refuse(error)
            self.show_button.setChecked(False)
            return
        self._shown = a, b
        self._before = {
            "visible": {layer: layer.visible for layer in self._viewer.layers},
            "grid": [getattr(grid_of(self._viewer), name) for name in _GRID],
        }
        if mode in (_BLINK, _SIDE):
            for layer in self._viewer.layers:
                layer.visible = layer in (a, b)
        if mode == _SWIPE:
            self._pictures = pixels
            self._add_swipe(source)
        elif mode == _DIFFERENCE:
            self._add_difference(source, compare.difference(*pixels))
        elif mode == _BLINK:
            b.visible = False
            self._timer.start()
        else:
            self._side_by_side(a, b)

    def _leave(self) -> None:
        """Leave the viewer as it was."""
        self._timer.stop()
        added, self._added = self._added, []
        for layer in added:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        before, self._before = self._before, {}
        self._shown = self._pictures = None
        if before:
            for layer, visible in before["visible"].items():
                if layer in self._viewer.layers:
                    layer.visible = visible
            for name, value in zip(_GRID, before["grid"], strict=True):
                setattr(grid_of(self._viewer), name, value)

    def _layer_removed(self, event: Any) -> None:
        if isalive(self) and self._shown is not None and event.value in self._shown:
            self.show_button.setChecked(False)
        elif isalive(self) and event.value in self._added:
            self._added.remove(event.value)
            self.show_button.setChecked(False)

    def _add(self, layer: Layer) -> Layer:
        active = self._viewer.layers.selection.active
        layer.metadata = {_OURS: True}
        self._added.append(layer)
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = active
        return layer

    def _add_swipe(self, source: Source) -> None:
        from napari.layers import Image, Vectors

        assert self._pictures is not None
        joined = compare.swipe(*self._pictures, self._column)
        self._add(
            Image(
                np.expand_dims(joined, source.hidden),
                name="first | second",
                rgb=source.rgb,
                **source.display,
                **source.spatial,
            )
        )
        self._add(
            Vectors(
                self._line(source),
                name="swipe line",
                vector_style="line",
                edge_color="yellow",
                edge_width=max(
                    1.0, 3 / camera_of(self._viewer).zoom / abs(source.spatial["scale"][-1])
                ),
                **source.spatial,
            )
        )
        self._source = source

    def _line(self, source: Source) -> np.ndarray[Any, Any]:
        line = np.zeros((1, 2, len(source.spatial["scale"])))
        line[0, :, source.shown[0]] = -0.5, source.shape[0]
        line[0, 0, source.shown[1]] = self._column - 0.5
        return line

    @property
    def _column(self) -> int:
        assert self._pictures is not None
        column: int = round(self.position.value() / _STEPS * self._pictures[0].shape[1])
        return column

    def _move_line(self, *_: object) -> None:
        if self._pictures is None or len(self._added) != 2:
            return
        joined, line = self._added
        picture = compare.swipe(*self._pictures, self._column)
        joined.data = np.expand_dims(picture, self._source.hidden)
        line.data = self._line(self._source)

    def _drag_line(self, viewer: Viewer, event: Any) -> Generator[None, None, None]:
        """Drag the line in the canvas; elsewhere the mouse moves the view as ever."""
        if not isalive(self) or self._pictures is None or len(self._added) != 2:
            return
        axis = self._source.shown[1]

        def column() -> float:
            return float(np.asarray(self._added[0].world_to_data(event.position))[axis])

        pixel = abs(self._source.spatial["scale"][-1]) * camera_of(viewer).zoom
        if abs(column() - self._column) * pixel > _REACH:
            return
        camera_of(viewer).mouse_pan = False
        try:
            yield
            while event.type == "mouse_move" and len(self._added) == 2:
                share = column() / self._pictures[0].shape[1]
                self.position.setValue(round(_STEPS * min(max(share, 0.0), 1.0)))
                yield
        finally:
            camera_of(viewer).mouse_pan = True

    def _add_difference(self, source: Source, values: np.ndarray[Any, Any]) -> None:
        from napari.layers import Image

        limit = max(float(np.quantile(np.abs(values), 0.995)), 1e-3)
        self._add(
            Image(
                np.expand_dims(values, source.hidden),
                name="second less first",
                colormap={
                    "name": "difference",
                    "colors": [[0.1, 0.6, 1, 1], [0, 0, 0, 1], [1, 0.6, 0.1, 1]],
                },
                contrast_limits=(-limit, limit),
                **source.spatial,
            )
        )

    def _blink(self) -> None:
        if self._shown is not None:
            self._shown[1].visible = not self._shown[1].visible

    def _side_by_side(self, a: Layer, b: Layer) -> None:
        layers = list(self._viewer.layers)
        apart = layers.index(b) - layers.index(a)
        grid = grid_of(self._viewer)
        grid.shape = (1, 2)
        # The lower layer comes first with a positive stride, last with a negative one.
        grid.stride = apart
        grid.enabled = True
        self._viewer.reset_view()

    def _link_contrast(self, on: bool) -> None:
        linked, self._linked = self._linked, None
        if linked is not None:
            self._viewer.layers.unlink_layers(linked, ("contrast_limits",))
        a, b = self.first.layer, self.second.layer
        if on and a is not None and b is not None and a is not b:
            ranges = np.array([a.contrast_limits_range, b.contrast_limits_range])
            for layer in (a, b):
                layer.contrast_limits_range = (ranges[:, 0].min(), ranges[:, 1].max())
            b.contrast_limits = a.contrast_limits
            self._viewer.layers.link_layers((a, b), ("contrast_limits",))
            self._linked = a, b

    # ------------------------------------------------------------------ in numbers

    def run(self) -> None:
        """Start to measure the two pictures."""
        if self.working:
            return
        a, b = self.first.layer, self.second.layer
        try:
            pictures = [read_source(layer, self._viewer.dims).pixels() for layer in (a, b)]
            truth = self.reference.layer
            reference = None if truth is None else read_source(truth, self._viewer.dims).pixels()
        except Blur2SeqError as error:
            self.refuse(error)
            return
        assert a is not None and b is not None
        path = self.reference_trajectory.layer
        motion = None if path is None else trajectory_of(path)
        trajectories = trajectory_of(a), trajectory_of(b)
        self.start(
            f"Measuring {a.name} and {b.name}",
            lambda: compare.measure_steps(
                *pictures,
                trajectories=trajectories,
                reference=reference,
                reference_trajectory=motion,
            ),
        )

    def take_result(self, rows: list[compare.Row]) -> Iterator[str]:
        """Fill the table."""
        self.table.setRowCount(len(rows))
        for i, row in enumerate(rows):
            name = f"{row.name} ({row.unit})" if row.unit else row.name
            texts = [name, *map(_number, row.values)]
            for j, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(row.meaning)
                self.table.setItem(i, j, item)
        rows_height = self.table.rowHeight(0) * len(rows) if rows else 0
        header = self.table.horizontalHeader().sizeHint().height()
        self.table.setFixedHeight(rows_height + header + 4)
        self.table.show()
        yield "Measured; point at a number for its meaning."


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return "∞" if math.isinf(value) else f"{value:.3g}"
