"""Kernels of the whole picture from several starts, and the curves that they are pictures of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..progress import Progress, Steps, announced, within
from .kernel_curve import drawn, kernel_curve, kernel_curves
from .kernel_network import network_curves
from .uniform import MAX_SIZE, Start, improved_kernel, uniform_kernel
from .view import View

WHOLE_STARTS = (
    Start(0.5, 2, 0.1),
    Start(1, 1),
    Start(0.5, 2, lights=False),
    Start(0.1, 4, 0.1, lights=False),
)
# Looking for long motions in half the size. Few of their parts are strong.
LONG_STARTS = tuple(replace(start, faint=True) for start in WHOLE_STARTS)
STARTS = (*WHOLE_STARTS, *LONG_STARTS)
HALF = 0.5
# Steps in which a curve of half the size is improved up to full resolution.
_STEPS_UP = (math.sqrt(0.5), 1.0)


def kernel_steps(view: View, start: Start, scale: float = 1.0) -> Steps[Tensor]:
    """The kernel of a picture, reduced to a `scale`, from one start."""
    largest = int(scale * MAX_SIZE)
    return (yield from _last_kernel(uniform_kernel(view.grey, _mask(view, start), start, largest)))


def curve_steps(kernel: Tensor, *, quick: bool = False) -> Steps[Tensor]:
    """See `kernel_curve`."""
    following = kernel_curve(kernel, quick=quick)
    return (yield from announced(following, "estimate", 0, 1, "Following the kernel"))


def quick_curves_steps(kernels: Sequence[Tensor]) -> Steps[list[Tensor]]:
    """See `kernel_curves`."""
    following = kernel_curves(kernels, quick=True)
    return (yield from announced(following, "estimate", 0, 1, "Following the kernels"))


def read(kernel: Tensor) -> Tensor:
    """What the network takes a kernel for: coarser than its curve, but free of its ghosts."""
    return network_curves([kernel])[0][0]


def curves_steps(kernel: Tensor) -> Steps[list[Tensor]]:
    """What the network takes a kernel for, and its curve."""
    return [read(kernel), (yield from curve_steps(kernel))]


def half_steps(small: View, start: Start) -> Steps[tuple[Tensor, Tensor]]:
    """The kernel of the picture in half its size from one start, and its curve, in its px."""
    kernel = yield from within(kernel_steps(small, start, HALF), 0, 0.75)
    return kernel, (yield from within(curve_steps(kernel), 0.75, 1))


def up_steps(
    view: View, curve: Tensor, start: Start, scales: tuple[float, ...] = _STEPS_UP
) -> Steps[tuple[Tensor, Tensor]]:
    """Draw a curve and improve the kernel, in finer and finer steps: that kernel, its curve."""
    for i, scale in enumerate(scales):
        begin, middle, end = ((i + share) / len(scales) for share in (0, 0.8, 1))
        small = view.scaled(scale)
        factor = small.sides_by(view)
        kernel = drawn(factor * curve)
        improving = improved_kernel(small.grey, _mask(small, start), kernel, start)
        kernel = yield from within(_last_kernel(improving), begin, middle)
        curve = (yield from within(curve_steps(kernel), middle, end)) / factor
    return kernel, curve


def _mask(view: View, start: Start) -> Tensor:
    return view.mask if start.lights else torch.ones_like(view.mask)


def _last_kernel(kernels: Iterator[tuple[float, Tensor]]) -> Steps[Tensor]:
    """The end of what becomes better and better."""
    kernel = torch.ones(1, 1)
    for fraction, kernel in kernels:
        message = f"Estimating the blur kernel ({kernel.shape[0]} px)"
        yield Progress("estimate", fraction, message)
    return kernel
