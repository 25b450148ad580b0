"""Sharp image, camera trajectory and frame sequence from one picture blurred by camera shake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import metrics, shake
    from .camera import Camera
    from .errors import Blur2SeqError, CameraError, ImageError, OptionError, TrajectoryError
    from .pipeline import Result, blur, deblur, refine, restore
    from .progress import Climbed, Progress
    from .trajectory import Trajectory

_NAMES = {
    "Blur2SeqError": "errors",
    "Camera": "camera",
    "CameraError": "errors",
    "Climbed": "progress",
    "ImageError": "errors",
    "OptionError": "errors",
    "Progress": "progress",
    "Result": "pipeline",
    "Trajectory": "trajectory",
    "TrajectoryError": "errors",
    "blur": "pipeline",
    "deblur": "pipeline",
    "metrics": "",
    "refine": "pipeline",
    "restore": "pipeline",
    "shake": "",
}

__all__ = [
    "Blur2SeqError",
    "Camera",
    "CameraError",
    "Climbed",
    "ImageError",
    "OptionError",
    "Progress",
    "Result",
    "Trajectory",
    "TrajectoryError",
    "__version__",
    "blur",
    "deblur",
    "metrics",
    "refine",
    "restore",
    "shake",
]


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: `import napari_blur2seq` stays light."""
    from importlib import import_module

    if name == "__version__":
        from importlib.metadata import version

        return version("napari-blur2seq")
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _NAMES[name]
    if not module:
        return import_module(f".{name}", __name__)
    return getattr(import_module(f".{module}", __name__), name)


def __dir__() -> list[str]:
    return __all__
