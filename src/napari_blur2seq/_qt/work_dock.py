"""A dock with one button: it starts work in a thread beside the viewer, then cancels it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_warning
from qtpy.QtCore import QEvent, QTimer, Signal
from qtpy.QtWidgets import QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget
from superqt.utils import create_worker

from ..errors import Blur2SeqError
from ..progress import Notice, Progress, Steps
from .parts import ActivityBar, Form
from .work import SettledObjects, WorkError, explain, stoppable

if TYPE_CHECKING:
    from napari.viewer import Viewer

_log = logging.getLogger(__name__)
# For the viewer to draw and to answer between two layers.
_PAUSE_MS = 20


class WorkDock(QWidget):
    """Controls, a button that runs and cancels, a bar, and a line on how it goes.

    A subclass fills `form` and `buttons`, and implements `run`, which calls `start`.

    Parameters
    ----------
    viewer : napari.Viewer
        Gets the results.
    action : str
        Text of the button.
    ready : str
        What the line says at first.
    parent : QWidget, optional

    Attributes
    ----------
    done : Signal
        The work has ended, in whatever way, and the controls are ready again.
    """

    done = Signal()

    def __init__(
        self, viewer: Viewer, action: str, ready: str, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._action = action
        self._worker: Any = None
        self._stop = threading.Event()
        self._go = threading.Event()
        self._bar: ActivityBar | None = None
        self._end: Callable[[], None] | None = None
        self._taking: Iterator[str] | None = None
        self._settled: SettledObjects | None = None
        self._first = False
        self._percent = 0
        self._moving_bar = False
        self.form = Form()
        self.run_button = QPushButton(action)
        self.run_button.clicked.connect(self._run_or_cancel)
        self.progress_bar = QProgressBar()
        self.progress_bar.setRange(0, 100)
        self.progress_bar.setToolTip("Share of the work done.")
        policy = self.progress_bar.sizePolicy()
        policy.setRetainSizeWhenHidden(True)  # the text below stays where it is
        self.progress_bar.setSizePolicy(policy)
        self.progress_bar.hide()
        self.stage = QLabel(ready)
        self.stage.setWordWrap(True)
        self.stage.setToolTip("What is being done, or how it ended.")
        layout = QVBoxLayout(self)
        self.buttons = QVBoxLayout()
        self.buttons.addWidget(self.run_button)
        layout.addWidget(self.form)
        layout.addLayout(self.buttons)
        layout.addWidget(self.progress_bar)
        layout.addWidget(self.stage)
        layout.addStretch(1)

    # ------------------------------------------------------------------ for subclasses

    def run(self) -> None:
        """Start the work with what the controls say."""
        raise NotImplementedError

    def why_not(self) -> str:
        """What must be done before the button can be pressed; empty when it can."""
        return ""

    def explain_action(self) -> str:
        """What the button does."""
        return ""

    def show_event(self, event: Progress) -> None:
        """An event of the work came."""
        self.stage.setText(event.message)

    def take_result(self, result: Any) -> Iterator[str]:
        """The work has ended well; what it returned. Yields lines to show.

        After each, the viewer has time to draw.
        """
        raise NotImplementedError

    def cleared(self) -> None:
        """The work has ended, in whatever way, and nothing follows."""

    # ------------------------------------------------------------------ work

    @property
    def working(self) -> bool:
        """Whether work is under way."""
        return self._worker is not None

    def update_button(self) -> None:
        """Let the button say what it can do now."""
        if not self.working:
            reason = self.why_not()
            self.run_button.setText(self._action)
            self.run_button.setEnabled(not reason)
            self.run_button.setToolTip(reason or self.explain_action())

    def _run_or_cancel(self) -> None:
        if self.working:
            self.cancel()
        else:
            self.run()

    def refuse(self, error: Blur2SeqError) -> None:
        """Say why the work cannot start."""
        self.stage.setText(str(error))
        show_error(str(error))

    def start(self, title: str, steps: Callable[[], Steps[Any]]) -> None:
        """Run a generator of progress in a thread; `title` names it in napari's activity dock."""
        self._stop = threading.Event()
        self._go.set()
        self._worker = worker = create_worker(
            stoppable, steps, self._stop, self._go, _start_thread=False, _ignore_errors=True
        )
        worker.yielded.connect(self._on_progress)
        worker.returned.connect(self._on_returned)
        worker.errored.connect(self._on_error)
        worker.finished.connect(self._on_finished)
        self.form.setEnabled(False)
        self.run_button.setText("Cancel")
        self.run_button.setToolTip("Stop the work; no layer is added.")
        self.update_button()
        self.run_button.setEnabled(True)
        self.stage.setText("Starting ...")
        self._first = True
        self._percent = 0
        self.progress_bar.setValue(0)
        self.progress_bar.show()
        self._bar = bar = ActivityBar(title, self.cancel)
        # Closing the dock or the viewer deletes this widget, and with it the slots that
        # would end the work.
        self._settled = settled = SettledObjects()
        self._end = partial(_end_work, self._stop, bar, settled)
        self.destroyed.connect(self._end)
        worker.start()

    def cancel(self) -> None:
        """Stop the work after the current step; too late when its result is being shown."""
        if self.working and self._taking is None:
            self._stop.set()
            self.run_button.setEnabled(False)
            self.run_button.setText("Cancelling ...")
            self.stage.setText("Cancelling after the current step ...")

    @property
    def held(self) -> bool:
        """Whether the work waits; set it to let it wait after the current step, or go on."""
        return self.working and not self._go.is_set()

    @held.setter
    def held(self, held: bool) -> None:
        if held:
            self._go.clear()
        else:
            self._go.set()

    def _on_progress(self, event: Progress) -> None:
        if not self.working or self._stop.is_set():
            return
        if self._first and self._settled is not None:
            self._first = False
            self._settled.renew()
        self._percent = round(100 * event.fraction)
        self.progress_bar.setValue(self._percent)
        self.show_event(event)
        if isinstance(event, Notice):
            show_warning(event.message)
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

    def _on_returned(self, result: Any) -> None:
        # It may have been cancelled after the work was done.
        if result is not None and not self._stop.is_set():
            self._taking = self.take_result(result)

    def _on_error(self, error: Exception) -> None:
        cause = error.__cause__ if isinstance(error, WorkError) else error
        if not isinstance(cause, Blur2SeqError):
            _log.error("%s failed", self._action, exc_info=cause)
        sentence = explain(error)
        self.stage.setText(sentence)
        show_error(sentence)

    def _on_finished(self) -> None:
        """Take the result, one step at a time."""
        try:
            line = next(self._taking or iter(()), None)
        except BaseException:
            self._finish()
            raise
        if line is None:
            self._finish()
        else:
            self.run_button.setEnabled(False)
            self.stage.setText(line)
            QTimer.singleShot(_PAUSE_MS, self._on_finished)

    def _finish(self) -> None:
        self._taking = None
        if self._end is not None:
            self.destroyed.disconnect(self._end)
        bar, self._bar = self._bar, None
        self._worker = self._end = None
        self.cleared()
        self.form.setEnabled(True)
        if self._stop.is_set():
            self.stage.setText("Cancelled.")
        self.progress_bar.hide()
        self.update_button()
        if bar is not None:
            bar.close()
        if self._settled is not None:
            self._settled.release()
        self.done.emit()

    def event(self, event: QEvent | None) -> bool:
        """Stop the work when the dock is closed: napari takes the widget out of it."""
        closed = event is not None and event.type() == QEvent.Type.ParentChange
        if closed and self.parent() is None:
            self.cancel()
        return bool(super().event(event))


def _end_work(stop: threading.Event, bar: ActivityBar, settled: SettledObjects, *_: object) -> None:
    stop.set()
    bar.close()
    settled.release()
