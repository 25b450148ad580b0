"""The dock widget: choose a picture, press Deblur, get three layers."""

from __future__ import annotations

import logging
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.utils import cancelable_progress
from napari.utils.notifications import show_error
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QSize, Qt, Signal
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QFrame,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import create_worker

from .. import pipeline
from ..camera import Camera
from ..errors import Blur2SeqError
from ..layers import LayerData, Source, add_layers, preview_layer, read_source
from .model_choice import ModelChoice
from .work import WorkError, deblur_work, explain

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Layer
    from napari.viewer import Viewer

    from ..progress import Progress

_log = logging.getLogger(__name__)

_STAGES = {
    "estimate": "Estimating the camera's motion",
    "refine": "Refining the camera's motion",
    "restore": "Restoring the sharp image",
    "sequence": "Computing the frames",
}
_AUTOMATIC, _PIXELS, _MILLIMETRES = range(3)
_READY = "Choose a picture blurred by camera shake and press Deblur."


class DeblurWidget(QWidget):
    """Deblur an image layer in the background and add the results as layers.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Whose layers are offered and which gets the results.
    parent : QWidget, optional

    Attributes
    ----------
    done : Signal
        The work has ended, in whatever way, and the controls are ready again.
    """

    done = Signal()

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = napari_viewer
        self._layers: list[Layer] = []
        self._worker: Any = None
        self._stop = threading.Event()
        self._bar: _ActivityBar | None = None
        self._end: Callable[[], None] | None = None
        self._source: Source | None = None
        self._preview: Layer | None = None
        self._percent = 0
        self._moving_bar = False
        self._build()
        events = napari_viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered, events.renamed):
            event.connect(self._list_layers)
        self._list_layers()

    # ------------------------------------------------------------------ controls

    def _build(self) -> None:
        self.layer_choice = QComboBox()
        self.layer_choice.setToolTip(
            "The picture to deblur. Of a stack, the plane that the viewer shows."
        )
        # A long name must not widen the dock.
        self.layer_choice.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )

        self.camera_choice = QComboBox()
        self.camera_choice.addItems(["automatic", "focal length", "35 mm equivalent"])
        self.camera_choice.setToolTip(
            "The focal length of the camera. Automatic takes the longer side of the picture, "
            "which is right for a moderate wide angle. Cropped pictures: give it in pixels."
        )
        self.focal_length = QDoubleSpinBox()
        self.focal_length.setRange(1, 1e6)
        self.focal_length.setDecimals(1)
        self.focal_length.setToolTip(
            "In pixels: focal length over pixel size, both in mm. 35 mm equivalent: as in the "
            "camera's data sheet or the picture's EXIF entry FocalLengthIn35mmFilm."
        )
        self.camera_choice.currentIndexChanged.connect(self._camera_changed)

        self.poses = QSpinBox()
        self.poses.setRange(2, 200)
        self.poses.setValue(pipeline.DEFAULT_POSES)
        self.poses.setToolTip(
            "Number of camera positions during the exposure, and of frames in the sequence. "
            "More for long blur; time and memory grow with it."
        )

        self.refine = QCheckBox("refine the motion")
        supported = bool(getattr(pipeline, "SUPPORTS_REFINE", False))
        self.refine.setEnabled(supported)
        self.refine.setChecked(supported)
        self.refine.setToolTip(
            "Improve the estimated motion together with the sharp image. Slower."
            if supported
            else "Refinement of the motion is not available in this version."
        )

        self.noise = QDoubleSpinBox()
        self.noise.setRange(0, 50)
        self.noise.setDecimals(2)
        self.noise.setSingleStep(0.1)
        self.noise.setSuffix(" %")
        self.noise.setSpecialValueText("automatic")
        self.noise.setToolTip(
            "Standard deviation of the picture's noise in percent of its range. Automatic (0) "
            "measures it. Higher gives smoother results."
        )

        self.light = QComboBox()
        self.light.addItem("encoded", False)
        self.light.addItem("linear (sRGB)", True)
        self.light.setToolTip(
            "Where the light of the exposure adds up. Encoded: in the values as they are, which is "
            "exact for most micrographs and raw files. Linear: the values are decoded from sRGB "
            "first, which is what happens to the light of a photograph."
        )

        self.model = ModelChoice()
        self.device = _DeviceChoice()

        self.run_button = QPushButton("Deblur")
        self.run_button.clicked.connect(self._run_or_cancel)
        self.progress_bar = QProgressBar()
        self.progress_bar.setRange(0, 100)
        self.progress_bar.setToolTip("Share of the work done.")
        policy = self.progress_bar.sizePolicy()
        policy.setRetainSizeWhenHidden(True)  # the text below stays where it is
        self.progress_bar.setSizePolicy(policy)
        self.progress_bar.hide()
        self.stage = QLabel(_READY)
        self.stage.setWordWrap(True)
        self.stage.setToolTip("What is being done, or how it ended.")

        form = QFormLayout()
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for text, field in (
            ("Image", self.layer_choice),
            ("Camera", self.camera_choice),
            ("", self.focal_length),
            ("Poses", self.poses),
            ("", self.refine),
            ("Noise", self.noise),
            ("Light adds up in", self.light),
            ("Model", self.model),
            ("Device", self.device),
        ):
            label = QLabel(text)
            label.setToolTip(field.toolTip())
            form.addRow(label, field)
        inner = QWidget()
        inner.setLayout(form)
        scroll = _FormArea()
        scroll.setWidget(inner)
        layout = QVBoxLayout(self)
        layout.addWidget(scroll)
        for widget in (self.run_button, self.progress_bar, self.stage):
            layout.addWidget(widget)
        layout.addStretch(1)
        self._form = inner
        self._camera_changed(_AUTOMATIC)

    def _camera_changed(self, choice: int) -> None:
        self.focal_length.setEnabled(choice != _AUTOMATIC)
        self.focal_length.setSuffix({_PIXELS: " px", _MILLIMETRES: " mm"}.get(choice, ""))
        self.focal_length.setSpecialValueText("automatic" if choice == _AUTOMATIC else "")
        self.focal_length.setValue({_PIXELS: 1000, _MILLIMETRES: 26}.get(choice, 1))

    def _list_layers(self, event: Any = None) -> None:
        """Offer the image layers; keep the choice, or take the viewer's active layer."""
        # The viewer's events outlive a closed dock.
        if not isalive(self):
            return
        from napari.layers import Image

        chosen = self.layer
        self._layers = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Image) and layer is not self._preview
        ]
        if chosen not in self._layers:
            chosen = self._viewer.layers.selection.active
        if chosen not in self._layers:
            chosen = self._layers[-1] if self._layers else None
        self.layer_choice.clear()
        self.layer_choice.addItems([layer.name for layer in self._layers])
        self.layer = chosen
        self._ready_or_not()

    def _ready_or_not(self) -> None:
        if self._worker is None:
            self.run_button.setText("Deblur")
            self.run_button.setEnabled(bool(self._layers))
            self.run_button.setToolTip(
                "Deblur the chosen picture; the results are added as layers."
                if self._layers
                else "Open a picture first: File > Open, or File > Open Sample > Blur2seq."
            )

    @property
    def layer(self) -> Layer | None:
        """The image layer to deblur."""
        index = self.layer_choice.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    @layer.setter
    def layer(self, layer: Layer | None) -> None:
        self.layer_choice.setCurrentIndex(self._layers.index(layer) if layer is not None else -1)

    def options(self, image_shape: tuple[int, int]) -> pipeline.Options:
        """What the controls say, for a picture of shape (height, width)."""
        focal_length: float | None = None
        if self.camera_choice.currentIndex() == _PIXELS:
            focal_length = self.focal_length.value()
        elif self.camera_choice.currentIndex() == _MILLIMETRES:
            millimetres = self.focal_length.value()
            focal_length = Camera.from_film_equivalent(image_shape, millimetres).focal_length
        return pipeline.Options(
            focal_length=focal_length,
            n_poses=self.poses.value(),
            refine=self.refine.isChecked(),
            noise=self.noise.value() / 100 or None,
            linear=self.light.currentData(),
            **self.model.options(),
            device=self.device.name,
        )

    # ------------------------------------------------------------------ work

    def _run_or_cancel(self) -> None:
        if self._worker is None:
            self.run()
        else:
            self.cancel()

    def run(self) -> None:
        """Start to deblur the chosen layer."""
        if self._worker is not None:
            return
        try:
            source = read_source(self.layer, self._viewer.dims)
            options = self.options(source.shape)
        except Blur2SeqError as error:
            self.stage.setText(str(error))
            show_error(str(error))
            return
        self._source = source
        self._stop = threading.Event()
        self._worker = worker = create_worker(
            deblur_work, source, options, self._stop, _start_thread=False, _ignore_errors=True
        )
        worker.yielded.connect(self._on_progress)
        worker.returned.connect(self._on_returned)
        worker.errored.connect(self._on_error)
        worker.finished.connect(self._on_finished)
        self._form.setEnabled(False)
        self.run_button.setText("Cancel")
        self.run_button.setToolTip("Stop the work; no layer is added.")
        self.stage.setText("Starting ...")
        self._percent = 0
        self.progress_bar.setValue(0)
        self.progress_bar.show()
        self._bar = bar = _ActivityBar(f"Deblurring {source.name}", self.cancel)
        # Closing the dock or the viewer deletes this widget, and with it the slots that
        # would end the work.
        self._end = partial(_end_work, self._stop, bar)
        self.destroyed.connect(self._end)
        worker.start()

    def cancel(self) -> None:
        """Stop the work after the current step; no layer is added."""
        if self._worker is not None:
            self._stop.set()
            self.run_button.setEnabled(False)
            self.run_button.setText("Cancelling ...")
            self.stage.setText("Cancelling after the current step ...")

    def _on_progress(self, event: Progress) -> None:
        if self._worker is None or self._stop.is_set():
            return
        percent = round(100 * event.fraction)
        self.progress_bar.setValue(percent)
        stage = _STAGES.get(event.stage, "Working")
        self.stage.setText(f"{stage}: {event.message}")
        if event.preview is not None:
            self._show_preview(event.preview)
        self._percent = percent
        self._move_bar()

    def _move_bar(self) -> None:
        """Bring napari's bar to the present percent.

        Moving it processes events: slots are called within this call, and the work may
        have ended when it returns.
        """
        if self._moving_bar:
            return
        self._moving_bar = True
        try:
            while self._bar is not None and self._percent != self._bar.n:
                self._bar.update(self._percent - self._bar.n)
        finally:
            self._moving_bar = False

    def _on_returned(self, layers: list[LayerData] | None) -> None:
        # It may have been cancelled after the work was done.
        if layers is None or self._source is None or self._stop.is_set():
            return
        self._remove_preview()
        add_layers(self._viewer, layers, self._source)
        self.stage.setText(
            "Done. Show the layer that ends in 'sequence' and move the time slider to see the "
            "camera's motion."
        )

    def _on_error(self, error: Exception) -> None:
        cause = error.__cause__ if isinstance(error, WorkError) else error
        if not isinstance(cause, Blur2SeqError):
            _log.error("Deblurring failed", exc_info=cause)
        sentence = explain(error)
        self.stage.setText(sentence)
        show_error(sentence)

    def _on_finished(self) -> None:
        self._remove_preview()
        if self._end is not None:
            self.destroyed.disconnect(self._end)
        bar, self._bar = self._bar, None
        self._worker = self._source = self._end = None
        self._form.setEnabled(True)
        if self._stop.is_set():
            self.stage.setText("Cancelled.")
        self.progress_bar.hide()
        self._list_layers()
        if bar is not None:
            bar.close()
        self.done.emit()

    def _show_preview(self, preview: Any) -> None:
        assert self._source is not None
        data, keywords, kind = preview_layer(preview, self._source)
        if self._preview is None:
            from napari.layers import Layer

            active = self._viewer.layers.selection.active
            self._preview = Layer.create(data, keywords, kind)
            self._viewer.add_layer(self._preview)
            self._viewer.layers.selection.active = active
        elif self._preview in self._viewer.layers:  # else the user removed it
            self._preview.data = data
            self._preview.scale = keywords["scale"]
            self._preview.translate = keywords["translate"]

    def _remove_preview(self) -> None:
        preview, self._preview = self._preview, None
        if preview is not None and preview in self._viewer.layers:
            self._viewer.layers.remove(preview)

    def event(self, event: QEvent | None) -> bool:
        """Stop the work when the dock is closed: napari takes the widget out of it."""
        closed = event is not None and event.type() == QEvent.Type.ParentChange
        if closed and self.parent() is None:
            self.cancel()
        return bool(super().event(event))


class _DeviceChoice(QComboBox):
    """Devices that exist; PyTorch, which knows them, is imported when the list is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.addItem("automatic", "auto")
        self.setToolTip("Where to compute. Automatic takes the fastest device of this machine.")
        self._complete = False
        if "torch" in sys.modules:
            self.complete()

    @property
    def name(self) -> str:
        """As `devices.resolve` takes it."""
        return str(self.currentData())

    def complete(self) -> None:
        """Add the devices of this machine."""
        if self._complete:
            return
        from ..devices import available

        self._complete = True
        for name in available():
            self.addItem(name, name)

    def showPopup(self) -> None:
        """Open the list."""
        QApplication.setOverrideCursor(Qt.CursorShape.WaitCursor)
        try:
            self.complete()
        except Exception as error:
            show_error(explain(error))
        finally:
            QApplication.restoreOverrideCursor()
        super().showPopup()


class _FormArea(QScrollArea):
    """As high as its widget, lower where the window is; as wide, for there is no way sideways."""

    def __init__(self) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Maximum)

    def sizeHint(self) -> QSize:
        """Asked anew by the layout when the theme changes."""
        return QSize(self._width(), self.widget().sizeHint().height())

    def minimumSizeHint(self) -> QSize:
        """A few rows."""
        return QSize(self._width(), min(120, self.widget().sizeHint().height()))

    def _width(self) -> int:
        bar = self.verticalScrollBar().sizeHint().width()
        return int(self.widget().minimumSizeHint().width() + bar)


class _ActivityBar(cancelable_progress):
    """Bar in napari's activity dock whose Cancel button works outside of a for loop."""

    def __init__(self, description: str, cancel: Callable[[], None]) -> None:
        self._cancel_work = cancel
        # napari shows what follows the last bar character; tqdm's rates would push the
        # button out of sight.
        super().__init__(desc=description, total=100, bar_format="{desc}|{elapsed}")

    def cancel(self) -> None:
        """Called by the button."""
        super().cancel()
        self._cancel_work()


def _end_work(stop: threading.Event, bar: _ActivityBar, *_: object) -> None:
    stop.set()
    bar.close()
