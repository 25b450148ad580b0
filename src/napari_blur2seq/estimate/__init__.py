"""Picture to trajectory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OptionError

if TYPE_CHECKING:
    from .picture_network import PictureNetwork

__all__ = ["load_estimator"]


def load_estimator(name: str) -> tuple[bool, PictureNetwork | None, str]:
    """Where hypotheses come from, by the name of an estimator.

    Parameters
    ----------
    name : str
        ``"auto"``: blur kernels, and the picture network where its weights are shipped;
        ``"kernels"`` or ``"network"``: one of the two; the path of a ``.safetensors`` file: the
        network with the weights that it holds.

    Returns
    -------
    kernels : bool
        Whether blur kernels are estimated.
    network : PictureNetwork or None
    description : str
        For the metadata.

    Raises
    ------
    OptionError
        If the network is asked for and has no weights.
    WeightsError
        If the file is no such network's.
    """
    from ..models import registry

    if name.endswith(".safetensors"):
        return False, registry.load_picture_network(name), Path(name).name
    if name == "kernels" or not registry.available("trajectory"):
        if name == "network":
            raise OptionError(
                "No weights of the trajectory network are installed; choose estimator='kernels' "
                "or the .safetensors file of one that you trained."
            )
        return True, None, "kernels"
    shipped = registry.describe("trajectory")
    if name == "network":
        return False, registry.load_picture_network(), shipped
    return True, registry.load_picture_network(), f"kernels and {shipped}"
