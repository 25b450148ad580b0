"""A layer that shows work while it is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..layers import LayerData, update_layer

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer


class LiveLayer:
    """Added to a viewer with the first data, and kept up to date; the active layer stays active.

    Parameters
    ----------
    viewer : napari.Viewer

    Attributes
    ----------
    layer : napari.layers.Layer or None
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.layer: Layer | None = None

    def show(self, data: LayerData) -> None:
        """Show this from now on, unless the user has removed the layer."""
        if self.layer is None:
            from napari.layers import Layer

            active = self._viewer.layers.selection.active
            self.layer = Layer.create(*data)
            self._viewer.add_layer(self.layer)
            self._viewer.layers.selection.active = active
        elif self.layer in self._viewer.layers:
            update_layer(self.layer, data)

    def give(self) -> Layer | None:
        """The layer, which is nobody's work any more; None where there is none."""
        layer, self.layer = self.layer, None
        return layer if layer is not None and layer in self._viewer.layers else None

    def remove(self) -> None:
        """Take the layer out of the viewer."""
        layer = self.give()
        if layer is not None:
            self._viewer.layers.remove(layer)
