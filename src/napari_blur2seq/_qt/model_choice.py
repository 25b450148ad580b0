"""Which model deblurs, the built-in one or the authors' networks, and which estimates motion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ..errors import OptionError
from ..layers import plugin_settings
from ..models import registry
from .parts import Choice

_MODELS = (("built-in", "built-in"), ("authors' checkpoints", "official"))
_CHECKPOINTS = "PyTorch checkpoints (*.pkl *.pth *.pt *.ckpt);;All files (*)"
_WEIGHTS = "Weights (*.safetensors)"


class _FileChoice(QWidget):
    """A choice of which one entry needs files; their fields are shown with it.

    It is kept in napari's preferences (from napari 0.9 on).

    Parameters
    ----------
    key : str
        Of the choice in the preferences.
    entries : sequence of tuple
        Text and name of each.
    with_files : str
        Name of the entry that needs files.
    files : dict
        Fields of the files by their keys in the preferences.
    tip : str
    """

    def __init__(
        self,
        key: str,
        entries: Sequence[tuple[str, str]],
        with_files: str,
        files: dict[str, _FileField],
        tip: str,
    ) -> None:
        super().__init__()
        self._key, self._with_files, self._files = key, with_files, files
        self.setToolTip(tip)
        self.choice = Choice()
        for text, name in entries:
            self.choice.addItem(text, name)
        self.choice.setToolTip(tip)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        # Reached by the key of its label.
        self.setFocusProxy(self.choice)
        for widget in (self.choice, *files.values()):
            layout.addWidget(widget)
        self._recall()
        self._show_files()
        self.choice.currentIndexChanged.connect(self._show_files)
        self.choice.currentIndexChanged.connect(self._remember)
        for field in files.values():
            field.name.textChanged.connect(self._remember)

    @property
    def needs_files(self) -> bool:
        """Whether the entry with files is chosen."""
        return bool(self.choice.currentData() == self._with_files)

    def names(self) -> tuple[str, ...]:
        """Of the files."""
        return tuple(field.name.text().strip() for field in self._files.values())

    def _show_files(self) -> None:
        for field in self._files.values():
            field.setVisible(self.needs_files)

    def _recall(self) -> None:
        preferences = _preferences()
        if preferences is not None:
            # What was kept may not be offered here.
            chosen = self.choice.findData(getattr(preferences, self._key))
            self.choice.setCurrentIndex(max(chosen, 0))
            for key, field in self._files.items():
                field.name.setText(getattr(preferences, key))

    def _remember(self) -> None:
        preferences = _preferences()
        if preferences is not None:
            setattr(preferences, self._key, self.choice.currentData())
            for key, field in self._files.items():
                setattr(preferences, key, field.name.text())


class ModelChoice(_FileChoice):
    """The built-in model, or the authors' networks."""

    def __init__(self) -> None:
        self.trajectory_file, self.restoration_file = (
            _FileField(f"{what} network", "authors' checkpoint", _CHECKPOINTS)
            for what in ("Trajectory", "Restoration")
        )
        super().__init__(
            "model",
            _MODELS,
            "official",
            {
                "trajectory_weights": self.trajectory_file,
                "restoration_weights": self.restoration_file,
            },
            "The built-in model needs nothing. For the networks of Blur2seq's authors, give the "
            "two checkpoint files that they publish.",
        )

    @property
    def official(self) -> bool:
        """Whether the authors' networks are chosen."""
        return self.needs_files

    def options(self) -> dict[str, Any]:
        """`model` and `weights` as `pipeline.Options` takes them."""
        if not self.official:
            return {"model": "built-in", "weights": None}
        return {"model": "official", "weights": self.names() if all(self.names()) else None}


class EstimatorChoice(_FileChoice):
    """Where the built-in model's trajectories come from."""

    def __init__(self) -> None:
        self.file = _FileField("Trajectory network", "weights that training wrote", _WEIGHTS)
        entries = [("automatic", "auto"), ("blur kernels", "kernels")]
        if registry.available("trajectory"):
            entries.append(("network", "network"))
        super().__init__(
            "estimator",
            [*entries, ("network file", "file")],
            "file",
            {"estimator_weights": self.file},
            "Where trajectories come from: from blur kernels, or from a network that looks at the "
            "picture, whose weights you trained and give as a file. Automatic takes what is at "
            "hand, and the best of it.",
        )

    def options(self) -> dict[str, Any]:
        """`estimator` as `pipeline.Options` takes it.

        Raises
        ------
        OptionError
            If a file is needed and none is given.
        """
        if not self.needs_files:
            return {"estimator": self.choice.currentData()}
        (name,) = self.names()
        if not name:
            raise OptionError(
                "The estimator needs a file of weights; give the one that training wrote, or "
                "choose another estimator."
            )
        return {"estimator": name}


class _FileField(QWidget):
    """Name of a file, typed or chosen.

    Parameters
    ----------
    what : str
        The file is of.
    kind : str
        Of file.
    filters : str
        Of the dialog.
    """

    def __init__(self, what: str, kind: str, filters: str) -> None:
        super().__init__()
        self._what, self._filters = what, filters
        self.name = QLineEdit()
        self.name.setPlaceholderText(what)
        self.name.setToolTip(f"The {kind} of the {what.lower()}.")
        self.browse = QToolButton()
        self.browse.setText("...")
        self.browse.setToolTip(f"Choose the file of the {what.lower()}.")
        self.browse.clicked.connect(self._browse)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.name, 1)
        layout.addWidget(self.browse)

    def _browse(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, self._what, self.name.text(), self._filters)
        if name:
            self.name.setText(name)


def _preferences() -> Any:
    """Where the choices are kept in napari's preferences; None where there are none."""
    return getattr(plugin_settings(), "model", None)
