"""Descent of many small problems at once, with pauses."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..progress import Parts

_PAUSE = 20


def descend(
    objective: Callable[[Tensor], Tensor], values: Tensor, *, steps: int, rate: float
) -> Parts[Tensor]:
    """Lower objectives by gradient descent (Adam, Kingma and Ba 2015) in ever shorter steps.

    Parameters
    ----------
    objective : callable
        Values (S, ...) to numbers (S,), differentiable.
    values : Tensor
        Where to start.
    steps : int
    rate : float
        Length of the first steps.

    Yields
    ------
    float
        Share of the steps done.

    Returns
    -------
    Tensor
    """
    # Importing torch.optim would load torch's compiler, 2 s.
    values = values.clone().requires_grad_(True)
    first, second = torch.zeros_like(values), torch.zeros_like(values)
    for step in range(1, steps + 1):
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(objective(values).sum(), values)
        first.lerp_(gradient, 0.1)
        second.lerp_(gradient.square(), 0.02)
        length = rate * (0.02 + 0.5 + 0.5 * math.cos(math.pi * step / steps))
        change = first / (1 - 0.9**step) / ((second / (1 - 0.98**step)).sqrt() + 1e-8)
        values.data.sub_(length * change)
        if step % _PAUSE == 0:
            yield step / steps
    return values.detach()
