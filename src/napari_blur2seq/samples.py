"""Sample data of the plugin: one really shaken photograph and two pictures shaken here.

All come with scikit-image; nothing is downloaded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .shake import simulate_tremor

# How the synthetic samples are shaken: a tremor of this extent, then sensor noise.
_EXTENT_PX = 12.0
_NOISE = 0.005

SampleData = list[tuple[NDArray[Any], dict[str, Any], str]]


def clock() -> SampleData:
    """A clock photographed by a shaken camera, grey, 300 x 400 px."""
    return [(_shipped("clock"), {"name": "shaken clock"}, "image")]


def photograph() -> SampleData:
    """A cup of coffee, colour, 400 x 600 px, blurred by simulated tremor.

    The true trajectory is in the layer's metadata, as the CSV text of `Trajectory.save`.
    """
    return _shaken("shaken coffee", _shipped("coffee"), seed=7)


def micrograph() -> SampleData:
    """Stained tissue, colour, 512 x 512 px, blurred by simulated tremor; see `photograph`."""
    return _shaken("shaken tissue", _shipped("immunohistochemistry"), seed=5)


def _shipped(name: str) -> NDArray[Any]:
    from skimage import data

    return np.asarray(getattr(data, name)())


def _shaken(name: str, sharp: NDArray[Any], seed: int) -> SampleData:
    from .pipeline import blur

    trajectory = simulate_tremor(sharp.shape, extent=_EXTENT_PX, seed=seed)
    blurry = blur(sharp, trajectory, noise=_NOISE, seed=seed)
    truth = {"true_trajectory_csv": trajectory.to_csv()}
    return [(blurry, {"name": name, "metadata": {"blur2seq": truth}}, "image")]
