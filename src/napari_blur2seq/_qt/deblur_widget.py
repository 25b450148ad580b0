"""The dock widget: choose a picture, press Deblur, get three layers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QCheckBox, QComboBox, QDoubleSpinBox, QSpinBox, QWidget

from .. import pipeline
from ..camera import Camera
from ..errors import Blur2SeqError
from ..layers import LayerData, Source, add_layers, preview_layer, read_source
from .parts import LayerChoice
from .work import deblur_work, explain
from .work_dock import WorkDock

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from ..progress import Progress

_STAGES = {
    "estimate": "Estimating the camera's motion",
    "refine": "Refining the camera's motion",
    "restore": "Restoring the sharp image",
    "sequence": "Computing the frames",
}
_AUTOMATIC, _PIXELS, _MILLIMETRES = range(3)
_READY = "Choose a picture blurred by camera shake and press Deblur."


class DeblurWidget(WorkDock):
    """Deblur an image layer in the background and add the results as layers.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Whose layers are offered and which gets the results.
    parent : QWidget, optional
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, "Deblur", _READY, parent)
        self._source: Source | None = None
        self._preview: Layer | None = None
        self._build()

    # ------------------------------------------------------------------ controls

    def _build(self) -> None:
        self.layer_choice = LayerChoice(self._viewer, self._is_picture)
        self.layer_choice.setToolTip(
            "The picture to deblur. Of a stack, the plane that the viewer shows."
        )
        self.layer_choice.listed.connect(self.update_button)

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

        self.device = _DeviceChoice()

        for text, field in (
            ("Image", self.layer_choice),
            ("Camera", self.camera_choice),
            ("", self.focal_length),
            ("Poses", self.poses),
            ("", self.refine),
            ("Noise", self.noise),
            ("Light adds up in", self.light),
            ("Device", self.device),
        ):
            self.form.add(text, field)
        self._camera_changed(_AUTOMATIC)
        self.update_button()

    def _camera_changed(self, choice: int) -> None:
        self.focal_length.setEnabled(choice != _AUTOMATIC)
        self.focal_length.setSuffix({_PIXELS: " px", _MILLIMETRES: " mm"}.get(choice, ""))
        self.focal_length.setSpecialValueText("automatic" if choice == _AUTOMATIC else "")
        self.focal_length.setValue({_PIXELS: 1000, _MILLIMETRES: 26}.get(choice, 1))

    def _is_picture(self, layer: Layer) -> bool:
        from napari.layers import Image

        return isinstance(layer, Image) and layer is not self._preview

    def why_not(self) -> str:
        """Without a picture there is nothing to do."""
        if self.layer is None:
            return "Open a picture first: File > Open, or File > Open Sample > Blur2seq."
        return ""

    def explain_action(self) -> str:
        """For the tool tip."""
        return "Deblur the chosen picture; the results are added as layers."

    @property
    def layer(self) -> Layer | None:
        """The image layer to deblur."""
        return self.layer_choice.layer

    @layer.setter
    def layer(self, layer: Layer | None) -> None:
        self.layer_choice.layer = layer

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
            device=self.device.name,
        )

    # ------------------------------------------------------------------ work

    def run(self) -> None:
        """Start to deblur the chosen layer."""
        if self.working:
            return
        try:
            source = read_source(self.layer, self._viewer.dims)
            options = self.options(source.shape)
        except Blur2SeqError as error:
            self.refuse(error)
            return
        self._source = source
        self.start(f"Deblurring {source.name}", lambda: deblur_work(source, options))

    def show_event(self, event: Progress) -> None:
        """Text and preview."""
        self.stage.setText(f"{_STAGES.get(event.stage, 'Working')}: {event.message}")
        if event.preview is not None:
            self._show_preview(event.preview)

    def take_result(self, layers: list[LayerData]) -> str:
        """Add the layers."""
        assert self._source is not None
        self._remove_preview()
        add_layers(self._viewer, layers, self._source)
        return (
            "Done. Show the layer that ends in 'sequence' and move the time slider to see the "
            "camera's motion."
        )

    def cleared(self) -> None:
        """Nothing intermediate stays."""
        self._remove_preview()
        self._source = None
        self.layer_choice.update_list()

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
