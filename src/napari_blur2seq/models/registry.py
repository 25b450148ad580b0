"""Weights: those shipped with the package and those of files; checked, never executed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Blur2SeqError
from ..files import write_whole

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..estimate.judge import Judge
    from ..estimate.kernel_network import KernelNetwork
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


def read_weights(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Tensors of a file of weights that training wrote.

    Raises
    ------
    WeightsError
        If the file is missing or no such file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return {key: value.float() for key, value in load(Path(path).read_bytes()).items()}
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}).") from error
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is not a file of weights; choose a .safetensors file that training wrote."
        ) from error


def write_weights(path: Path, network: nn.Module) -> Path:
    """Write a network's weights in half precision, whole or not at all."""
    from safetensors.torch import save

    # Contiguous, whatever memory format the network computes in.
    state = {k: v.half().cpu().contiguous() for k, v in network.state_dict().items()}
    write_whole(path, save(state))
    return path


def fill(network: nn.Module, state: Mapping[str, torch.Tensor], name: str) -> None:
    """Put weights into a network.

    Raises
    ------
    WeightsError
        If they are not the weights of such a network.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(
            f"These are not the weights of the {name} network; choose others."
        ) from error


def load_denoiser(device: torch.device, path: str | os.PathLike[str] | None = None) -> Denoiser:
    """The denoising network, with the weights that are shipped or those of a file."""
    import torch

    from ..restoration.denoiser import Denoiser

    network = Denoiser()
    fill(network, load_state("denoiser") if path is None else read_weights(path), "denoiser")
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)


def load_kernel_network() -> KernelNetwork:
    """The network from kernels to curves, with the weights that are shipped."""
    from ..estimate.kernel_network import KernelNetwork

    network = KernelNetwork()
    fill(network, load_state("kernels"), "kernels")
    return network.eval().requires_grad_(False)


def load_judge() -> Judge:
    """The network that tells trajectories from each other, with the weights that are shipped."""
    from ..estimate.judge import Judge

    network = Judge()
    fill(network, load_state("judge"), "judge")
    return network.eval().requires_grad_(False)
