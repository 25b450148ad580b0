"""What the docks are made of: a choice of layer, a form that scrolls, a bar with Cancel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari.utils import cancelable_progress
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QSize, Qt, Signal
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QFrame,
    QLabel,
    QScrollArea,
    QSizePolicy,
    QStatusBar,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QToolTip,
    QWidget,
)

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer


# Of a dock, in px: names of layers and the dock's own title are mostly seen whole.
_USUAL_WIDTH = 300
# Percent of what it was made for.
_SPINNER_SPEED = 10


def camera_of(viewer: Viewer) -> Any:
    """The camera of the canvas, which moved to the scene in napari 0.9."""
    return getattr(viewer, "scene", viewer).camera


def canvas_size_of(viewer: Viewer) -> tuple[int, int]:
    """Height and width of the canvas in px of the screen; napari 0.9 made them public."""
    canvas = getattr(viewer, "canvas", None)
    height, width = viewer._canvas_size if canvas is None else canvas.size
    return int(height), int(width)


def grid_of(viewer: Viewer) -> Any:
    """The grid of views, which moved to the canvas in napari 0.9."""
    return getattr(viewer, "canvas", viewer).grid


class Choice(QComboBox):
    """A choice that its longest text does not widen: what does not fit is in the tool tip."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)

    def _styled(self) -> tuple[QStyleOptionComboBox, str]:
        """How it is drawn, and its text with dots in the middle where it is too long."""
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        space = self.style().subControlRect(
            QStyle.ComplexControl.CC_ComboBox,
            option,
            QStyle.SubControl.SC_ComboBoxEditField,
            self,
        )
        # The label is drawn one pixel inside.
        text = self.fontMetrics().elidedText(
            option.currentText, Qt.TextElideMode.ElideMiddle, space.width() - 2
        )
        return option, text

    def paintEvent(self, event: Any) -> None:
        """Qt cuts a text that is too long off."""
        painter = QStylePainter(self)
        option, text = self._styled()
        option.currentText = text
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)

    def event(self, event: Any) -> bool:
        """Tell the whole text first."""
        if event.type() == QEvent.Type.ToolTip and self._styled()[1] != self.currentText():
            QToolTip.showText(event.globalPos(), f"{self.currentText()}\n\n{self.toolTip()}", self)
            return True
        return bool(super().event(event))


class LightChoice(Choice):
    """In which values the light of an exposure adds up; the data is `linear` of the options."""

    def __init__(self) -> None:
        super().__init__()
        self.addItem("encoded", False)
        self.addItem("linear (sRGB)", True)
        self.setToolTip(
            "Where the light of the exposure adds up. Encoded: in the values as they are, which is "
            "exact for most micrographs and raw files. Linear: the values are decoded from sRGB "
            "first, which is what happens to the light of a photograph."
        )


def number(
    low: float, high: float, value: float, suffix: str, tip: str, decimals: int = 1
) -> QDoubleSpinBox:
    """A control for a number with a unit."""
    field = QDoubleSpinBox()
    field.setDecimals(decimals)
    field.setRange(low, high)
    field.setSuffix(suffix)
    field.setValue(value)
    field.setToolTip(tip)
    return field


class LayerChoice(Choice):
    """The layers of a viewer that are fit for something, kept up to date.

    Parameters
    ----------
    viewer : napari.Viewer
    accepts : callable
        Says whether a layer is offered.
    none : str, optional
        Text of an entry for no layer, the first and the default one.

    Attributes
    ----------
    changed : Signal
        Another layer is chosen, by the user or because the old one is gone.
    listed : Signal
        The layers offered have changed.
    """

    changed = Signal()
    listed = Signal()

    def __init__(
        self, viewer: Viewer, accepts: Callable[[Layer], bool], none: str | None = None
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._accepts = accepts
        self._none = none
        self._layers: list[Layer | None] = []
        self._last: Layer | None = None
        self.currentIndexChanged.connect(self._tell)
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered, events.renamed):
            event.connect(self.update_list)
        self.update_list()

    def update_list(self, event: Any = None) -> None:
        """Offer what is there now; keep the choice, or take the viewer's active layer."""
        # The viewer's events outlive a closed dock.
        if not isalive(self):
            return
        chosen = self.layer
        found: list[Layer | None] = [layer for layer in self._viewer.layers if self._accepts(layer)]
        if self._none is not None:
            found.insert(0, None)
        if chosen not in found or (chosen is None and self._none is None):
            active = self._viewer.layers.selection.active
            last = found[-1] if found else None
            chosen = None if self._none is not None else active if active in found else last
        self._layers = found
        self.blockSignals(True)
        self.clear()
        self.addItems([self._none or "" if layer is None else layer.name for layer in found])
        self.setCurrentIndex(found.index(chosen) if chosen in found else -1)
        self.blockSignals(False)
        self.listed.emit()
        self._tell()

    def _tell(self, *_: object) -> None:
        if self.layer is not self._last:
            self._last = self.layer
            self.changed.emit()

    @property
    def layer(self) -> Layer | None:
        """The chosen layer."""
        index = self.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    @layer.setter
    def layer(self, layer: Layer | None) -> None:
        self.setCurrentIndex(self._layers.index(layer) if layer in self._layers else -1)


class Form(QScrollArea):
    """Labelled controls, as high as they need, lower with a scroll bar where the window is."""

    def __init__(self) -> None:
        super().__init__()
        inner = QWidget()
        self.rows = QFormLayout(inner)
        self.rows.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
        self.rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.setWidget(inner)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Maximum)

    def add(self, *rows: tuple[str, QWidget]) -> None:
        """Add controls; an ampersand in a text marks the key that reaches its control."""
        for text, field in rows:
            label = QLabel(text)
            label.setToolTip(field.toolTip())
            label.setBuddy(field)
            self.rows.addRow(label, field)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Rows that come, go or grow change the height wanted."""
        if watched is self.widget() and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))

    def sizeHint(self) -> QSize:
        """Asked anew by the layout when the theme changes."""
        # The theme gives it a frame.
        height = self.widget().sizeHint().height() + 2 * self.frameWidth()
        return QSize(max(_USUAL_WIDTH, self._width()), height)

    def minimumSizeHint(self) -> QSize:
        """A few rows."""
        return QSize(self._width(), min(120, self.widget().sizeHint().height()))

    def _width(self) -> int:
        bar = self.verticalScrollBar().sizeHint().width()
        return int(self.widget().minimumSizeHint().width() + bar)


class ActivityBar(cancelable_progress):
    """Bar in napari's activity dock whose Cancel button works outside of a for loop."""

    def __init__(self, description: str, cancel: Callable[[], None]) -> None:
        self._cancel_work = cancel
        # napari shows what follows the last bar character; tqdm's rates would push the
        # button out of sight.
        super().__init__(desc=description, total=100, bar_format="{desc}|{elapsed}")
        _slow_spinners()

    def cancel(self) -> None:
        """Called by the button."""
        super().cancel()
        self._cancel_work()


def _slow_spinners() -> None:
    """Let the sign in napari's status bar that something is in progress turn slowly.

    For each of its 33 pictures a second Qt puts the whole window together anew, the canvas
    included. Without a graphics card that took half of the speed of the work on two cores.
    """
    for window in QApplication.topLevelWidgets():
        for bar in window.findChildren(QStatusBar):
            for label in bar.findChildren(QLabel):
                if label.movie() is not None:
                    label.movie().setSpeed(_SPINNER_SPEED)
