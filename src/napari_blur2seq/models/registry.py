"""The weights shipped with the package: found, checked, loaded; never executed."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ..errors import Blur2SeqError

if TYPE_CHECKING:
    import torch

    from ..restoration.denoiser import Denoiser


class WeightsError(Blur2SeqError):
    """A file of weights is damaged or belongs to another network."""


@cache
def _entries() -> dict[str, dict[str, Any]]:
    path = files(__package__) / "registry.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def available(name: str) -> bool:
    """Whether weights of this name are shipped."""
    entry = _entries().get(name)
    return entry is not None and (files(__package__) / entry["file"]).is_file()


def describe(name: str) -> str:
    """File name and the start of the hash, for the metadata of results."""
    entry = _entries()[name]
    return f"{entry['file']} (SHA-256 {entry['sha256'][:12]})"


def load_state(name: str) -> dict[str, torch.Tensor]:
    """Tensors of shipped weights, their hash checked.

    Raises
    ------
    WeightsError
        If the file is missing or not the one that was shipped.
    """
    from safetensors.torch import load

    if not available(name):
        raise WeightsError(
            f"The weights {name!r} are not installed; install napari-blur2seq again."
        )
    entry = _entries()[name]
    data = (files(__package__) / entry["file"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise WeightsError(
            f"The weights {entry['file']} are damaged; install napari-blur2seq again."
        )
    return {key: value.float() for key, value in load(data).items()}


def load_denoiser(device: torch.device) -> Denoiser:
    """The denoising network with its shipped weights, ready to be called."""
    import torch

    from ..restoration.denoiser import Denoiser

    network = Denoiser()
    try:
        network.load_state_dict(load_state("denoiser"))
    except RuntimeError as error:
        raise WeightsError("The denoiser's weights belong to another network.") from error
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)
