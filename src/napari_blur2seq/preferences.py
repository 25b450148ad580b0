"""What the user set on the plugin's page of napari's preferences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preferences:
    """The preferences of the plugin; the defaults are those of the manifest.

    Attributes
    ----------
    device : str
        As for `devices.resolve`.
    poses : int
        Of the trajectory when a dock opens.
    taken_with : str
        ``"camera"`` or ``"microscope"``.
    sequence_memory : int
        MiB up to which the frames of a result are kept in memory.
    frames_per_second : float
        Of videos.
    """

    device: str = "auto"
    poses: int = 25
    taken_with: str = "camera"
    sequence_memory: int = 256
    frames_per_second: float = 10.0


def read() -> Preferences:
    """The preferences as they are now; the defaults outside napari and before napari 0.9."""
    from .layers import plugin_settings

    settings = plugin_settings()
    defaults = Preferences()

    def value(group: str, name: str) -> Any:
        return getattr(getattr(settings, group, None), name, getattr(defaults, name))

    return Preferences(
        device=str(value("deblur", "device")),
        poses=int(value("deblur", "poses")),
        taken_with=str(value("deblur", "taken_with")),
        sequence_memory=int(value("deblur", "sequence_memory")),
        frames_per_second=float(value("export", "frames_per_second")),
    )
