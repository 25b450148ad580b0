"""The dock that shakes a sharp picture with a known motion, to test the method on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QWidget,
)

from .. import pipeline, shake
from ..errors import Blur2SeqError, OptionError
from ..layers import LayerData, Source, add_layers, read_source, shaken_layers
from ..progress import Steps
from ..trajectory import Trajectory
from .parts import Choice, LayerChoice, LightChoice, number
from .work_dock import WorkDock

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

_TREMOR, _FILE = range(2)
# Sensor's axes to the camera's: x right, y down, z into the scene.
_AXES = {
    "as the camera's": None,
    "phone held upright": np.diag([1.0, -1.0, -1.0]),
}


@dataclass(frozen=True)
class Shake:
    """What the controls of the dock say.

    Attributes
    ----------
    file : str
        Trajectory or gyroscope recording; empty for simulated hand tremor.
    exposure : float
        Seconds.
    amplitude : float
        Of the tremor: root mean square of the angular velocity, rad/s.
    extent : float, optional
        Scale the motion to this many px.
    start : float
        Of the exposure in a recording, seconds.
    axes : str
        Key of the way the sensor of a recording was mounted.
    seed : int
        Of the tremor and the noise.
    noise : float
        Standard deviation as a share of the range.
    linear : bool
        Decode sRGB; light adds up in linear values.
    """

    file: str
    exposure: float
    amplitude: float
    extent: float | None
    start: float
    axes: str
    seed: int
    noise: float
    linear: bool

    def trajectory(self, image_shape: tuple[int, int]) -> Trajectory:
        """The motion, for pictures of (height, width)."""
        if not self.file:
            return shake.simulate_tremor(
                image_shape,
                exposure=self.exposure,
                amplitude=self.amplitude,
                extent=self.extent,
                seed=self.seed,
            )
        recording = shake.is_recording(self.file)
        motion = shake.load_motion(
            self.file,
            image_shape,
            start=self.start,
            exposure=self.exposure if recording else None,
            axes=_AXES[self.axes],
        )
        if motion.image_shape != image_shape:
            # The same rotations seen by this picture's camera, of the same angle of view.
            factor = max(image_shape) / max(motion.image_shape)
            motion = Trajectory(
                motion.rotations,
                motion.focal_length * factor,
                (image_shape[1] / 2, image_shape[0] / 2),
                image_shape,
                motion.times,
            )
        return motion if self.extent is None else shake.with_extent(motion, self.extent)


def shake_work(source: Source, chosen: Shake) -> Steps[list[LayerData]]:
    """Shake the plane of a source; returns layers."""
    trajectory = chosen.trajectory(source.shape)
    options = pipeline.Options(noise=chosen.noise, linear=chosen.linear, seed=chosen.seed)
    shaken = yield from pipeline.blur_steps(source.pixels(), trajectory, options)
    return shaken_layers(shaken, trajectory, source, {"simulation": asdict(chosen)})


class SimulateWidget(WorkDock):
    """Shake a sharp image layer; the true trajectory is kept as a layer.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    parent : QWidget, optional
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        ready = "Choose a sharp picture and press Shake."
        super().__init__(napari_viewer, "Shake", ready, parent)
        self._source: Source | None = None
        self._build()

    def _build(self) -> None:
        self.layer_choice = LayerChoice(self._viewer, _is_picture)
        self.layer_choice.setToolTip(
            "The sharp picture to shake. Of a stack, the plane that the viewer shows."
        )
        self.layer_choice.listed.connect(self.update_button)
        self.motion = Choice()
        self.motion.addItems(["hand tremor", "from a file"])
        self.motion.setToolTip(
            "Simulated tremor of a hand, or a trajectory or gyroscope recording from a file."
        )
        self.motion.currentIndexChanged.connect(self._motion_changed)
        self.file = QLineEdit()
        self.file.setPlaceholderText("no file chosen")
        self.file.setToolTip(
            "A trajectory saved by this plugin, a trajectory of Blur2seq's authors (lines of "
            "0,0,0,pitch,yaw,roll), or a gyroscope recording (lines of time,x,y,z)."
        )
        self.file.textChanged.connect(self._file_changed)
        self.browse = QPushButton("Browse ...")
        self.browse.setToolTip("Choose the file of the motion.")
        self.browse.clicked.connect(self._browse)
        file_row = QWidget()
        file_row.setToolTip(self.file.toolTip())
        row = QHBoxLayout(file_row)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.file, 1)
        row.addWidget(self.browse)
        self.exposure = number(1, 10_000, 100, " ms", "Exposure time. Longer shakes more.")
        self.amplitude = number(
            0.001,
            2,
            0.15,
            " rad/s",
            "Root mean square of the camera's angular velocity: 0.02 for a camera held with care, "
            "0.15 for a telephone, 0.5 for one shaken on purpose.",
            decimals=3,
        )
        self.extent = number(
            0,
            500,
            0,
            " px",
            "Scale the motion so that its longest path in the picture has this extent. 0: as it "
            "comes from tremor and exposure.",
        )
        self.extent.setSpecialValueText("as it comes")
        self.begin = number(
            0, 1e6, 0, " s", "Start of the exposure within a gyroscope recording.", decimals=3
        )
        self.axes = Choice()
        self.axes.addItems(list(_AXES))
        self.axes.setToolTip(
            "How the gyroscope was mounted: the camera's axes are x right, y down, z into the "
            "scene."
        )
        self.seed = QSpinBox()
        self.seed.setRange(0, 2**31 - 1)
        self.seed.setToolTip("Of the tremor and the noise: the same seed, the same result.")
        self.noise = number(
            0, 50, 1, " %", "Standard deviation of noise added, in percent of the range."
        )
        self.light = LightChoice()
        self.form.add(
            ("&Image", self.layer_choice),
            ("&Motion", self.motion),
            ("Fil&e", file_row),
            ("E&xposure", self.exposure),
            ("T&remor", self.amplitude),
            ("Start in recordin&g", self.begin),
            ("Gyroscope &axes", self.axes),
            ("Ex&tent", self.extent),
            ("&Seed", self.seed),
            ("&Noise", self.noise),
            ("Light adds &up in", self.light),
        )
        self._rows = {"file": file_row, "begin": self.begin, "axes": self.axes}
        self._motion_changed()

    def _motion_changed(self, *_: object) -> None:
        from_file = self.motion.currentIndex() == _FILE
        for field in self._rows.values():
            self.form.rows.setRowVisible(field, from_file)
        self.form.rows.setRowVisible(self.amplitude, not from_file)
        self._file_changed()

    def _file_changed(self, *_: object) -> None:
        recording = self.motion.currentIndex() == _FILE and shake.is_recording(self.file.text())
        self.begin.setEnabled(recording)
        self.axes.setEnabled(recording)
        self.exposure.setEnabled(recording or self.motion.currentIndex() == _TREMOR)
        self.update_button()

    def _browse(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Motion of the camera", self.file.text(), "Trajectories (*.csv *.txt);;All (*)"
        )
        if path:
            self.file.setText(path)

    @property
    def layer(self) -> Layer | None:
        """The image layer to shake."""
        return self.layer_choice.layer

    def chosen(self) -> Shake:
        """What the controls say."""
        file = self.file.text().strip() if self.motion.currentIndex() == _FILE else ""
        if self.motion.currentIndex() == _FILE and not Path(file).is_file():
            raise OptionError(f"There is no file {file or 'chosen'}; choose one with Browse.")
        return Shake(
            file=file,
            exposure=self.exposure.value() / 1000,
            amplitude=self.amplitude.value(),
            extent=self.extent.value() or None,
            start=self.begin.value(),
            axes=self.axes.currentText(),
            seed=self.seed.value(),
            noise=self.noise.value() / 100,
            linear=self.light.currentData(),
        )

    def why_not(self) -> str:
        """Without a picture there is nothing to do."""
        return "" if self.layer is not None else "Open a sharp picture first."

    def explain_action(self) -> str:
        """For the tool tip."""
        return "Shake the chosen picture; the result and the true trajectory are added as layers."

    def run(self) -> None:
        """Start to shake the chosen layer."""
        if self.working:
            return
        try:
            source = read_source(self.layer, self._viewer.dims)
            chosen = self.chosen()
        except Blur2SeqError as error:
            self.refuse(error)
            return
        self._source = source
        self.start(f"Shaking {source.name}", lambda: shake_work(source, chosen))

    def take_result(self, layers: list[LayerData]) -> Iterator[str]:
        """Add the layers."""
        assert self._source is not None
        shaken, _ = add_layers(self._viewer, layers, self._source)
        self._viewer.layers.selection.active = shaken
        yield f"Done. Deblur the layer '{shaken.name}' and compare with the sharp picture."

    def cleared(self) -> None:
        """Let the picture go."""
        self._source = None


def _is_picture(layer: Layer) -> bool:
    from napari.layers import Image

    return isinstance(layer, Image)
