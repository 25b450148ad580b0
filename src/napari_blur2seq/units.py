"""Units of napari's layers, as they are spelled there, in micrometres and seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_MICROMETRES = {
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "micron": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}
_SECONDS = {"second": 1.0, "millisecond": 1e-3, "microsecond": 1e-6, "minute": 60.0}


def micrometres(unit: Any) -> float | None:
    """Micrometres in one of this unit of length, None for any other unit."""
    return _MICROMETRES.get(str(unit))


def seconds(unit: Any) -> float | None:
    """Seconds in one of this unit of time, None for any other unit."""
    return _SECONDS.get(str(unit))


def pixel_size(scale: Sequence[float], units: Iterable[Any]) -> float | None:
    """Micrometres per px, from scale and units of a layer's last two axes.

    None where they are not lengths; the geometric mean where pixels are not square.
    """
    sizes = [micrometres(unit) for unit in tuple(units)[-2:]]
    if len(sizes) < 2 or sizes[0] is None or sizes[1] is None:
        return None
    return float(abs(scale[-1] * sizes[1] * scale[-2] * sizes[0]) ** 0.5)
