"""The blur interpolated between local kernels, beside the exact one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.data import camera as cameraman

from napari_blur2seq import Trajectory
from napari_blur2seq.motion_blur import MotionBlur
from napari_blur2seq.progress import finish
from napari_blur2seq.restoration.local_blur import LocalBlur
from napari_blur2seq.shake import simulate_tremor

SHAPE = (150, 211)
CPU = torch.device("cpu")


def picture():
    pixels = cameraman()[100 : 100 + SHAPE[0], 150 : 150 + SHAPE[1]]
    return torch.from_numpy(pixels.copy()).float()[None, None] / 255


def blurred(motion, image):
    return finish(LocalBlur(motion, CPU, torch.float32).parts(image))


def difference(motion):
    """Root mean square of what the two blurs make different, out of reach of the border."""
    exact, local = MotionBlur(motion)(picture()), blurred(motion, picture())
    reach = int(np.ceil(np.abs(motion.paths(motion.grid())).max())) + 4
    inner = (..., slice(reach, -reach), slice(reach, -reach))
    return float((exact - local)[inner].square().mean().sqrt())


def test_a_camera_at_rest_changes_nothing():
    still = Trajectory.zero(SHAPE, 8)
    assert torch.allclose(blurred(still, picture()), picture(), atol=1e-5)


@pytest.mark.parametrize(("focal_length", "share"), [(300.0, 0.05), (3000.0, 0.02)])
def test_nearly_the_exact_blur(focal_length, share):
    motion = simulate_tremor(SHAPE, extent=9.0, seed=2, focal_length=focal_length)
    change = float((MotionBlur(motion)(picture()) - picture()).square().mean().sqrt())
    assert difference(motion) < share * change


def test_a_rolling_camera():
    motion = simulate_tremor(SHAPE, extent=6.0, seed=5, focal_length=3000.0)
    rotations = motion.rotations.copy()
    rotations[:, 2] = np.linspace(-0.05, 0.05, len(rotations))
    rolling = Trajectory(
        rotations, motion.focal_length, motion.principal_point, motion.image_shape
    ).centered()
    assert difference(rolling) < 0.004
    # One kernel for all of the picture is far off.
    unrolled = Trajectory(
        rolling.rotations * [1, 1, 0],
        motion.focal_length,
        motion.principal_point,
        motion.image_shape,
    )
    change = (MotionBlur(rolling)(picture()) - MotionBlur(unrolled)(picture()))[..., 20:-20, 20:-20]
    assert difference(rolling) < 0.1 * float(change.square().mean().sqrt())
