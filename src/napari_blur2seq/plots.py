"""Figures as bytes: trajectories, and pictures side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .readout import Unit, axis_bands, axis_curves, axis_names, clock
from .trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def trajectory_plot(trajectory: Trajectory, image: NDArray[Any] | None = None) -> bytes:
    """Paths of image points and the three angles over time, as PNG.

    Parameters
    ----------
    trajectory : Trajectory
    image : ndarray, optional
        Shown behind the paths, shape (H, W), (H, W, 3) or (H, W, 4).
    """
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    height, width = trajectory.image_shape
    points = trajectory.grid(5)
    paths = trajectory.paths(points)
    paths = paths - paths.mean(axis=0)
    # Paths are drawn larger where they would be too small to see.
    spacing = 0.2 * min(height, width)
    enlarged = max(1, int(0.7 * spacing / max(trajectory.extent, 1e-9)))
    enlarged = min(enlarged, 10)
    if image is not None:
        step = max(1, max(image.shape[:2]) // 800)  # more pixels than the figure has are slow
        corners = (-0.5, width - 0.5, height - 0.5, -0.5)
        left.imshow(_shown(image[::step, ::step]), alpha=0.55, extent=corners)
    times = trajectory.times
    clock = "time (s)" if trajectory.timed else "time (share of the exposure)"
    moved = points + enlarged * paths
    left.add_collection(
        LineCollection(list(moved.swapaxes(0, 1)), colors="black", linewidths=0.6, alpha=0.5)
    )
    seconds = np.repeat(times, len(points))
    dots = left.scatter(*moved.reshape(-1, 2).T, c=seconds, s=9, cmap="viridis", linewidths=0)
    left.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    left.set(xlabel="x (px)", ylabel="y (px)")
    scale = f", drawn {enlarged} times larger" if enlarged > 1 else ""
    left.set_title(f"Paths of image points{scale}\nextent {trajectory.extent:.1f} px", fontsize=10)
    figure.colorbar(dots, ax=left, label=clock)
    angles = 1e3 * trajectory.rotations.T
    for name, angle, mark in zip(("pitch", "yaw", "roll"), angles, "os^", strict=True):
        right.plot(times, angle, f"-{mark}", markersize=3, linewidth=1.2, label=name)
    right.set(xlabel=clock, ylabel="rotation (mrad)")
    right.set_title(
        f"Camera rotation\n{len(trajectory)} poses, f = {trajectory.focal_length:.0f} px",
        fontsize=10,
    )
    right.grid(alpha=0.3)
    right.legend()
    return _png(figure)


def curves_plot(
    trajectories: Mapping[str, Trajectory],
    unit: Unit = "degrees",
    pixel_size: float | None = None,
    errors: Mapping[str, float] | None = None,
    form: Literal["png", "svg"] = "png",
) -> bytes:
    """Pitch, yaw and roll of one or several trajectories over the exposure, as PNG or SVG.

    Parameters
    ----------
    trajectories : mapping of str to Trajectory
        By name.
    unit, pixel_size
        As for `readout.axis_curves`.
    errors : mapping of str to float, optional
        What their errors seldom exceed in px, by name, drawn as bands.
    form : str
        ``"png"`` or ``"svg"``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for style, (name, trajectory) in zip(
        cycle(("-", "--", ":", "-.")), trajectories.items(), strict=False
    ):
        curves, time = axis_curves(trajectory, unit, pixel_size), clock(trajectory)
        error = (errors or {}).get(name)
        bands = None if error is None else axis_bands(trajectory, error, unit, pixel_size)
        for axis, angle in enumerate(axis_names(trajectory)):
            label = f"{angle}, {name}" if len(trajectories) > 1 else angle
            curve = curves[:, axis]
            axes.plot(time, curve, style, color=f"C{axis}", label=label)
            if bands is not None:
                low, high = curve - bands[axis], curve + bands[axis]
                axes.fill_between(time, low, high, color=f"C{axis}", alpha=0.15, linewidth=0)
    axes.set_xlabel("share of the exposure")
    axes.set_ylabel("rotation (degrees)" if unit == "degrees" else f"shift of the corner ({unit})")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return _saved(figure, form)


def side_by_side(pictures: Mapping[str, NDArray[Any]]) -> bytes:
    """Pictures of equal size in one row under their titles, as PNG, pixel by pixel."""
    from matplotlib.figure import Figure

    dpi, title = 100, 0.35
    height, width = next(iter(pictures.values())).shape[:2]
    figure = Figure(figsize=(len(pictures) * width / dpi, height / dpi + title), dpi=dpi)
    for k, (name, picture) in enumerate(pictures.items()):
        share = 1 / len(pictures)
        axes = figure.add_axes((k * share, 0, share, 1 - title * dpi / (height + title * dpi)))
        axes.imshow(_shown(picture), interpolation="none")
        axes.set_axis_off()
        axes.set_title(name, fontsize=10, pad=5)
    return _png(figure)


def scores_plot(columns: Sequence[str], rows: Sequence[Sequence[float]]) -> bytes:
    """Scores over the time of a training, one panel each, as PNG.

    The first two columns are seconds and steps, the others scores.
    """
    from matplotlib.figure import Figure

    names = columns[2:]
    table = np.array(rows, dtype=float).reshape(-1, len(columns))
    figure = Figure(figsize=(3.6 * len(names), 3), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for panel, name, values in zip(panels, names, table[:, 2:].T, strict=True):
        panel.plot(table[:, 0] / 60, values, "-o", markersize=3, linewidth=1.2)
        panel.set(xlabel="time (min)", title=name)
        panel.grid(alpha=0.3)
    return _png(figure)


def _shown(image: NDArray[Any]) -> NDArray[Any]:
    """RGB of 8 bits, which matplotlib shows as it is."""
    from .files import displayed
    from .images import value_range

    return displayed(image, value_range(image))


def _png(figure: Figure) -> bytes:
    return _saved(figure, "png")


def _saved(figure: Figure, form: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form)
    return buffer.getvalue()
