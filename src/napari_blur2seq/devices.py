"""Which devices there are to compute on, and the one a user named."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from .errors import OptionError

if TYPE_CHECKING:
    import torch


def available() -> list[str]:
    """Names of the devices of this machine, the CPU first.

    Returns
    -------
    list of str
        ``"cpu"``, then ``"cuda"``, ``"cuda:1"``, ... and ``"mps"`` where they exist.
    """
    import torch

    names = ["cpu"]
    if torch.cuda.is_available():
        names += ["cuda" if i == 0 else f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def resolve(name: str = "auto") -> torch.device:
    """Device of a name.

    Parameters
    ----------
    name : str
        One of `available`, ``"cuda:0"``, or ``"auto"`` for the fastest: CUDA before
        MPS before the CPU.

    Raises
    ------
    OptionError
        If this machine has no such device.
    """
    import torch

    names = available()
    if name == "auto":
        name = next((n for n in ("cuda", "mps") if n in names), "cpu")
    if name not in names and not (name == "cuda:0" and "cuda" in names):
        raise OptionError(
            f"There is no device {name!r} on this machine; choose one of auto, {', '.join(names)}."
        )
    return torch.device(name)


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """A context in which networks are run in bfloat16 where a CPU has units for that (AMX).

    Everywhere else, they keep the precision of their weights.
    """
    import torch

    # Older versions of PyTorch do not tell.
    known = device.type == "cpu" and hasattr(torch.cpu, "get_capabilities")
    if known and torch.cpu.get_capabilities().get("amx_bf16", False):
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()
