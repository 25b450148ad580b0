"""Weights: those shipped with the package and those of files; checked, never executed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import Blur2SeqError
from ..files import write_whole

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..estimate.judge import Judge
    from ..estimate.kernel_network import KernelNetwork
    from ..estimate.picture_network import PictureNetwork
    from ..restoration.noise_level import NoiseNetwork
    from ..restoration.unrolled import UnrolledRestoration


_Network = TypeVar("_Network", bound="nn.Module")
# Of the denoiser's weights in a file of the restoration.
_DENOISER = "known.denoiser."


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


def restoration_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of the unrolled restoration from its own or from those of a denoiser alone."""
    import torch

    from ..restoration.unrolled import START

    if any(key.startswith(_DENOISER) for key in state):
        return dict(state)
    whole: dict[str, torch.Tensor] = {}
    for part, start in START.items():
        whole |= {f"{part}.denoiser.{key}": value for key, value in state.items()}
        whole[f"{part}.factors"] = torch.zeros(start.iterations, 2)
    return whole


def denoiser_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of the denoiser from its own or from those of the restoration."""
    return {
        key.removeprefix(_DENOISER): value
        for key, value in restoration_state(state).items()
        if key.startswith(_DENOISER)
    }


def weights_to_start(name: str, start: str) -> dict[str, torch.Tensor]:
    """Weights that the training of a network begins with: ``"shipped"``, or those of a file.

    Raises
    ------
    WeightsError
        If none are shipped, or the file is no such file.
    """
    whole = {"denoiser": denoiser_state, "restoration": restoration_state}
    shipped = "restoration" if name in whole else name
    if start != "shipped":
        state = read_weights(start)
    elif available(shipped):
        state = load_state(shipped)
    else:
        raise WeightsError(
            f"No weights of the {name} network are shipped; leave --start out or name a file."
        )
    return whole[name](state) if name in whole else state


def load_restoration(
    device: torch.device, path: str | os.PathLike[str] | None = None
) -> UnrolledRestoration:
    """The unrolled restoration with the weights that are shipped or those of a file.

    A file of the denoiser alone will do: the schedules are then those that suit it.
    """
    import torch

    from ..restoration.unrolled import START, UnrolledRestoration

    state = restoration_state(load_state("restoration") if path is None else read_weights(path))
    none = torch.zeros(1, 2)
    network = UnrolledRestoration(*(len(state.get(f"{part}.factors", none)) for part in START))
    fill(network, state, "restoration")
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)


def load_kernel_network() -> KernelNetwork:
    """The network from kernels to curves, with the weights that are shipped."""
    from ..estimate.kernel_network import KernelNetwork

    return _shipped(KernelNetwork(), "kernels")


def load_picture_network(path: str | os.PathLike[str] | None = None) -> PictureNetwork:
    """The network from a picture to curves, with weights that are shipped or those of a file."""
    from ..estimate.picture_network import PictureNetwork

    state = load_state("trajectory") if path is None else read_weights(path)
    network = PictureNetwork(PictureNetwork.channels_of(state) or (8,))
    fill(network, state, "trajectory")
    return network.eval().requires_grad_(False)


def load_judge() -> Judge:
    """The network that tells trajectories from each other, with the weights that are shipped."""
    from ..estimate.judge import Judge

    return _shipped(Judge(), "judge")


def load_exact_judge() -> Judge:
    """The judge of restorations by the exact blur, with the weights that are shipped."""
    from ..estimate.judge import Judge

    return _shipped(Judge(), "exact")


def load_noise_network() -> NoiseNetwork:
    """The network that tells how much noise is in a picture, with the weights that are shipped."""
    from ..restoration.noise_level import NoiseNetwork

    return _shipped(NoiseNetwork(), "noise")


def _shipped(network: _Network, name: str) -> _Network:
    """A network with the weights that are shipped under a name, for use."""
    fill(network, load_state(name), name)
    return network.eval().requires_grad_(False)
