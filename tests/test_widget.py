"""The dock widget in a real viewer: results, cancelling, failures, closing.

Most tests replace the pipeline by one that says when it goes on; none of them sleeps.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.resources import files

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from napari.layers import Image, Tracks
from napari.utils import progress
from napari.utils.notifications import notification_manager
from npe2 import PluginManifest
from qtpy.QtCore import QThreadPool
from qtpy.QtGui import QMovie
from qtpy.QtWidgets import QFileDialog, QLabel
from skimage.data import astronaut

from napari_blur2seq import blur, memory, pipeline, preferences
from napari_blur2seq._qt import work
from napari_blur2seq._qt.deblur_widget import DeblurWidget
from napari_blur2seq.camera import Camera
from napari_blur2seq.errors import ImageError, OptionError
from napari_blur2seq.images import to_working
from napari_blur2seq.models import registry
from napari_blur2seq.progress import Progress, mapped
from napari_blur2seq.shake import simulate_tremor
from napari_blur2seq.trajectory import Trajectory

pytestmark = pytest.mark.gui

TIMEOUT = 20_000
PICTURE = np.random.default_rng(0).integers(0, 255, (40, 48), dtype=np.uint8)


class FakePipeline:
    """Yields a few events; with `hold`, waits for `go_on` after the first of them."""

    def __init__(self) -> None:
        self.hold = False
        self.error: Exception | None = None
        self.at_gate = threading.Event()
        self.gate = threading.Event()
        self.ended = threading.Event()
        self.completed = False
        self.calls: list[tuple[np.ndarray, pipeline.Options]] = []
        self.threads: list[int] = []

    def go_on(self) -> None:
        self.gate.set()

    def __call__(self, image, options):
        self.calls.append((image, options))
        self.threads.append(threading.get_ident())
        try:
            yield Progress("estimate", 0.1, "coarse", preview=image[::2, ::2])
            if self.hold:
                self.at_gate.set()
                assert self.gate.wait(30)
            if self.error is not None:
                raise self.error
            yield Progress("restore", 0.8, "tile 1 of 1", preview=image)
            working, form = to_working(image)
            rotations = np.linspace(-0.01, 0.01, options.n_poses)[:, None] * [1, 2, 3]
            trajectory = Trajectory(rotations, 48.0, (24.0, 20.0), image.shape[:2])
            frames = pipeline.FrameSequence(working, trajectory, form)
            self.completed = True
            return pipeline.Result(255 - image, trajectory, image, {"version": "x"}, frames)
        finally:
            self.threads.append(threading.get_ident())
            self.ended.set()


@pytest.fixture
def fake(monkeypatch) -> Iterator[FakePipeline]:
    pipe = FakePipeline()
    monkeypatch.setattr(pipeline, "deblur_steps", pipe)
    yield pipe
    pipe.go_on()
    QThreadPool.globalInstance().waitForDone()


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


def docked(viewer) -> DeblurWidget:
    widget = DeblurWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Deblur")
    widget.poses.setValue(4)
    return widget


def run_to_end(qtbot, widget: DeblurWidget) -> None:
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        widget.run_button.click()


def start_and_hold(qtbot, widget: DeblurWidget, fake: FakePipeline) -> None:
    fake.hold = True
    widget.run_button.click()
    qtbot.waitUntil(lambda: fake.at_gate.is_set() and "coarse" in widget.stage.text())


def names(viewer) -> list[str]:
    return [layer.name for layer in viewer.layers]


def assert_ready(widget: DeblurWidget) -> None:
    assert widget.run_button.text() == "Deblur"
    assert widget.run_button.isEnabled()
    assert widget.poses.isEnabled()
    assert not progress._all_instances  # no bar is left in the activity dock


# -------------------------------------------------------------------- results


def test_run_adds_three_layers(qtbot, viewer, fake):
    viewer.add_image(PICTURE, name="shot", scale=(0.5, 0.5))
    widget = docked(viewer)
    run_to_end(qtbot, widget)
    assert names(viewer) == ["shot", "shot deblurred", "shot sequence", "shot trajectory"]
    image, sharp, sequence, tracks = viewer.layers
    np.testing.assert_array_equal(image.data, PICTURE)
    np.testing.assert_array_equal(sharp.data, 255 - PICTURE)
    assert isinstance(sequence, Image) and isinstance(sequence.data, np.ndarray)
    assert sequence.data.shape == (4, 40, 48)
    assert isinstance(tracks, Tracks)
    assert sharp.metadata["blur2seq"]["parameters"]["n_poses"] == 4
    assert widget.stage.text().startswith("Done.")
    assert widget.layer is image
    assert_ready(widget)


def test_a_colour_picture_and_a_plane_of_a_stack(qtbot, viewer, fake):
    colour = np.random.default_rng(1).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    viewer.add_image(colour, name="colour")
    widget = docked(viewer)
    run_to_end(qtbot, widget)
    assert viewer.layers["colour deblurred"].rgb
    assert viewer.layers["colour sequence"].data.shape == (4, 40, 48, 3)
    stack = viewer.add_image(np.random.default_rng(2).random((5, 40, 48)), name="stack")
    widget.layer = stack
    viewer.dims.set_current_step(0, 3)
    run_to_end(qtbot, widget)
    np.testing.assert_array_equal(fake.calls[-1][0], stack.data[3])
    assert viewer.layers["stack sequence"].data.shape == (4, 1, 40, 48)


def test_a_large_sequence_stays_lazy(qtbot, viewer, fake, monkeypatch):
    import dask.array

    viewer.add_image(PICTURE, name="shot")
    widget = docked(viewer)
    run_to_end(qtbot, widget)
    tiny = preferences.Preferences(sequence_memory=0)
    monkeypatch.setattr(preferences, "read", lambda: tiny)
    run_to_end(qtbot, widget)
    small, large = viewer.layers["shot sequence"], viewer.layers["shot sequence [1]"]
    assert isinstance(large.data, dask.array.Array)
    assert large.data.chunksize == (1, 40, 48)
    np.testing.assert_array_equal(np.asarray(large.data), small.data)


def test_the_preview_becomes_the_result(qtbot, viewer, fake):
    image = viewer.add_image(PICTURE, name="shot")
    widget = docked(viewer)
    start_and_hold(qtbot, widget, fake)
    preview = viewer.layers["shot (deblurring ...)"]
    assert preview.data.shape == (20, 24)
    assert viewer.layers.selection.active is image
    assert widget.layer_choice.count() == 1
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        fake.go_on()
    assert names(viewer) == ["shot", "shot deblurred", "shot sequence", "shot trajectory"]
    assert viewer.layers["shot deblurred"] is preview is viewer.layers.selection.active
    np.testing.assert_array_equal(preview.data, 255 - PICTURE)
    np.testing.assert_array_equal(preview.data_to_world((39, 47)), image.data_to_world((39, 47)))


def test_a_preview_that_the_user_removes_is_not_missed(qtbot, viewer, fake):
    viewer.add_image(PICTURE, name="shot")
    widget = docked(viewer)
    start_and_hold(qtbot, widget, fake)
    viewer.layers.remove("shot (deblurring ...)")
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        fake.go_on()
    assert names(viewer) == ["shot", "shot deblurred", "shot sequence", "shot trajectory"]
    assert_ready(widget)


def test_it_is_too_late_to_cancel_when_layers_are_added(qtbot, viewer, fake):
    viewer.add_image(PICTURE, name="shot")
    widget = docked(viewer)
    viewer.layers.events.inserted.connect(
        lambda event: widget.cancel() if len(viewer.layers) == 3 else None
    )
    run_to_end(qtbot, widget)
    assert names(viewer) == ["shot", "shot deblurred", "shot sequence", "shot trajectory"]
    assert widget.stage.text().startswith("Done.")
    assert_ready(widget)


def test_at_most_five_previews_a_second():
    times = iter(np.arange(20) * 0.05)
    events = (Progress("estimate", i / 20, "", preview=PICTURE) for i in range(20))
    kept = [
        e for e in work.fewer_previews(events, clock=lambda: next(times)) if e.preview is not None
    ]
    assert 4 <= len(kept) <= 5  # in one second


def test_a_flood_of_events(qtbot, viewer, fake, monkeypatch):
    """napari's bar processes events within each update: slots must not nest without end."""

    def flood(image, options):
        for i in range(3000):
            yield Progress("estimate", i / 3000, str(i))
        return (yield from fake(image, options))

    monkeypatch.setattr(pipeline, "deblur_steps", flood)
    viewer.add_image(PICTURE, name="shot")
    widget = docked(viewer)
    run_to_end(qtbot, widget)
    assert "shot deblurred" in names(viewer)
    assert_ready(widget)


# -------------------------------------------------------------------- cancelling


def test_cancel_adds_nothing_and_ends_the_pipeline(qtbot, viewer, fake):
    viewer.add_image(PICTURE, name="shot")
    widget = docked(viewer)
    start_and_hold(qtbot, widget, fake)
    assert widget.run_button.text() == "Cancel"
    assert not widget.poses.isEnabled()
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        widget.run_button.click()
        assert not widget.run_button.isEnabled()
        fake.go_on()
    assert names(viewer) == ["shot"]
    assert widget.stage.text() == "Cancelled."
    assert_ready(widget)
    # The pipeline is closed, where it ran: PyTorch's modes belong to the thread.
    assert fake.ended.is_set()
    assert len(set(fake.threads)) == 1 and fake.threads[0] != threading.get_ident()
    fake.hold = False
    run_to_end(qtbot, widget)
    assert "shot deblurred" in names(viewer)


@pytest.mark.parametrize("stage", ["estimate", "refine", "restore", "sequence"])
def test_cancel_at_any_stage_ends_with_the_step_that_runs(qtbot, viewer, monkeypatch, stage):
    sharp = np.ascontiguousarray(astronaut()[60:170, 170:290])
    motion = simulate_tremor(sharp.shape, extent=5.0, seed=6, focal_length=1000.0)
    viewer.add_image(np.asarray(blur(sharp, motion, noise=0.004)), name="shot")
    widget = docked(viewer)
    late = []
    deblur_steps, show_event = pipeline.deblur_steps, widget.show_event

    def watched(event):  # in the thread of the work
        if widget._stop.is_set():
            late.append(event)
        return event

    def shown(event):
        show_event(event)
        if event.stage == stage and not widget._stop.is_set():
            widget.run_button.click()

    monkeypatch.setattr(pipeline, "deblur_steps", lambda *a: mapped(deblur_steps(*a), watched))
    monkeypatch.setattr(widget, "show_event", shown)
    with qtbot.waitSignal(widget.done, timeout=6 * TIMEOUT):
        widget.run_button.click()
    assert len(late) <= 1
    assert names(viewer) == ["shot"]
    assert widget.stage.text() == "Cancelled."
    assert_ready(widget)


def test_cancel_from_the_activity_dock(qtbot, viewer, fake):
    from napari._qt.widgets.qt_progress_bar import QtLabeledProgressBar

    viewer.add_image(PICTURE, name="shot")
    widget = docked(viewer)
    start_and_hold(qtbot, widget, fake)
    dialog = viewer.window._qt_window._activity_dialog
    (bar,) = dialog.findChildren(QtLabeledProgressBar)
    assert bar.description_label.text() == "Deblurring shot: "
    assert bar.qt_progress_bar.value() == 9  # a tenth of the share of the pipeline
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        bar.cancel_button.click()
        fake.go_on()
    assert names(viewer) == ["shot"]
    assert_ready(widget)


def test_napari_does_not_draw_its_sign_of_progress_all_the_time(qtbot, viewer, fake):
    viewer.add_image(PICTURE, name="shot")
    widget = docked(viewer)
    start_and_hold(qtbot, widget, fake)
    labels = viewer.window._qt_window.statusBar().findChildren(QLabel)
    (movie,) = [label.movie() for label in labels if label.movie() is not None]
    # Every picture of it draws the whole window anew, and the canvas with it.
    assert movie.state() == QMovie.MovieState.Running
    assert movie.nextFrameDelay() >= 200
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        fake.go_on()


def test_cancel_when_the_work_is_already_done(qtbot, viewer, fake):
    viewer.add_image(PICTURE, name="shot")
    widget = docked(viewer)
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        widget.run_button.click()
        # Its signals wait in the queue: no event has been processed since.
        assert QThreadPool.globalInstance().waitForDone(TIMEOUT)
        widget.cancel()
    assert names(viewer) == ["shot"]
    assert_ready(widget)


def test_closing_the_dock_stops_the_work(qtbot, viewer, fake):
    viewer.add_image(PICTURE, name="shot")
    widget = docked(viewer)
    start_and_hold(qtbot, widget, fake)
    viewer.window.remove_dock_widget(widget)
    del widget
    fake.go_on()
    qtbot.waitUntil(fake.ended.is_set)
    assert not fake.completed
    qtbot.waitUntil(lambda: not progress._all_instances)
    qtbot.waitUntil(lambda: names(viewer) == ["shot"])
    viewer.add_image(PICTURE, name="other")  # the viewer's events find no dead widget


def test_closing_the_viewer_stops_the_work(qtbot, make_napari_viewer, fake):
    viewer = make_napari_viewer()
    viewer.add_image(PICTURE, name="shot")
    widget = docked(viewer)
    start_and_hold(qtbot, widget, fake)
    with qtbot.waitSignal(widget.destroyed, timeout=TIMEOUT):
        viewer.close()
    fake.go_on()
    qtbot.waitUntil(fake.ended.is_set)
    assert not fake.completed
    qtbot.waitUntil(lambda: not progress._all_instances)


# -------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ImageError("The image is constant: there is nothing to see the blur by."), "is constant"),
        (MemoryError(), "choose the CPU"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "choose the CPU",
        ),
        (RuntimeError("size mismatch"), "RuntimeError: size mismatch"),
        (KeyError("lost"), "KeyError: 'lost'"),
        (OSError("libtorch.so: cannot open"), "PyTorch cannot be loaded"),
    ],
)
def test_failures_are_told_and_the_controls_recover(qtbot, viewer, fake, error, sentence):
    viewer.add_image(PICTURE, name="shot")
    widget = docked(viewer)
    fake.error = error
    before = len(notification_manager.records)
    run_to_end(qtbot, widget)
    *_, told = notification_manager.records[before:]
    assert sentence in told.message
    assert told.severity.value == "error"
    assert widget.stage.text() == told.message
    assert names(viewer) == ["shot"]
    assert_ready(widget)
    fake.error = None
    run_to_end(qtbot, widget)
    assert "shot deblurred" in names(viewer)


def test_a_full_device_hands_over_to_smaller_tiles_and_the_cpu(qtbot, viewer, monkeypatch, fake):
    import torch

    tried: list[tuple[str, int | None]] = []

    def full(image, options):
        tried.append((options.device, options.tile))
        if options.device != "cpu":
            yield Progress("estimate", 0.1, "on the device")
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return (yield from fake(image, options))

    monkeypatch.setattr(pipeline, "deblur_steps", full)
    monkeypatch.setattr(
        memory, "resolve", lambda name: torch.device("cpu" if name == "cpu" else "cuda")
    )
    viewer.add_image(PICTURE, name="shot")
    widget = docked(viewer)
    before = len(notification_manager.records)
    run_to_end(qtbot, widget)
    assert tried == [("auto", None), ("auto", memory.SMALL_TILE), ("cpu", memory.SMALL_TILE)]
    told = notification_manager.records[before:]
    assert [record.severity.value for record in told] == ["warning", "warning"]
    assert "in smaller tiles" in told[0].message and "on the CPU" in told[1].message
    parameters = viewer.layers["shot deblurred"].metadata["blur2seq"]["parameters"]
    assert (parameters["device"], parameters["tile"]) == ("cpu", memory.SMALL_TILE)
    assert_ready(widget)


def test_memory_of_a_device_runs_out():
    class OutOfMemoryError(RuntimeError):
        """Named as PyTorch's."""

    try:
        raise work.WorkError("x") from OutOfMemoryError("CUDA: 2 GiB")
    except work.WorkError as error:
        assert "not enough memory" in work.explain(error)


def test_what_cannot_be_deblurred_is_told_at_once(qtbot, viewer, fake):
    viewer.add_image(np.zeros((4, 40, 48), np.uint8), name="stack")
    widget = docked(viewer)
    viewer.dims.ndisplay = 3
    before = len(notification_manager.records)
    widget.run_button.click()
    assert "2D display" in notification_manager.records[before].message
    assert not fake.calls
    assert_ready(widget)


# -------------------------------------------------------------------- layers and viewers


def test_the_layer_is_renamed_and_removed_while_the_work_runs(qtbot, viewer, fake):
    layer = viewer.add_image(PICTURE, name="shot", translate=(3, 4))
    widget = docked(viewer)
    start_and_hold(qtbot, widget, fake)
    layer.name = "renamed"
    viewer.layers.remove(layer)
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        fake.go_on()
    assert names(viewer) == ["shot deblurred", "shot sequence", "shot trajectory"]
    np.testing.assert_array_equal(viewer.layers[0].translate, (3, 4))


def test_two_viewers_work_independently(qtbot, make_napari_viewer, fake):
    viewers = [make_napari_viewer(), make_napari_viewer()]
    for i, viewer in enumerate(viewers):
        viewer.add_image(PICTURE, name=f"shot {i}")
    first, second = (docked(viewer) for viewer in viewers)
    fake.hold = True
    for widget in (first, second):
        widget.run_button.click()
        qtbot.waitUntil(lambda widget=widget: "coarse" in widget.stage.text())
    with qtbot.waitSignals([first.done, second.done], timeout=TIMEOUT):
        first.run_button.click()
        fake.go_on()
    assert names(viewers[0]) == ["shot 0"]
    assert names(viewers[1]) == [
        "shot 1",
        "shot 1 deblurred",
        "shot 1 sequence",
        "shot 1 trajectory",
    ]
    assert_ready(first)
    assert_ready(second)


def test_only_image_layers_are_offered(qtbot, viewer):
    widget = docked(viewer)

    def offered() -> list[str]:
        return [widget.layer_choice.itemText(i) for i in range(widget.layer_choice.count())]

    assert offered() == []
    assert not widget.run_button.isEnabled()
    viewer.add_labels(np.zeros((40, 48), int))
    assert not widget.run_button.isEnabled()
    a = viewer.add_image(PICTURE, name="a")
    b = viewer.add_image(PICTURE, name="b")
    assert offered() == ["a", "b"]
    assert widget.layer is a  # the choice stays when layers come
    widget.layer = b
    b.name = "c"
    assert offered() == ["a", "c"]
    assert widget.layer is b
    viewer.layers.remove(b)
    assert widget.layer is a
    viewer.layers.clear()
    assert widget.layer is None
    assert not widget.run_button.isEnabled()


# -------------------------------------------------------------------- region, view, microscope


def test_a_rectangle_limits_where_the_motion_is_looked_for(qtbot, viewer, fake):
    viewer.add_image(np.tile(PICTURE, (3, 3)), name="shot", scale=(0.5, 0.5), translate=(10, 20))
    widget = docked(viewer)
    shapes = viewer.add_shapes(name="region")
    widget.region.layer = shapes
    before = len(notification_manager.records)
    widget.run_button.click()
    assert "holds no shape" in notification_manager.records[before].message
    # World coordinates: rows 20 to 80, columns 30 to 144 (beyond the edge) of the picture.
    shapes.add_rectangles(np.array([[20, 35], [20, 200], [50, 200], [50, 35]], float))
    run_to_end(qtbot, widget)
    assert fake.calls[-1][1].region == (20, 30, 81, 144)
    shapes.data = [np.array([[20, 35], [20, 36], [21, 36], [21, 35]], float)]
    widget.run_button.click()
    assert "at least 32 px" in widget.stage.text()
    viewer.layers.remove(shapes)
    run_to_end(qtbot, widget)
    assert fake.calls[-1][1].region is None


def test_the_view_is_previewed_at_its_place(qtbot, viewer, monkeypatch):
    from napari_blur2seq._qt import deblur_widget

    asked: list[tuple[np.ndarray, float]] = []

    def quick(pixels, magnification, options, whole):
        asked.append((pixels, magnification))
        np.testing.assert_array_equal(whole, large)  # whose range of values counts
        yield Progress("estimate", 0.5, "quick")
        return 255 - pixels[::2, ::2]

    monkeypatch.setattr(deblur_widget, "preview_steps", quick)
    large = np.tile(PICTURE, (4, 4))
    image = viewer.add_image(large, name="shot", scale=(0.5, 0.5))
    widget = docked(viewer)
    viewer.reset_view()
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        widget.view_button.click()
    pixels, magnification = asked[0]
    assert magnification > 0
    preview = viewer.layers["shot preview"]
    assert preview.data.shape == tuple((side + 1) // 2 for side in pixels.shape)
    # Where the preview lies, the picture has the pixels it was made of.
    corner = image.world_to_data(preview.data_to_world((-0.5, -0.5)))
    top, left = np.rint(np.asarray(corner) + 0.5).astype(int)
    height, width = pixels.shape
    np.testing.assert_array_equal(pixels, large[top : top + height, left : left + width])
    assert widget.layer_choice.count() == 1  # the preview is not offered
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        widget.view_button.click()
    assert names(viewer) == ["shot", "shot preview"]
    assert_ready(widget)


def test_a_microscope_speaks_of_shifts_with_units(qtbot, viewer, fake):
    viewer.add_image(PICTURE, name="cells", scale=(0.5, 0.5), units=("um", "um"))
    widget = docked(viewer)
    widget.light.setCurrentIndex(1)
    widget.camera_choice.setCurrentIndex(3)
    rows = widget.form.rows
    assert not rows.isRowVisible(widget.focal_length) and not rows.isRowVisible(widget.light)
    assert rows.labelForField(widget.poses).text() == "Time steps"
    options = widget.options((40, 48))
    assert options.focal_length == 8 * 48 and not options.linear
    assert options.noise_model == "poisson"
    run_to_end(qtbot, widget)
    assert fake.calls[-1][1].focal_length == 8 * 48
    widget.camera_choice.setCurrentIndex(0)
    assert rows.isRowVisible(widget.light)


def test_preferences_are_what_a_dock_opens_with(viewer, monkeypatch):
    chosen = preferences.Preferences(device="cuda", poses=31, taken_with="microscope")
    monkeypatch.setattr(preferences, "read", lambda: chosen)
    widget = docked(viewer)
    widget.poses.setValue(31)
    assert widget.camera_choice.currentIndex() == 3
    assert widget.device.name == "cuda"
    assert "torch" not in sys.modules or widget.device.count() >= 2


# -------------------------------------------------------------------- controls


def test_options_are_what_the_controls_say(qtbot, viewer):
    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    assert widget.options((40, 48)) == pipeline.Options(refine=widget.refine.isChecked())
    assert not widget.focal_length.isEnabled()
    widget.camera_choice.setCurrentIndex(1)
    widget.focal_length.setValue(640)
    widget.noise.setValue(1.5)
    widget.light.setCurrentIndex(1)
    widget.poses.setValue(40)
    options = widget.options((40, 48))
    assert options.focal_length == 640
    assert options.noise == pytest.approx(0.015)
    assert options.linear
    assert options.n_poses == 40
    widget.camera_choice.setCurrentIndex(2)
    widget.focal_length.setValue(28)
    assert widget.options((40, 48)).focal_length == pytest.approx(
        Camera.from_film_equivalent((40, 48), 28).focal_length
    )


def test_only_devices_that_exist_are_offered(qtbot, viewer):
    from napari_blur2seq.devices import available

    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    widget.show()
    widget.device.showPopup()
    widget.device.hidePopup()
    offered = [widget.device.itemText(i) for i in range(widget.device.count())]
    assert offered == ["automatic", *available()]
    widget.device.setCurrentIndex(1)
    assert widget.options((40, 48)).device == "cpu"


def test_refinement_is_on_and_can_be_left_out(qtbot, viewer):
    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    assert widget.options((40, 48)).refine
    widget.refine.setChecked(False)
    assert not widget.options((40, 48)).refine


def test_a_small_screen_is_enough_and_everything_is_explained(qtbot, viewer):
    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    assert widget.sizeHint().height() < 700
    assert widget.minimumSizeHint().width() < 320
    for name, control in vars(widget).items():
        if name[0] != "_" and name != "form" and hasattr(control, "toolTip"):
            assert control.toolTip(), name


def test_opening_the_widget_imports_neither_torch_nor_pyqtgraph():
    code = """
import sys
import napari
viewer = napari.Viewer(show=False)
before = set(sys.modules)
from napari_blur2seq._qt.deblur_widget import DeblurWidget
viewer.window.add_dock_widget(DeblurWidget(viewer))
new = set(sys.modules) - before
print([m for m in ("torch", "pyqtgraph", "skimage", "matplotlib", "scipy.signal") if m in new])
viewer.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_manifest_opens_the_widget_from_both_menus(qtbot, make_napari_viewer, npe2pm):
    from app_model.types import SubmenuItem
    from napari._app_model import get_app_model
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(str(files("napari_blur2seq") / "napari.yaml"))
    manifest.validate_imports()
    npe2pm.register(manifest)
    viewer = make_napari_viewer()
    viewer.add_image(PICTURE)
    _, widget = viewer.window.add_plugin_dock_widget("napari-blur2seq")
    assert isinstance(widget, DeblurWidget)
    assert widget._viewer is not None
    assert widget.layer is viewer.layers[0]
    menus = get_app_model().menus
    submenus = {
        item.submenu: item.title
        for item in menus.get_menu("napari/layers/filter")
        if isinstance(item, SubmenuItem)
    }
    assert submenus["napari-blur2seq.deblurring"] == "Deblurring"
    for menu in ("napari-blur2seq.deblurring", "napari/plugins/napari-blur2seq"):
        titles = [getattr(item, "command", item).title for item in menus.get_menu(menu)]
        assert any("Deblur" in title for title in titles), (menu, titles)


# -------------------------------------------------------------------- for real


@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
def test_the_widget_gives_what_the_library_gives(qtbot, viewer, colour):
    from skimage import data

    sharp = data.coffee()[40:120, 180:260]
    if not colour:
        sharp = sharp[..., 1]
    path = np.linspace(-1, 1, 25)[:, None] * [0.02, 0.03, 0.0]
    truth = Trajectory(path, 80.0, (40.0, 40.0), (80, 80))
    blurry = pipeline.blur(sharp, truth, noise=0.002)
    viewer.add_image(blurry, name="shot")
    widget = docked(viewer)
    widget.poses.setValue(7)
    with qtbot.waitSignal(widget.done, timeout=300_000):
        widget.run_button.click()
    expected = pipeline.deblur(blurry, n_poses=7, refine=widget.refine.isChecked())
    shown = viewer.layers["shot deblurred"].data
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown, expected.sharp)
    np.testing.assert_array_equal(viewer.layers["shot sequence"].data, expected.sequence)
    tracks = viewer.layers["shot trajectory"]
    assert tracks.metadata["blur2seq"]["trajectory_csv"] == expected.trajectory.to_csv()
    assert tracks.metadata["blur2seq"]["version"] == expected.metadata["version"]


def test_a_picture_that_nothing_makes_better_is_said_to_be_left_alone(qtbot, viewer, monkeypatch):
    from skimage import data

    from napari_blur2seq.estimate import hypotheses

    monkeypatch.setattr(hypotheses, "LEAST_GAIN", float("inf"))
    sharp = data.coffee()[40:104, 180:244, 1]
    viewer.add_image(sharp, name="shot")
    widget = docked(viewer)
    with qtbot.waitSignal(widget.done, timeout=300_000):
        widget.run_button.click()
    assert widget.stage.text().startswith("No motion was found")
    np.testing.assert_array_equal(viewer.layers["shot deblurred"].data, sharp)


# ---------------------------------------------------------------------- model


@pytest.fixture
def preference_page(plugin_settings, npe2pm):
    """Our page of napari's preferences, in a folder of the test."""
    manifest = PluginManifest.from_file(str(files("napari_blur2seq") / "napari.yaml"))
    with npe2pm.tmp_plugin(manifest=manifest):
        yield


def test_the_authors_model_is_chosen_with_its_files(viewer, preference_page):
    viewer.add_image(PICTURE)
    widget = docked(viewer)
    assert widget.options((40, 48)).model == "built-in"
    assert widget.model.trajectory_file.isHidden()
    widget.model.choice.setCurrentIndex(1)
    assert not widget.model.trajectory_file.isHidden()
    with pytest.raises(OptionError, match="needs its weights"):
        widget.options((40, 48))
    widget.model.trajectory_file.name.setText("a.pkl")
    widget.model.restoration_file.name.setText("b.pkl")
    options = widget.options((40, 48))
    assert not options.refine  # the paper's own result, unless
    widget.refine.setChecked(True)
    assert widget.options((40, 48)).refine
    assert (options.model, options.weights) == ("official", ("a.pkl", "b.pkl"))
    again = DeblurWidget(viewer)  # remembered in the preferences
    assert again.model.options() == widget.model.options()


def test_the_estimator_that_is_chosen_reaches_the_pipeline(qtbot, viewer, preference_page, fake):
    viewer.add_image(PICTURE)
    widget = docked(viewer)
    assert widget.estimator.file.isHidden()
    choice = widget.estimator.choice
    offered = [choice.itemData(i) for i in range(choice.count())]
    assert offered[:2] == ["auto", "kernels"] and offered[-1] == "file"
    assert ("network" in offered) == registry.available("trajectory")
    choice.setCurrentIndex(1)
    run_to_end(qtbot, widget)
    choice.setCurrentIndex(choice.count() - 1)
    assert not widget.estimator.file.isHidden()
    calls = len(fake.calls)
    widget.run_button.click()
    assert len(fake.calls) == calls and "needs a file of weights" in widget.stage.text()
    widget.estimator.file.name.setText("mine.safetensors")
    run_to_end(qtbot, widget)
    assert [options.estimator for _, options in fake.calls] == ["kernels", "mine.safetensors"]
    again = DeblurWidget(viewer)  # remembered in the preferences
    assert again.options((40, 48)).estimator == "mine.safetensors"
    widget.model.choice.setCurrentIndex(1)  # which estimates itself
    assert not widget.form.rows.isRowVisible(widget.estimator)
    assert again.estimator.focusProxy() is again.estimator.choice


def test_files_are_chosen_in_a_dialog(viewer, preference_page, monkeypatch):
    choice = docked(viewer).model
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: ("/tmp/r.pkl", ""))
    choice.restoration_file.browse.click()
    assert choice.restoration_file.name.text() == "/tmp/r.pkl"
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: ("", ""))
    choice.restoration_file.browse.click()  # the dialog was cancelled
    assert choice.restoration_file.name.text() == "/tmp/r.pkl"


def test_files_of_other_networks_are_refused_in_the_viewer(
    qtbot, viewer, preference_page, tmp_path
):
    import torch  # noqa: F401  (takes its time when first imported)

    (tmp_path / "other.pkl").write_bytes(b"no checkpoint")
    viewer.add_image(PICTURE)
    widget = docked(viewer)
    widget.model.choice.setCurrentIndex(1)
    for field in (widget.model.trajectory_file, widget.model.restoration_file):
        field.name.setText(str(tmp_path / "other.pkl"))
    run_to_end(qtbot, widget)
    assert "not a file of PyTorch weights" in widget.stage.text()
    assert len(viewer.layers) == 1
    assert_ready(widget)


# ---------------------------------------------------------------------- event loop


def test_garbage_collection_passes_over_what_was_there_before(qtbot, viewer, fake):
    import gc

    before = gc.get_freeze_count()
    viewer.add_image(PICTURE, name="shot")
    widget = docked(viewer)
    start_and_hold(qtbot, widget, fake)
    assert gc.get_freeze_count() > before + 50_000
    with qtbot.waitSignal(widget.done, timeout=TIMEOUT):
        widget.run_button.click()
        fake.go_on()
    assert gc.get_freeze_count() == 0
    fake.gate.clear()
    fake.at_gate.clear()
    start_and_hold(qtbot, widget, fake)
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    del widget
    fake.go_on()
    qtbot.waitUntil(lambda: gc.get_freeze_count() == 0)
