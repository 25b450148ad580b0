"""The Refine dock in a real viewer: live view, pause, stop, cancel, flip, editing by hand.

Most tests replace the pipeline by one that says when it goes on; none of them sleeps.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from napari.layers import Points
from napari.utils import progress
from napari.utils._test_utils import read_only_mouse_event
from napari.utils.interactions import (
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QThreadPool

from napari_blur2seq import pipeline
from napari_blur2seq._qt.parts import camera_of
from napari_blur2seq._qt.refine_widget import RefineWidget
from napari_blur2seq.images import to_working
from napari_blur2seq.layers import (
    add_layers,
    picture_of,
    result_layers,
    trajectory_layer,
    trajectory_of,
)
from napari_blur2seq.progress import Climbed, Progress
from napari_blur2seq.shake import simulate_tremor
from napari_blur2seq.trajectory import Trajectory

pytestmark = pytest.mark.gui

TIMEOUT = 20_000
PICTURE = np.random.default_rng(0).integers(0, 255, (40, 48), dtype=np.uint8)
MOTION = simulate_tremor((40, 48), extent=6.0, n_poses=9, seed=2)
NAMES = ["shot", "shot deblurred", "shot sequence", "shot trajectory"]
REFINED = ["shot refined", "shot refined sequence", "shot refined trajectory"]


def result_of(image, trajectory, metadata) -> pipeline.Result:
    working, form = to_working(image)
    frames = pipeline.FrameSequence(working, trajectory, form)
    return pipeline.Result(255 - image, trajectory, image, metadata, frames)


class FakePipeline:
    """Climbs six steps, each 1 dB high and 10 % longer; with `hold`, waits after the third."""

    def __init__(self) -> None:
        self.hold = False
        self.at_gate = threading.Event()
        self.gate = threading.Event()
        self.ended = threading.Event()
        self.calls: list[tuple[np.ndarray, pipeline.Options, Trajectory]] = []

    def __call__(self, image, options, starts=(), stop=None):
        (start,) = starts
        self.calls.append((image, options, start))
        self.ended.clear()
        try:
            best, heights = start, [7.0]
            for i in range(6 if options.refine else 0):
                best = start.scaled(1 + i / 10)
                heights = [7.0 + k for k in range(i + 1)]
                yield Climbed(
                    "refine",
                    i / 8,
                    f"step {i}",
                    image[::2, ::2],
                    objective=7.0 + i,
                    best=7.0 + i,
                    trajectory=best,
                )
                if self.hold and i == 2:
                    self.at_gate.set()
                    assert self.gate.wait(30)
                if stop.is_set():
                    break
            yield Progress("restore", 0.9, "restoring")
            about = {"refinement": {"objective_db": heights}} if options.refine else {}
            return result_of(image, best, {"parameters": asdict(options), **about})
        finally:
            self.ended.set()


@pytest.fixture
def fake(monkeypatch) -> Iterator[FakePipeline]:
    pipe = FakePipeline()
    monkeypatch.setattr(pipeline, "deblur_steps", pipe)
    yield pipe
    pipe.gate.set()
    QThreadPool.globalInstance().waitForDone()


@pytest.fixture
def viewer(make_napari_viewer):
    """With a picture, and a result of it."""
    viewer = make_napari_viewer()
    viewer.add_image(PICTURE, name="shot", scale=(0.5, 0.5))
    told = pipeline.Options(
        noise=0.03, noise_model="poisson", linear=True, value_range=(0, 4095), estimator="kernels"
    )
    parameters = asdict(told)
    about = {"parameters": parameters, "certainty": {"error_px": 1.0}}
    source = picture_of(viewer)
    list(add_layers(viewer, result_layers(result_of(PICTURE, MOTION, about), source), source))
    return viewer


def docked(viewer) -> RefineWidget:
    widget = RefineWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Refine")
    return widget


def names(viewer) -> list[str]:
    return [layer.name for layer in viewer.layers]


def run_to_end(qtbot, widget, button) -> None:
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        button.click()


def start_and_hold(qtbot, widget, fake) -> None:
    fake.hold = True
    widget.run_button.click()
    qtbot.waitUntil(lambda: fake.at_gate.is_set() and "step 2" in widget.stage.text())


def assert_ready(widget) -> None:
    assert widget.run_button.isEnabled() and widget.run_button.text() == "&Refine"
    assert widget.edit_button.isEnabled() and widget.restore_button.isEnabled()
    assert not widget.pause_button.isEnabled() and not widget.stop_button.isEnabled()
    assert not progress._all_instances


# -------------------------------------------------------------------- refine


def test_a_result_is_refined_into_layers_of_its_own(qtbot, viewer, fake):
    widget = docked(viewer)
    assert widget.picture.layer is viewer.layers["shot"] and widget.picture.count() == 1
    run_to_end(qtbot, widget, widget.run_button)
    assert names(viewer) == NAMES + REFINED
    image, options, start = fake.calls[0]
    np.testing.assert_array_equal(image, PICTURE)
    assert (options.noise, options.linear, options.n_poses) == (0.03, True, 9)
    assert (options.noise_model, options.value_range) == ("poisson", (0, 4095))
    assert options.seconds is None and not options.fit_focal_length
    assert start == MOTION
    sharp, sequence, tracks = (viewer.layers[name] for name in REFINED)
    np.testing.assert_array_equal(sharp.data, 255 - PICTURE)
    assert sequence.data.shape == (9, 40, 48)
    assert trajectory_of(tracks) == MOTION.scaled(1.5)
    np.testing.assert_array_equal(sharp.scale, (0.5, 0.5))
    assert tracks.metadata["blur2seq"]["refinement"]["objective_db"] == [7, 8, 9, 10, 11, 12]
    # What was there is as it was, under the new tracks.
    assert trajectory_of(viewer.layers["shot trajectory"]) == MOTION
    assert tracks.visible and not viewer.layers["shot trajectory"].visible
    assert "rose by 5.00 dB" in widget.stage.text()
    assert_ready(widget)
    # Once more, from there, into the same layers.
    widget.seconds.setValue(8)
    widget.lenses.setChecked(True)
    assert widget.motion.layer is tracks
    run_to_end(qtbot, widget, widget.run_button)
    assert names(viewer) == NAMES + REFINED
    assert fake.calls[1][2] == MOTION.scaled(1.5)
    assert fake.calls[1][1].seconds == 8 and fake.calls[1][1].fit_focal_length
    assert viewer.layers["shot refined trajectory"] is tracks and tracks.visible
    assert trajectory_of(tracks) == MOTION.scaled(1.5).scaled(1.5)
    assert_ready(widget)


def test_the_work_is_seen_and_cancelled_without_a_trace(qtbot, viewer, fake):
    widget = docked(viewer)
    before = [(layer.name, layer.visible) for layer in viewer.layers]
    start_and_hold(qtbot, widget, fake)
    live = viewer.layers["shot trajectory (refining ...)"]
    assert viewer.layers["shot (refining ...)"].data.shape == (20, 24)
    assert not viewer.layers["shot trajectory"].visible
    assert (widget.motion.count(), widget.picture.count()) == (1, 1)  # neither is offered
    assert not widget.edit_button.isEnabled() and not widget.flip_button.isEnabled()
    dots, line = widget._plot.listDataItems()
    np.testing.assert_array_equal(dots.getData(), [[0, 1, 2], [0, 1, 2]])
    np.testing.assert_array_equal(line.getData(), [[0, 1, 2], [0, 1, 2]])
    grid = MOTION.grid(7)
    places = live.data.reshape(49, 9, 4)[..., [3, 2]]
    allowed = [grid[:, None] + np.swapaxes(MOTION.scaled(1 + i / 10).paths(grid), 0, 1) for i in
               range(3)]  # fmt: skip
    assert min(np.abs(places - a).max() for a in allowed) < 1e-6
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        widget.run_button.click()
        fake.gate.set()
    assert [(layer.name, layer.visible) for layer in viewer.layers] == before
    assert widget.stage.text() == "Cancelled."
    assert_ready(widget)


def test_stop_keeps_the_best_so_far(qtbot, viewer, fake):
    widget = docked(viewer)
    start_and_hold(qtbot, widget, fake)
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        widget.stop_button.click()
        assert not widget.stop_button.isEnabled()
        fake.gate.set()
    assert trajectory_of(viewer.layers["shot refined trajectory"]) == MOTION.scaled(1.2)
    assert "rose by 2.00 dB" in widget.stage.text()
    assert_ready(widget)


@pytest.mark.parametrize("end", ["go on", "stop", "cancel", "close"])
def test_paused_it_waits_for_what_the_user_does(qtbot, viewer, fake, end):
    widget = docked(viewer)
    start_and_hold(qtbot, widget, fake)
    widget.pause_button.click()
    fake.gate.set()
    assert widget.stage.text() == "Paused after the current step."
    if end == "close":
        viewer.window.remove_dock_widget(widget)
        qtbot.waitUntil(fake.ended.is_set)
        return
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        {
            "go on": widget.pause_button,
            "stop": widget.stop_button,
            "cancel": widget.run_button,
        }[end].click()
    if end == "cancel":
        assert names(viewer) == NAMES
    else:
        to_its_end = trajectory_of(viewer.layers["shot refined trajectory"]) == MOTION.scaled(1.5)
        assert to_its_end == (end == "go on")
    assert widget.pause_button.text() == "Pa&use"
    assert_ready(widget)


def test_held_work_does_not_go_on():
    from napari_blur2seq._qt.work import stoppable

    stop, go, done = threading.Event(), threading.Event(), []

    def steps():
        done.append(1)
        yield Progress("refine", 0.5, "")

    held = stoppable(steps, stop, go)
    thread = threading.Thread(target=lambda: list(held))
    thread.start()
    thread.join(0.25)
    assert thread.is_alive() and not done
    stop.set()
    thread.join(5)
    assert not thread.is_alive() and not done


def test_what_cannot_be_refined_is_told(qtbot, viewer, fake):
    widget = docked(viewer)
    other = viewer.add_image(np.zeros((50, 50)), name="other")
    widget.picture.layer = other
    before = len(notification_manager.records)
    widget.run_button.click()
    assert "choose its picture" in notification_manager.records[before].message
    viewer.layers.clear()
    assert not widget.run_button.isEnabled() and not widget.edit_button.isEnabled()
    assert "no motion yet" in widget.run_button.toolTip()
    data, keywords, _ = trajectory_layer(MOTION, "motion")
    viewer.add_tracks(data, **keywords)
    assert "blurry picture" in widget.run_button.toolTip()
    assert not fake.calls


# -------------------------------------------------------------------- flip


def test_time_is_flipped_in_all_that_belongs_together(qtbot, viewer):
    widget = docked(viewer)
    sharp, sequence, tracks = (viewer.layers[name] for name in NAMES[1:])
    frames, rows = np.array(sequence.data), np.array(tracks.data)
    widget.flip_button.click()
    assert trajectory_of(tracks) == MOTION.reversed()
    np.testing.assert_array_equal(sequence.data, frames[::-1])
    flipped = tracks.data.reshape(49, 9, 4)
    np.testing.assert_allclose(flipped[..., 2:], rows.reshape(49, 9, 4)[:, ::-1, 2:])
    assert tracks.color_by == "time" and len(tracks.features["time"]) == len(rows)
    kept = {layer.metadata["blur2seq"]["trajectory_csv"] for layer in (sharp, sequence, tracks)}
    assert kept == {MOTION.reversed().to_csv()}
    assert tracks.metadata["blur2seq"]["certainty"] == {"error_px": 1.0}
    widget.flip_button.click()
    np.testing.assert_array_equal(trajectory_of(tracks).rotations, MOTION.rotations)
    np.testing.assert_array_equal(sequence.data, frames)


def test_motions_of_several_planes_are_neither_flipped_nor_edited(qtbot, viewer):
    widget = docked(viewer)
    tracks = viewer.layers["shot trajectory"]
    text = MOTION.to_csv()
    planes = [{"index": [None, None], "trajectory_csv": text}]
    tracks.metadata = {"blur2seq": {"planes": planes, "trajectory_csv": text}}
    for button in (widget.flip_button, widget.edit_button):
        before = len(notification_manager.records)
        button.click()
        assert "one exposure" in notification_manager.records[before].message
    assert not widget.edit_button.isChecked()
    assert names(viewer) == NAMES


# -------------------------------------------------------------------- edit


def drag(points: Points, viewer, index: int, by) -> None:
    """Drag a point with the mouse, by (y, x) px of the picture, in three moves."""
    start = np.asarray(points.data[index], dtype=float)
    events = []
    for kind, share in (
        ("mouse_press", 0), ("mouse_move", 0.3), ("mouse_move", 0.6), ("mouse_move", 1),
        ("mouse_release", 1),
    ):  # fmt: skip
        where = np.array(viewer.dims.point, dtype=float)
        where[-2:] = points.data_to_world(start + share * np.asarray(by))
        events.append(
            read_only_mouse_event(
                type=kind,
                is_dragging=kind == "mouse_move",
                modifiers=[],
                position=tuple(where),
                view_direction=None,
                dims_displayed=list(viewer.dims.displayed),
            )
        )
    press, *moves, release = events
    mouse_press_callbacks(points, press)
    for move in moves:
        mouse_move_callbacks(points, move)
    mouse_release_callbacks(points, release)


def test_a_dragged_point_takes_the_camera_with_it(qtbot, viewer, fake):
    widget = docked(viewer)
    zoom = camera_of(viewer).zoom
    widget.edit_button.click()
    original, points = viewer.layers["shot trajectory"], viewer.layers["shot path"]
    tracks = viewer.layers["shot edited trajectory"]
    assert widget.motion.layer is tracks and not original.visible
    assert viewer.layers.selection.active is points and points.mode == "select"
    # The path of the grid point in the middle, where its track is.
    middle = MOTION.grid(7)[24]
    path = middle + MOTION.paths([middle])[:, 0]
    np.testing.assert_allclose(points.data, path[:, ::-1])
    np.testing.assert_allclose(tracks.data.reshape(49, 9, 4)[24, :, 2:], points.data)
    np.testing.assert_array_equal(
        points.data_to_world((3, 4)), viewer.layers[0].data_to_world((3, 4))
    )
    drag(points, viewer, 4, (2.0, -1.5))
    edited = trajectory_of(tracks)
    moved = middle + edited.paths([middle])[:, 0] - path
    np.testing.assert_allclose(moved[4], (-1.5, 2.0), atol=1e-6)
    assert 0 < np.linalg.norm(moved[5]) < np.linalg.norm(moved[4])
    np.testing.assert_allclose(moved[[0, 8]], 0, atol=1e-6)
    np.testing.assert_array_equal(edited.rotations[:, 2], MOTION.rotations[:, 2])
    np.testing.assert_allclose(tracks.data.reshape(49, 9, 4)[24, :, 2:], points.data, atol=1e-6)
    assert trajectory_of(original) == MOTION
    assert "certainty" not in tracks.metadata["blur2seq"]
    # A deleted point comes back.
    points.selected_data = {2}
    points.remove_selected()
    assert len(points.data) == 9
    # The result of the edit, and the view there was.
    run_to_end(qtbot, widget, widget.restore_button)
    assert not widget.edit_button.isChecked()
    assert names(viewer) == [
        *NAMES,
        "shot edited trajectory",
        "shot edited",
        "shot edited sequence",
    ]
    assert zoom == (viewer.scene.camera.zoom if hasattr(viewer, "scene") else viewer.camera.zoom)
    _, options, start = fake.calls[0]
    assert start == edited and not options.refine
    # It is edited and restored again in the same layers, and refined in others.
    widget.edit_button.click()
    drag(viewer.layers["shot path"], viewer, 0, (0.0, 1.0))
    run_to_end(qtbot, widget, widget.restore_button)
    assert len(viewer.layers) == 7 and fake.calls[1][2] != edited
    run_to_end(qtbot, widget, widget.run_button)
    assert names(viewer)[7:] == REFINED
    assert_ready(widget)


def test_an_edit_without_a_drag_leaves_nothing(qtbot, viewer):
    widget = docked(viewer)
    for end in (widget.edit_button.click, lambda: viewer.layers.remove("shot path")):
        widget.edit_button.click()
        assert len(viewer.layers) == 6
        end()
        assert names(viewer) == NAMES
        assert widget.motion.layer is viewer.layers["shot trajectory"]
        assert widget.motion.layer.visible and not widget.edit_button.isChecked()
    widget.edit_button.click()
    viewer.window.remove_dock_widget(widget)
    assert names(viewer) == NAMES


# -------------------------------------------------------------------- for real


def test_the_dock_gives_what_the_library_gives(qtbot, make_napari_viewer, monkeypatch):
    from skimage.data import coffee

    from napari_blur2seq.estimate import refinement
    from napari_blur2seq.progress import run

    monkeypatch.setattr(refinement, "_CLIMB", 3)
    truth = simulate_tremor((96, 96), extent=6.0, seed=4, n_poses=7)
    blurry = pipeline.blur(coffee()[40:136, 180:276], truth, noise=0.003)
    viewer = make_napari_viewer()
    viewer.add_image(blurry, name="shot")
    start = truth.scaled(0.7)
    data, keywords, _ = trajectory_layer(start, "motion", picture_of(viewer))
    viewer.add_tracks(data, **keywords)
    widget = docked(viewer)
    with qtbot.waitSignal(widget.done, timeout=300_000):
        widget.run_button.click()
    options = pipeline.Options(n_poses=7)
    expected = run(pipeline.deblur_steps(blurry, options, [start]))
    tracks = viewer.layers["shot refined trajectory"]
    assert tracks.metadata["blur2seq"]["trajectory_csv"] == expected.trajectory.to_csv()
    np.testing.assert_array_equal(viewer.layers["shot refined"].data, expected.sharp)
    heights = tracks.metadata["blur2seq"]["refinement"]["objective_db"]
    assert heights == expected.metadata["refinement"]["objective_db"] and len(heights) > 1
    assert len(widget._heights) >= len(heights)
