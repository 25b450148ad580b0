"""How far motions are from the truth: what the networks that give curves are trained by.

Compared is where the true and the predicted motion bring points of the picture, whatever the
order of time (sliced optimal transport), and in the better direction of time; of a network's
hypotheses the best one counts most.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..estimate.curve import cosine_basis
from .motions import displacements

_SLICES = 16
_OTHERS = 0.1
_ORDERED = 0.25
_CERTAINTY = 0.1


def predicted_paths(curves: Tensor, points: Tensor, focal_length: Tensor, poses: int) -> Tensor:
    """Where curves bring points of the picture.

    Parameters
    ----------
    curves : Tensor
        Cosine coefficients in px, shape (B, M, K, 3).
    points : Tensor
        Rays, shape (B, P, 2).
    focal_length : Tensor
        Pixels, shape (B,).
    poses : int

    Returns
    -------
    Tensor
        Displacements in px, zero on average over time, shape (B, M, T, P, 2).
    """
    count, hypotheses = curves.shape[:2]
    basis = cosine_basis(poses, curves.shape[2]).to(curves)
    focal = focal_length.repeat_interleave(hypotheses)
    moved = displacements(
        basis @ curves.flatten(0, 1) / focal[:, None, None],
        points.repeat_interleave(hypotheses, 0),
        focal,
    )
    moved = moved - moved.mean(1, keepdim=True)
    return moved.reshape(count, hypotheses, *moved.shape[1:])


def path_distances(
    paths: Tensor, truth: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """How far hypotheses are from the truth, without and with the order of time.

    Parameters
    ----------
    paths : Tensor
        Displacements, zero on average over time, shape (B, M, T, P, 2).
    truth : Tensor
        Shape (B, T, P, 2).
    generator : torch.Generator
        For the directions of the slices.

    Returns
    -------
    free, ordered : Tensor
        Root mean squared distances, shape (B, M): the first is the sliced Wasserstein
        distance times sqrt(2), which for a shift is its length; the second that of poses at
        equal times in the better direction.
    """
    angle = math.pi * torch.rand(_SLICES, generator=generator, device=paths.device)
    slices = torch.stack([angle.cos(), angle.sin()])
    mine, theirs = (
        torch.sort(torch.movedim(p @ slices, -3, -1), -1).values for p in (paths, truth)
    )
    free = (mine - theirs[:, None]).square().flatten(2).mean(2)
    onward, backward = (
        (paths - t[:, None]).square().sum(-1).flatten(2).mean(2) for t in (truth, truth.flip(1))
    )
    ordered = torch.minimum(onward, backward)
    return (2 * free + 1e-4).sqrt(), (ordered + 1e-4).sqrt()


def hypotheses_loss(
    paths: Tensor, expected: Tensor, truth: Tensor, unit: Tensor, generator: torch.Generator
) -> Tensor:
    """Distance of the best hypothesis, a little of all, and of the expected errors.

    Parameters
    ----------
    paths : Tensor
        Shape (B, M, T, P, 2), px.
    expected : Tensor
        Logarithms of the errors that are expected, in units, shape (B, M).
    truth : Tensor
        Shape (B, T, P, 2), px.
    unit : Tensor
        Pixels, shape (B,).
    generator : torch.Generator
        For the directions of the slices.
    """
    free, ordered = path_distances(paths, truth, generator)
    unit = unit[:, None]
    distance = (free + _ORDERED * ordered) / unit
    certain = (expected - (free / unit).detach().log()).abs().mean()
    total: Tensor = distance.amin(1).mean() + _OTHERS * distance.mean() + _CERTAINTY * certain
    return total
