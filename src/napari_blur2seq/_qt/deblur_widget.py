"""The dock widget: choose a picture, press Deblur, get three layers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_error
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QPushButton,
    QSpinBox,
    QWidget,
)

from .. import pipeline, preferences
from ..camera import Camera
from ..errors import Blur2SeqError
from ..layers import (
    Source,
    StackResult,
    add_layers,
    cut,
    error_of,
    preview_layer,
    read_planes,
    read_source,
    region_of,
    trajectory_of,
    update_layer,
    view_of,
)
from ..preview import preview_steps
from ..readout import summary
from ..stacks import PlaneDone, channels_steps, stack_steps
from ..units import pixel_size
from .live import LiveLayer
from .model_choice import EstimatorChoice, ModelChoice
from .parts import Choice, LayerChoice, LightChoice, camera_of, number
from .work import deblur_work, explain
from .work_dock import WorkDock

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from ..layers import LayerData
    from ..progress import Progress

_STAGES = {
    "estimate": "Estimating the motion",
    "refine": "Refining the motion",
    "restore": "Restoring the sharp image",
    "sequence": "Computing the frames",
}
_SHOWN, _EACH, _TOGETHER = range(3)
_AUTOMATIC, _PIXELS, _MILLIMETRES, _STAGE = range(4)
_READY = "Choose a picture blurred by shake and press Deblur."


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
        self._stack: StackResult | None = None
        self._view: Source | None = None  # what is being previewed
        self._view_layer: Layer | None = None
        self._preview = LiveLayer(napari_viewer)
        self._build()

    # ------------------------------------------------------------------ controls

    def _build(self) -> None:
        preferred = preferences.read()
        self.view_button = QPushButton("Preview this vi&ew")
        self.view_button.setToolTip(
            "Deblur what is on the screen, at its zoom, in a few seconds: one quick look with a "
            "blur that is alike everywhere."
        )
        self.view_button.clicked.connect(self.preview_view)
        self.buttons.addWidget(self.view_button)

        self.layer_choice = LayerChoice(self._viewer, self._is_picture)
        self.layer_choice.setToolTip(
            "The picture to deblur. Of a stack, the plane that the viewer shows."
        )
        self.layer_choice.listed.connect(self.update_button)
        self.layer_choice.changed.connect(self._layer_changed)

        self.planes = Choice()
        self.planes.addItems(["the one shown", "all, one by one", "all, together"])
        self.planes.setToolTip(
            "Of a stack: only the plane shown; all one by one, as slices or time points that moved "
            "each on its own; or all together, as channels of one exposure, the motion estimated "
            "from the one shown."
        )

        self.camera_choice = Choice()
        self.camera_choice.addItems(["camera", "camera, px", "camera, mm", "microscope"])
        self.camera_choice.setToolTip(
            "A camera that rotated: the picture tells whether its lens is a wide one, as long as "
            "the longer side, or a long one; or the focal length is given in px (best for cropped "
            "pictures) or in mm, as the 35 mm equivalent. Or a microscope whose stage shook: "
            "shifts and rotation in the plane."
        )
        self.focal_length = number(
            1,
            1e6,
            1,
            "",
            "In pixels: focal length over pixel size, both in mm. 35 mm equivalent: as in the "
            "camera's data sheet or the picture's EXIF entry FocalLengthIn35mmFilm.",
        )
        self.camera_choice.currentIndexChanged.connect(self._camera_changed)

        self.region = LayerChoice(self._viewer, _is_shapes, none="whole picture")
        self.region.setToolTip(
            "A shapes layer whose rectangle limits where the motion is looked for: faster, and "
            "away from what moved by itself. The whole picture is deblurred."
        )

        self.poses = QSpinBox()
        self.poses.setRange(2, 200)
        self.poses.setValue(preferred.poses)
        self.poses.setToolTip(
            "Number of positions during the exposure, and of frames in the sequence. "
            "More for long blur; time and memory grow with it."
        )

        self.refine = QCheckBox("refine the motion")
        self.refine.setChecked(True)
        self.refine.setToolTip(
            "Improve the estimated motion by what it makes of the picture. Takes about as long "
            "again as the estimate of a small picture, less of a large one. With the authors' "
            "checkpoints, the result is then no longer that of their networks alone."
        )

        self.noise = number(
            0,
            50,
            0,
            " %",
            "Standard deviation of the picture's noise in percent of its range. Automatic (0) "
            "measures it. Higher gives smoother results. With a microscope, it is taken to grow "
            "with the brightness, as that of counted photons does, and this is its root mean "
            "square.",
            decimals=2,
        )
        self.noise.setSingleStep(0.1)
        self.noise.setSpecialValueText("automatic")
        self.light = LightChoice()
        self.model = ModelChoice()
        self.model.choice.currentIndexChanged.connect(self._model_changed)
        self.estimator = EstimatorChoice()
        self.device = _DeviceChoice(preferred.device)

        self.form.add(
            ("&Image", self.layer_choice),
            ("Pl&anes", self.planes),
            ("&Taken with", self.camera_choice),
            ("", self.focal_length),
            ("&Region", self.region),
            ("P&oses", self.poses),
            ("", self.refine),
            ("&Noise", self.noise),
            ("Li&ght adds up in", self.light),
            ("&Model", self.model),
            ("E&stimator", self.estimator),
            ("&Device", self.device),
        )
        self._model_changed()
        microscope = preferred.taken_with == "microscope"
        self.camera_choice.setCurrentIndex(_STAGE if microscope else _AUTOMATIC)
        self._camera_changed(self.camera_choice.currentIndex())
        self._layer_changed()
        self.update_button()

    def _camera_changed(self, choice: int) -> None:
        self.focal_length.setEnabled(choice in (_PIXELS, _MILLIMETRES))
        self.focal_length.setSuffix({_PIXELS: " px", _MILLIMETRES: " mm"}.get(choice, ""))
        self.focal_length.setSpecialValueText("automatic" if choice == _AUTOMATIC else "")
        self.focal_length.setValue({_PIXELS: 1000, _MILLIMETRES: 26}.get(choice, 1))
        # Nothing of photography where there is no camera.
        microscope = choice == _STAGE
        for field in (self.focal_length, self.light):
            self.form.rows.setRowVisible(field, not microscope)
        self.form.rows.labelForField(self.poses).setText("Time steps" if microscope else "P&oses")

    def _model_changed(self, *_: object) -> None:
        self.refine.setChecked(not self.model.official)
        # The authors' networks estimate themselves.
        self.form.rows.setRowVisible(self.estimator, not self.model.official)

    def _layer_changed(self) -> None:
        stack = self.layer is not None and self.layer.ndim > 2
        self.planes.setEnabled(stack)
        if not stack:
            self.planes.setCurrentIndex(_SHOWN)

    def _is_picture(self, layer: Layer) -> bool:
        from napari.layers import Image

        return isinstance(layer, Image) and layer not in (self._preview.layer, self._view_layer)

    def update_button(self) -> None:
        """Both buttons need a picture."""
        super().update_button()
        self.view_button.setEnabled(self.layer is not None and not self.working)

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
        elif self.camera_choice.currentIndex() == _STAGE:
            focal_length = Camera.for_stage(image_shape).focal_length
        return pipeline.Options(
            focal_length=focal_length,
            n_poses=self.poses.value(),
            refine=self.refine.isChecked(),
            noise=self.noise.value() / 100 or None,
            noise_model="poisson" if self.camera_choice.currentIndex() == _STAGE else "white",
            linear=self.light.currentData() and self.camera_choice.currentIndex() != _STAGE,
            **self.model.options(),
            **({} if self.model.official else self.estimator.options()),
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
            shapes = self.region.layer
            if shapes is not None:
                assert self.layer is not None
                box = region_of(shapes, self.layer, source, self._viewer.dims)
                options = replace(options, region=pipeline.clipped_region(box, source.shape))
        except Blur2SeqError as error:
            self.refuse(error)
            return
        if self.planes.currentIndex() == _SHOWN:
            self._source = source
            self.start(f"Deblurring {source.name}", lambda: deblur_work(source, options))
        else:
            self._run_stack(source, options)

    def _run_stack(self, source: Source, options: pipeline.Options) -> None:
        layer = self.layer
        assert layer is not None
        planes = read_planes(layer, self._viewer.dims)
        together = self.planes.currentIndex() == _TOGETHER
        leader = [plane.index for plane in planes].index(source.index)
        self._stack = StackResult(self._viewer, layer, planes, {"parameters": asdict(options)})
        read = [plane.pixels for plane in planes]
        self.start(
            f"Deblurring {len(planes)} planes of {source.name}",
            lambda: (
                channels_steps(read, leader, options) if together else stack_steps(read, options)
            ),
        )
        self.run_button.setToolTip("Stop the work; the planes that are done are kept.")

    def preview_view(self) -> None:
        """Start to deblur what the screen shows of the chosen layer."""
        if self.working:
            return
        try:
            source = read_source(self.layer, self._viewer.dims)
            assert self.layer is not None
            region, magnification = view_of(self.layer, source, camera_of(self._viewer).zoom)
            part = cut(source, pipeline.clipped_region(region, source.shape))
            options = self.options(part.shape)
        except Blur2SeqError as error:
            self.refuse(error)
            return
        self._view = part
        # Of what is read from a disk, the part alone.
        whole = source.plane if isinstance(source.plane, np.ndarray) else None
        self.start(
            f"Previewing {source.name}",
            lambda: preview_steps(part.pixels(), magnification, options, whole),
        )

    def _show_view(self, pixels: Any) -> str:
        from napari.layers import Layer

        assert self._view is not None
        if self._view_layer is not None and self._view_layer in self._viewer.layers:
            self._viewer.layers.remove(self._view_layer)
        data, keywords, kind = preview_layer(pixels, self._view)
        keywords["name"] = f"{self._view.name} preview"
        active = self._viewer.layers.selection.active
        self._view_layer = self._viewer.add_layer(Layer.create(data, keywords, kind))
        self._viewer.layers.selection.active = active
        return "A quick look at this view; press Deblur for the whole picture, and a better result."

    def show_event(self, event: Progress) -> None:
        """Text, preview, and planes that are ready."""
        if isinstance(event, PlaneDone):
            assert self._stack is not None and event.sharp is not None
            self._stack.add(event.number, event.sharp, event.trajectory, event.metadata)
        self.stage.setText(f"{_STAGES.get(event.stage, 'Working')}: {event.message}")
        if event.preview is not None:
            assert self._source is not None
            self._preview.show(preview_layer(event.preview, self._source))

    def take_result(self, result: Any) -> Iterator[str]:
        """Add the layers; those of a stack are there already, and what comes are problems."""
        if self._view is not None:
            yield self._show_view(result)
        elif self._stack is not None:
            yield " ".join(["Done.", *map(str, result)])
        else:
            yield from self._add_layers(result)

    def _add_layers(self, layers: list[LayerData]) -> Iterator[str]:
        assert self._source is not None
        added = []
        preview = self._preview.give()
        if preview is not None:
            # It becomes the result: to remove a layer takes napari a fifth of a second.
            first, *layers = layers
            update_layer(preview, first)
            added.append(preview)
            yield "Adding the layers"
        for layer in add_layers(self._viewer, layers, self._source):
            added.append(layer)
            yield "Adding the layers"
        self._viewer.layers.selection.active = added[0]
        trajectory = trajectory_of(added[-1])
        assert trajectory is not None
        if not trajectory.extent:
            yield (
                "No motion was found that would make this picture better: it is given back as it "
                "is. A region with more texture, or the focal length, may help."
            )
            return
        spatial = self._source.spatial
        size = pixel_size(spatial["scale"], spatial["units"])
        words = summary(trajectory, size, error_of(added[-1]))
        yield (
            f"Done. {words}. Show the layer that ends in 'sequence' and move the time slider to "
            "see it."
        )

    def cleared(self) -> None:
        """Nothing intermediate stays."""
        self._preview.remove()
        self._source = self._stack = self._view = None
        self.layer_choice.update_list()


def _is_shapes(layer: Layer) -> bool:
    from napari.layers import Shapes

    return isinstance(layer, Shapes)


class _DeviceChoice(Choice):
    """Devices that exist; PyTorch, which knows them, is imported when the list is opened."""

    def __init__(self, preferred: str = "auto") -> None:
        super().__init__()
        self.addItem("automatic", "auto")
        if preferred != "auto":
            self.addItem(preferred, preferred)
            self.setCurrentIndex(1)
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
            if self.findData(name) < 0:
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
