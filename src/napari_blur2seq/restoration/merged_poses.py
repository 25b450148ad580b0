"""The exact blur in fewer poses: those that follow each other within a part of a px are one."""

from __future__ import annotations

import numpy as np
import torch

from ..motion_blur import MotionBlur
from ..trajectory import Trajectory
from .half_quadratic import corners_of


def merged_blur(
    motion: Trajectory, device: torch.device, dtype: torch.dtype, apart: float
) -> MotionBlur:
    """The blur of a trajectory whose poses are merged.

    Parameters
    ----------
    motion : Trajectory
    device : torch.device
    dtype : torch.dtype
    apart : float
        Px that a point of the picture may be displaced from the first pose of those that are taken
        for one, their mean; it counts for as many as they are.
    """
    paths = motion.paths([*corners_of(motion.image_shape), motion.principal_point])
    groups, first = [0], 0
    for i in range(1, len(motion)):
        leaves = np.linalg.norm(paths[i] - paths[first], axis=-1).max() > apart
        first = i if leaves else first
        groups.append(groups[-1] + leaves)
    counts = np.bincount(groups)
    sums = [np.bincount(groups, axis) for axis in motion.rotations.T]
    poses = Trajectory.from_camera(np.stack(sums, 1) / counts[:, None], motion.camera)
    return MotionBlur(poses, device, dtype, weights=torch.from_numpy(counts / len(motion)))
