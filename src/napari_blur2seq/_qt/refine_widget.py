"""The dock that refines the motion of a result before one's eyes, and lets it be edited by hand."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.compat import isalive
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QSpinBox, QVBoxLayout, QWidget

from .. import pipeline, preferences
from ..editing import along, dragged
from ..errors import Blur2SeqError, TrajectoryError
from ..layers import (
    LayerData,
    Source,
    add_layers,
    flip_time,
    is_trajectory,
    parameters_of,
    path_of_points,
    path_points,
    place_of_tracks,
    preview_layer,
    put_points,
    read_source,
    single_trajectory,
    source_of,
    trajectory_layer,
    trajectory_of,
    update_layer,
)
from ..progress import Climbed, Progress
from ..readout import summary
from ..units import pixel_size
from .curves import make_plot, restyle, style_of
from .live import LiveLayer
from .parts import LayerChoice, camera_of, canvas_size_of
from .work import deblur_work
from .work_dock import WorkDock

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from ..trajectory import Trajectory

_READY = "Choose a motion and press Refine, or edit its path by hand."
_STAGES = {"refine": "Refining the motion", "restore": "Restoring the sharp image"}
# What is taken over from the options that a result was made with.
_KEPT = ("linear", "noise", "noise_model", "prior", "region", "value_range")
# Share of the canvas that a path to be edited takes up.
_PATH_SHARE = 0.4


class RefineWidget(WorkDock):
    """Refine a trajectory in the viewer, flip it in time, edit it, and restore with it.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    parent : QWidget, optional
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, "&Refine", _READY, parent)
        self._source: Source | None = None
        self._word = "refined"  # what the work at hand makes of the picture
        self._enough = threading.Event()
        self._start: Layer | None = None
        self._focal_length = 0.0
        self._sharp, self._tracks = LiveLayer(napari_viewer), LiveLayer(napari_viewer)
        # Layers added here, by word and name of the picture, to be used again.
        self._made: dict[tuple[str, str], list[Layer | None]] = {}
        self._heights: list[tuple[float, float]] = []
        self._plot: Any = None
        self._edit: _Edit | None = None
        self._build()
        napari_viewer.layers.events.removed.connect(self._layer_removed)
        napari_viewer.events.theme.connect(self._draw)

    # ------------------------------------------------------------------ controls

    def _build(self) -> None:
        viewer = self._viewer
        self.motion = LayerChoice(viewer, self._is_motion)
        self.motion.setToolTip("The trajectory to start from: that of a result, or of a file.")
        self.picture = LayerChoice(viewer, self._is_picture)
        self.picture.setToolTip("The blurry picture that the trajectory belongs to.")
        self.seconds = QSpinBox()
        self.seconds.setRange(0, 3600)
        self.seconds.setSuffix(" s")
        self.seconds.setSpecialValueText("as long as it pays")
        self.seconds.setToolTip(
            "The refinement ends after about so many seconds of computing; what it finds then "
            "depends on how fast the machine is. As long as it pays (0): always the same."
        )
        self.lenses = QCheckBox("try other focal len&gths")
        self.lenses.setToolTip(
            "For a lens that is not known: half, twice and four times the focal length are tried, "
            "and one is taken if it is clearly better."
        )
        self.form.add(
            ("&Motion", self.motion),
            ("&Image", self.picture),
            ("Seco&nds", self.seconds),
            ("", self.lenses),
        )
        self.pause_button = QPushButton("Pa&use")
        self.pause_button.setCheckable(True)
        self.pause_button.setToolTip("Wait after the current step; press again to go on.")
        self.pause_button.toggled.connect(self._pause)
        self.stop_button = QPushButton("&Stop")
        self.stop_button.setToolTip("End the refinement now and keep the best so far.")
        self.stop_button.clicked.connect(self.enough)
        self.edit_button = QPushButton("&Edit path")
        self.edit_button.setCheckable(True)
        self.edit_button.setToolTip(
            "Drag the points of one path, that of the grid point nearest to the middle of the "
            "view: pitch and yaw follow. A copy of the motion is edited."
        )
        self.edit_button.toggled.connect(self._toggle_edit)
        self.flip_button = QPushButton("Flip &time")
        self.flip_button.setToolTip(
            "Let time run the other way in the motion and its sequence: one picture does not tell "
            "the direction."
        )
        self.flip_button.clicked.connect(self.flip)
        self.restore_button = QPushButton("Rest&ore with this motion")
        self.restore_button.setToolTip(
            "Make the sharp image and the sequence with the motion as it is, without refining it."
        )
        self.restore_button.clicked.connect(self.restore)
        for row in ((self.pause_button, self.stop_button), (self.edit_button, self.flip_button)):
            line = QHBoxLayout()
            for button in row:
                line.addWidget(button)
            self.buttons.addLayout(line)
        self.buttons.addWidget(self.restore_button)
        self._plots = QVBoxLayout()
        layout = self.layout()
        layout.insertLayout(layout.count() - 1, self._plots, 1)
        self.motion.changed.connect(self._motion_changed)
        self.picture.changed.connect(self.update_button)
        self._motion_changed()

    def _is_motion(self, layer: Layer) -> bool:
        return is_trajectory(layer) and layer is not self._tracks.layer

    def _is_picture(self, layer: Layer) -> bool:
        """Whether it may be blurry: our results remember a trajectory."""
        from napari.layers import Image

        ours = layer is self._sharp.layer or trajectory_of(layer) is not None
        return isinstance(layer, Image) and not ours

    def _motion_changed(self) -> None:
        """Choose the picture that the motion says it is of."""
        motion = self.motion.layer
        source = None if motion is None else source_of(motion, self._viewer.layers)
        if source is not None:
            self.picture.layer = source
        self.update_button()

    def update_button(self) -> None:
        """What each button needs."""
        super().update_button()
        ready, working = not self.why_not(), self.working
        self.restore_button.setEnabled(ready and not working)
        for button in (self.edit_button, self.flip_button):
            button.setEnabled(self.motion.layer is not None and not working)
        for button in (self.pause_button, self.stop_button):
            button.setEnabled(working)

    def why_not(self) -> str:
        """A motion and its picture are needed."""
        if self.motion.layer is None:
            return "There is no motion yet: deblur a picture, or drop a trajectory file here."
        return "Open the blurry picture of the motion." if self.picture.layer is None else ""

    def explain_action(self) -> str:
        """For the tool tip."""
        return "Improve the motion by what it makes of the picture, and restore with it."

    def options(self, trajectory: Trajectory, refine: bool = True) -> pipeline.Options:
        """What the controls, and the result that the motion is of, say."""
        assert self.motion.layer is not None
        parameters = parameters_of(self.motion.layer, self._viewer.dims)
        return pipeline.Options(
            n_poses=len(trajectory),
            refine=refine,
            seconds=self.seconds.value() or None,
            fit_focal_length=self.lenses.isChecked(),
            device=preferences.read().device,
            **{name: parameters[name] for name in _KEPT if name in parameters},
        )

    # ------------------------------------------------------------------ work

    def run(self) -> None:
        """Start to refine the chosen motion."""
        self._begin("refined")

    def restore(self) -> None:
        """Start to restore with the chosen motion as it is."""
        edited = self.motion.layer in self._layers_made("edited")
        self._begin("edited" if edited else "restored")

    def _begin(self, word: str) -> None:
        if self.working:
            return
        self.edit_button.setChecked(False)
        motion = self.motion.layer
        try:
            source = read_source(self.picture.layer, self._viewer.dims)
            trajectory = None if motion is None else trajectory_of(motion, self._viewer.dims)
            if trajectory is None:
                raise TrajectoryError(self.why_not())
            if trajectory.image_shape != source.shape:
                raise TrajectoryError(
                    f"The motion is of a picture of {trajectory.image_shape[1]} x "
                    f"{trajectory.image_shape[0]} px, not of '{source.name}'; choose its picture."
                )
            options = self.options(trajectory, refine=word == "refined")
        except Blur2SeqError as error:
            self.refuse(error)
            return
        self._source, self._word, self._start = source, word, motion
        self._focal_length = trajectory.focal_length
        self._enough = stop = threading.Event()
        self._heights = []
        self._draw()
        self.start(
            f"Refining {source.name}" if options.refine else f"Restoring {source.name}",
            lambda: deblur_work(source, options, starts=[trajectory], stop=stop),
        )
        self.run_button.setToolTip("Stop the work; nothing is changed.")
        self.stop_button.setEnabled(options.refine)

    def _pause(self, on: bool) -> None:
        self.held = on
        self.pause_button.setText("Go &on" if on else "Pa&use")
        if on:
            self.stage.setText("Paused after the current step.")

    def enough(self) -> None:
        """End the refinement, keep the best so far, and restore with it."""
        self._enough.set()
        self.stop_button.setEnabled(False)
        self.pause_button.setChecked(False)

    def cancel(self) -> None:
        """Stop the work, also when it is paused."""
        super().cancel()
        self.pause_button.setEnabled(False)
        self.stop_button.setEnabled(False)

    def show_event(self, event: Progress) -> None:
        """Text, curve, picture and tracks."""
        if not self.held:
            self.stage.setText(f"{_STAGES.get(event.stage, 'Working')}: {event.message}")
        assert self._source is not None
        self.stop_button.setEnabled(event.stage == "refine" and not self._enough.is_set())
        if event.preview is not None:
            data, keywords, kind = preview_layer(event.preview, self._source)
            keywords["name"] = f"{self._source.name} (refining ...)"
            self._sharp.show((data, keywords, kind))
        if isinstance(event, Climbed):
            self._heights.append((event.objective, event.best))
            self._draw()
            if event.trajectory is not None:
                if self._start is not None:
                    self._start.visible = False
                name = f"{self._source.name} trajectory (refining ...)"
                self._tracks.show(trajectory_layer(event.trajectory, name, self._source))

    def take_result(self, result: Any) -> Iterator[str]:
        """Show the layers: those made here before, or new ones."""
        yield from self._show(result)

    def _show(self, results: list[LayerData]) -> Iterator[str]:
        assert self._source is not None
        source, word = self._source, self._word
        made = self._made.setdefault((word, source.name), [None] * len(results))
        names = (f"{word}", f"{word} sequence", f"{word} trajectory")
        for i, ((data, keywords, kind), name) in enumerate(zip(results, names, strict=True)):
            layer = made[i]
            if layer is not None and layer in self._viewer.layers:
                update_layer(layer, (data, keywords | {"name": layer.name}, kind))
            else:
                keywords["name"] = f"{source.name} {name}"
                for added in add_layers(self._viewer, [(data, keywords, kind)], source):
                    made[i] = added
            yield "Adding the layers"
        sharp, _, tracks = made
        assert sharp is not None and tracks is not None
        sharp.visible = tracks.visible = True
        if self._start is not None and self._start is not tracks:
            self._start.visible = False
        self._start = None
        self._viewer.layers.selection.active = sharp
        yield self._report(tracks)

    def _report(self, tracks: Layer) -> str:
        assert self._source is not None
        trajectory = trajectory_of(tracks)
        assert trajectory is not None
        spatial = self._source.spatial
        words = summary(trajectory, pixel_size(spatial["scale"], spatial["units"]))
        if trajectory.focal_length != self._focal_length:
            words += f" through a lens of {trajectory.focal_length:.0f} px"
        if self._word != "refined":
            return f"Done. {words}."
        heights = tracks.metadata["blur2seq"]["refinement"]["objective_db"]
        if len(heights) < 2:
            return f"Done. {words}: no better motion was found near this one."
        return f"Done. {words}. The objective rose by {heights[-1] - heights[0]:.2f} dB."

    def cleared(self) -> None:
        """Nothing intermediate stays, and what was hidden for it is seen again."""
        self._sharp.remove()
        self._tracks.remove()
        if self._start is not None:
            self._start.visible = True
        self._start = self._source = None
        self.pause_button.setChecked(False)
        for choice in (self.motion, self.picture):
            choice.update_list()
        made = self._made.get((self._word, self._picture_name), [None])[-1]
        if made is not None and made in self._viewer.layers:
            self.motion.layer = made

    @property
    def _picture_name(self) -> str:
        return self.picture.layer.name if self.picture.layer is not None else ""

    def _layers_made(self, word: str) -> list[Layer | None]:
        return self._made.get((word, self._picture_name), [None] * 3)

    # ------------------------------------------------------------------ curve

    def _draw(self, event: Any = None) -> None:
        """The objective of every step, and of the best until then."""
        if not isalive(self):
            return
        if self._plot is not None:
            self._plot.setVisible(bool(self._heights))
        if not self._heights:
            return
        import pyqtgraph as pg

        if self._plot is None:
            self._plot = make_plot(
                "The objective over the steps of the refinement: dots are steps, the line is the "
                "best until then."
            )
            self._plot.setLabel("bottom", "step")
            self._plot.setLabel("left", "gain (dB)")
            self._plots.addWidget(self._plot)
        style = style_of(self._viewer)
        restyle(self._plot, style)
        self._plot.clear()
        values = np.array(self._heights) - self._heights[0][0]
        steps = np.arange(len(values))
        self._plot.plot(
            steps, values[:, 0], pen=None, symbol="o", symbolSize=4, symbolBrush=style.curves[1]
        )
        self._plot.plot(steps, values[:, 1], pen=pg.mkPen(style.curves[0], width=2))
        low = float(values[:, 1].max()) * -0.25 - 0.05
        self._plot.setYRange(max(low, float(values.min())), float(values[:, 1].max()) + 0.02)

    # ------------------------------------------------------------------ flip and edit

    def flip(self) -> None:
        """Let time run the other way in the chosen motion and its sequence."""
        motion = self.motion.layer
        if motion is None or self.working:
            return
        self.edit_button.setChecked(False)
        try:
            flip_time(self._viewer.layers, motion)
        except Blur2SeqError as error:
            self.refuse(error)
        else:
            self.stage.setText("Time runs the other way.")

    def _toggle_edit(self, on: bool) -> None:
        self.edit_button.setText("&End edit" if on else "&Edit path")
        if not on:
            edit, self._edit = self._edit, None
            if edit is not None:
                self._leave(edit)
            return
        motion = self.motion.layer
        try:
            if motion is None:
                raise TrajectoryError(self.why_not())
            trajectory = single_trajectory(motion)
        except Blur2SeqError as error:
            self.edit_button.setChecked(False)
            self.refuse(error)
            return
        name = self._picture_name or motion.name
        copied = None
        if motion not in self._layers_made("edited"):
            copied = motion
            motion = self._copy(motion, trajectory, name)
            self._made["edited", self._picture_name] = [None, None, motion]
            self.motion.layer = motion
            copied.visible = False
        self._edit = _Edit(self._viewer, motion, trajectory, f"{name} path", copied)
        self.stage.setText(
            "Drag a point of the path; its neighbours follow a bit. Then restore with the motion, "
            "or refine it from there."
        )

    def _copy(self, motion: Layer, trajectory: Trajectory, name: str) -> Layer:
        from napari.layers import Layer

        # What was found out about the motion that it starts from does not hold for it.
        about = {
            key: value
            for key, value in motion.metadata["blur2seq"].items()
            if key not in ("certainty", "refinement")
        }
        place = place_of_tracks(motion, trajectory)
        data = trajectory_layer(trajectory, f"{name} edited trajectory", place, about)
        layer = Layer.create(*data)
        self._viewer.add_layer(layer)
        return layer

    def _leave(self, edit: _Edit) -> None:
        edit.close()
        # Nothing was dragged: as if it had not been begun.
        if not edit.changed and edit.copied is not None:
            edit.copied.visible = True
            if edit.copied in self._viewer.layers:
                self.motion.layer = edit.copied
            if edit.tracks in self._viewer.layers:
                self._viewer.layers.remove(edit.tracks)

    def _layer_removed(self, event: Any) -> None:
        if isalive(self) and self._edit is not None and self._edit.uses(event.value):
            self.edit_button.setChecked(False)

    def event(self, event: Any) -> bool:
        """End the edit, too, when the dock is closed."""
        closed = event is not None and event.type() == event.Type.ParentChange
        if closed and self.parent() is None and self._edit is not None:
            self.edit_button.setChecked(False)
        return bool(super().event(event))


class _Edit:
    """Points to drag on the path of one grid point, and tracks that follow them.

    Parameters
    ----------
    viewer : napari.Viewer
    tracks : napari.layers.Tracks
        The layer of the trajectory.
    trajectory : Trajectory
    name : str
        Of the layer of points.
    copied : napari.layers.Tracks, optional
        The layer that `tracks` is a copy of.
    """

    def __init__(
        self,
        viewer: Viewer,
        tracks: Layer,
        trajectory: Trajectory,
        name: str,
        copied: Layer | None,
    ) -> None:
        from napari.layers import Layer

        self.tracks, self.copied, self.changed = tracks, copied, False
        self._viewer, self._trajectory = viewer, trajectory
        self._place = place_of_tracks(tracks, trajectory)
        self._point = self._nearest_grid_point()
        self.points = Layer.create(*path_points(trajectory, self._point, name, self._place))
        self._xy = path_of_points(self.points, self._place)
        viewer.add_layer(self.points)
        viewer.layers.selection.active = self.points
        self.points.mode = "select"
        self.points.events.data.connect(self._follow)
        # napari tells of a drag when it has ended.
        self.points.mouse_drag_callbacks.append(self._follow_drag)
        camera = camera_of(viewer)
        self._view = (camera.center, camera.zoom)
        self._zoom_in()

    def uses(self, layer: Layer) -> bool:
        """Whether it cannot go on without a layer."""
        return layer is self.points or layer is self.tracks

    def close(self) -> None:
        """Take the points out, and go back to the view there was."""
        camera = camera_of(self._viewer)
        camera.center, camera.zoom = self._view
        if self.points in self._viewer.layers:
            self._viewer.layers.remove(self.points)

    def _nearest_grid_point(self) -> np.ndarray[Any, Any]:
        """Of those that have a track, the one nearest to the middle of what is shown."""
        first = np.asarray(self.tracks.data)[:: len(self._trajectory)]
        axes = [2 + axis for axis in self._place.shown]
        world = np.array(self._viewer.dims.point, dtype=float)
        displayed = list(self._viewer.dims.displayed)
        world[displayed] = np.asarray(camera_of(self._viewer).center)[-len(displayed) :]
        middle = np.asarray(self.tracks.world_to_data(world[-self.tracks.ndim :]))
        middle = middle[[1 + axis for axis in self._place.shown]]
        nearest = int(np.argmin(np.square(first[:, axes] - middle).sum(axis=1)))
        grid = self._trajectory.grid(round(len(first) ** 0.5))
        point: np.ndarray[Any, Any] = grid[nearest]
        return point

    def _zoom_in(self) -> None:
        """Let the path take up a good part of the canvas."""
        camera = camera_of(self._viewer)
        places = np.array([self.points.data_to_world(p) for p in np.asarray(self.points.data)])
        places = places[:, list(self._place.shown)]
        size = float(np.ptp(places, axis=0).max())
        canvas = min(canvas_size_of(self._viewer))
        if size > 0:
            camera.center = (0.0, *places.mean(axis=0))
            camera.zoom = max(camera.zoom, _PATH_SHARE * canvas / size)

    def _follow_drag(self, layer: Layer, event: Any) -> Generator[None, None, None]:
        yield
        while event.type == "mouse_move":
            self._follow()
            yield

    def _follow(self, event: Any = None) -> None:
        """Let the camera follow the points that were dragged."""
        if len(self.points.data) != len(self._xy):  # one was added or deleted
            data, keywords, _ = path_points(self._trajectory, self._point, "", self._place)
            with self.points.events.data.blocker():
                self.points.data = data
            self.points.features = keywords["features"]
            self.points.refresh_colors()
            return
        now = path_of_points(self.points, self._place)
        moved = np.flatnonzero(np.abs(now - self._xy).max(axis=1) > 1e-6)
        if not len(moved):
            return
        self._xy = dragged(self._xy, moved.tolist(), (now - self._xy)[moved].mean(axis=0))
        self._trajectory = along(self._trajectory, self._point, self._xy - self._point)
        self.changed = True
        put_points(self.points, self._xy, self._place)
        about = self.tracks.metadata["blur2seq"]
        name = self.tracks.name
        update_layer(self.tracks, trajectory_layer(self._trajectory, name, self._place, about))
