"""Descent of many small problems at once, with pauses."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..progress import Parts

_PAUSE = 20


def descend(
    gradient_of: Callable[[Tensor], Tensor], values: Tensor, *, steps: int, rate: float
) -> Parts[Tensor]:
    """Lower objectives by gradient descent (Adam, Kingma and Ba 2015) in ever shorter steps.

    Parameters
    ----------
    gradient_of : callable
        Values (S, ...) to the gradients of their objectives, the same shape.
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
    values = values.clone()
    first, second = torch.zeros_like(values), torch.zeros_like(values)
    for step in range(1, steps + 1):
        gradient = gradient_of(values)
        first.lerp_(gradient, 0.1)
        second.lerp_(gradient.square(), 0.02)
        length = rate * (0.02 + 0.5 + 0.5 * math.cos(math.pi * step / steps))
        change = first / (1 - 0.9**step) / ((second / (1 - 0.98**step)).sqrt() + 1e-8)
        values = values - length * change
        if step % _PAUSE == 0:
            yield step / steps
    return values


def gradients(objective: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Of a differentiable objective, values (S, ...) to numbers (S,); see `descend`."""

    @torch.enable_grad()
    def gradient_of(values: Tensor) -> Tensor:
        free = values.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective(free).sum(), free)
        return gradient

    return gradient_of
