"""Which model deblurs: the built-in one, or the authors' networks from two files."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ..layers import plugin_settings
from .parts import Choice

_MODELS = (("built-in", "built-in"), ("authors' checkpoints", "official"))
_FILTER = "PyTorch checkpoints (*.pkl *.pth *.pt *.ckpt);;All files (*)"


class ModelChoice(QWidget):
    """A choice of model; the files' fields are shown where the model needs them.

    The choice is kept in napari's preferences (from napari 0.9 on).
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setToolTip(
            "The built-in model needs nothing. For the networks of Blur2seq's authors, give the "
            "two checkpoint files that they publish."
        )
        self.choice = Choice()
        for text, name in _MODELS:
            self.choice.addItem(text, name)
        self.choice.setToolTip(self.toolTip())
        self.trajectory_file = _FileField("Trajectory network")
        self.restoration_file = _FileField("Restoration network")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.choice, self.trajectory_file, self.restoration_file):
            layout.addWidget(widget)
        self._fields = {
            "trajectory_weights": self.trajectory_file.name,
            "restoration_weights": self.restoration_file.name,
        }
        self._recall()
        self._show_fields()
        self.choice.currentIndexChanged.connect(self._show_fields)
        self.choice.currentIndexChanged.connect(self._remember)
        for field in self._fields.values():
            field.textChanged.connect(self._remember)

    def options(self) -> dict[str, Any]:
        """`model` and `weights` as `pipeline.Options` takes them."""
        files = tuple(field.text().strip() for field in self._fields.values())
        if not self.official:
            return {"model": "built-in", "weights": None}
        return {"model": "official", "weights": files if all(files) else None}

    @property
    def official(self) -> bool:
        """Whether the authors' networks are chosen."""
        return bool(self.choice.currentData() == "official")

    def _show_fields(self) -> None:
        for widget in (self.trajectory_file, self.restoration_file):
            widget.setVisible(self.official)

    def _recall(self) -> None:
        preferences = _preferences()
        if preferences is not None:
            self.choice.setCurrentIndex(self.choice.findData(preferences.model))
            for key, field in self._fields.items():
                field.setText(getattr(preferences, key))

    def _remember(self) -> None:
        preferences = _preferences()
        if preferences is not None:
            preferences.model = self.choice.currentData()
            for key, field in self._fields.items():
                setattr(preferences, key, field.text())


class _FileField(QWidget):
    """Name of a file, typed or chosen."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what
        self.name = QLineEdit()
        self.name.setPlaceholderText(what)
        self.name.setToolTip(f"The authors' checkpoint of the {what.lower()}.")
        self.browse = QToolButton()
        self.browse.setText("...")
        self.browse.setToolTip(f"Choose the file of the {what.lower()}.")
        self.browse.clicked.connect(self._browse)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.name, 1)
        layout.addWidget(self.browse)

    def _browse(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, self._what, self.name.text(), _FILTER)
        if name:
            self.name.setText(name)


def _preferences() -> Any:
    """This choice's page of napari's preferences; None where there is none."""
    return getattr(plugin_settings(), "model", None)
