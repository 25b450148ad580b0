"""Plots of curves in a dock, in the colours of the viewer's theme."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from qtpy.QtWidgets import QSizePolicy

if TYPE_CHECKING:
    from napari.viewer import Viewer

Colour = tuple[int, int, int]

# Of three curves, on dark and on light ground (Okabe and Ito's palette).
_COLOURS: dict[str, tuple[Colour, Colour, Colour]] = {
    "dark": ((86, 180, 233), (230, 159, 0), (0, 190, 140)),
    "light": ((0, 114, 178), (200, 90, 0), (0, 130, 95)),
}


class Style(NamedTuple):
    """Colours of text, ground and three curves."""

    text: str
    ground: Colour
    curves: tuple[Colour, Colour, Colour]


def style_of(viewer: Viewer) -> Style:
    """The colours that suit the viewer's theme."""
    from napari.utils.theme import get_theme

    theme = get_theme(viewer.theme)
    red, green, blue = theme.background.as_rgb_tuple()[:3]
    dark = red + green + blue < 3 * 128
    ground = int(red), int(green), int(blue)
    return Style(theme.text.as_hex(), ground, _COLOURS["dark" if dark else "light"])


def make_plot(tip: str) -> Any:
    """An empty plot with a grid; pyqtgraph is imported for it."""
    import pyqtgraph as pg

    plot = pg.PlotWidget(background=None)
    plot.setToolTip(tip)
    for side in ("bottom", "left"):
        plot.getAxis(side).enableAutoSIPrefix(False)
    plot.setMinimumHeight(150)
    # The label of the axis reaches a little below it.
    plot.getPlotItem().layout.setContentsMargins(1, 1, 1, 7)
    plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
    plot.showGrid(x=True, y=True, alpha=0.2)
    return plot


def restyle(plot: Any, style: Style) -> None:
    """Give a plot the colours of a theme; curves are drawn by whoever owns them."""
    for side in ("bottom", "left"):
        plot.getAxis(side).setPen(style.text)
        plot.getAxis(side).setTextPen(style.text)
    plot.setBackground(style.ground)
