"""PyTorch checkpoints from a user's file: read without running anything, checked, unwrapped."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from .registry import WeightsError

# Dicts within dicts that are searched for the weights.
_DEPTH = 3


def read_weights(
    path: str | os.PathLike[str], shapes: Mapping[str, torch.Size], name: str
) -> dict[str, Tensor]:
    """Tensors of one network from a checkpoint file, on the CPU, float32.

    The weights may lie in a dict within the file (``{"state_dict": ...}``), and all keys may
    have a prefix (``"module."``).

    Parameters
    ----------
    path : path
        As written by ``torch.save``.
    shapes : mapping
        Shape of every tensor the network has.
    name : str
        What to call the network in messages.

    Raises
    ------
    WeightsError
        The file cannot be read, is damaged, holds anything but tensors and plain values, or
        belongs to another network. Nothing in the file is executed.
    """
    file = Path(path)
    try:
        return _matching(_read(file), shapes)
    except _Mismatch as error:
        raise WeightsError(
            f"{file.name} holds the weights of another network ({error}); choose the file of "
            f"the {name}."
        ) from error


class _Mismatch(Exception):
    """What does not fit, in half a sentence."""


def _read(file: Path) -> Any:
    try:
        with file.open("rb") as stream:
            return torch.load(stream, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # of many kinds, depending on where the file is damaged
        if isinstance(error, OSError) and error.filename is not None:
            raise WeightsError(f"{file} cannot be opened ({error.strerror}).") from error
        if isinstance(error, UnpicklingError) and "GLOBAL " in str(error):
            raise WeightsError(
                f"{file.name} holds Python code or objects besides weights and is not opened, "
                "so that nothing in it can run; choose a file with a state dict alone."
            ) from error
        raise WeightsError(
            f"{file.name} is damaged, incomplete or not a file of PyTorch weights; download it "
            "again or choose another."
        ) from error


def _matching(content: Any, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The weights of a network, wherever they lie in the content of a file."""
    first = next(iter(shapes))
    for mapping in _mappings(content, _DEPTH):
        prefixes = [k.removesuffix(first) for k in mapping if str(k).endswith(first)]
        if prefixes:
            break
    else:
        raise _Mismatch(f"{first!r} is missing")
    prefix = min(prefixes, key=len)
    found = {k.removeprefix(prefix): v for k, v in mapping.items() if str(k).startswith(prefix)}
    for key, shape in shapes.items():
        value = found.get(key)
        if not isinstance(value, Tensor):
            raise _Mismatch(f"{key!r} is missing")
        if value.shape != shape or not value.is_floating_point():
            raise _Mismatch(f"{key!r} has shape {tuple(value.shape)}, not {tuple(shape)}")
    for key in found:
        if key not in shapes:
            raise _Mismatch(f"{key!r} does not belong to it")
    return {key: found[key].float() for key in shapes}


def _mappings(content: Any, depth: int) -> Iterator[Mapping[Any, Any]]:
    if isinstance(content, Mapping):
        yield content
        if depth:
            for value in content.values():
                yield from _mappings(value, depth - 1)
