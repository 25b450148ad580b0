"""deblur(): one blurry picture in; sharp picture, trajectory and sequence out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .camera import Camera
from .images import ImageFormat, to_working
from .progress import Progress, Steps, run, within
from .trajectory import Trajectory

if TYPE_CHECKING:
    import torch

DEFAULT_POSES = 25


class FrameSequence(Sequence[NDArray[np.generic]]):
    """The sharp frames of one exposure, computed when asked for.

    Behaves like an array of shape (T, H, W[, C]): has ``shape``, ``dtype``, ``ndim``,
    gives frames by index or slice, and becomes an array with ``numpy.asarray``.
    """

    def __init__(self, sharp: NDArray[np.float32], trajectory: Trajectory, form: ImageFormat) -> None:
        self._sharp = sharp
        self._trajectory = trajectory
        self._form = form

    def __len__(self) -> int:
        return len(self._trajectory)

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, H, W[, C])."""
        channels = () if self._form.grey else (3 if self._form.alpha is None else 4,)
        return (len(self), *self._sharp.shape[1:], *channels)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """As the input image."""
        return self._form.dtype

    @cached_property
    def _operator(self) -> Any:
        from .motion_blur import MotionBlur

        return MotionBlur(self._trajectory)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, tuple):
            return self[index[0]][(slice(None), *index[1:])] if isinstance(index[0], slice) else self[index[0]][index[1:]]
        if isinstance(index, slice):
            frames = [self[j] for j in range(*index.indices(len(self)))]
            return np.stack(frames) if frames else np.empty((0, *self.shape[1:]), self.dtype)
        import torch

        j = range(len(self))[int(index)]
        frame = self._operator.frame(torch.from_numpy(self._sharp)[None], j)[0]
        return self._form.encode(frame.numpy())

    def __iter__(self) -> Iterator[NDArray[np.generic]]:
        return (self[j] for j in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.generic]:
        result = np.empty(self.shape, self.dtype)
        for j, frame in enumerate(self):
            result[j] = frame
        return result if dtype is None else result.astype(dtype)


@dataclass(eq=False)
class Result:
    """What `deblur` gives back.

    Attributes
    ----------
    sharp : ndarray
        The sharp image, of the input's shape, dtype and range.
    trajectory : Trajectory
        The camera's rotation, centred, `n_poses` poses.
    reblurred : ndarray
        The sharp image blurred by the trajectory, like the input.
    metadata : dict
        Version, parameters, certainty (px) and scores: what is needed to make the
        result again. Plain numbers, strings, lists and dicts.
    frames : FrameSequence
        The sequence, computed frame by frame when asked for.
    """

    sharp: NDArray[np.generic]
    trajectory: Trajectory
    reblurred: NDArray[np.generic]
    metadata: dict[str, Any]
    frames: FrameSequence = field(repr=False)

    @cached_property
    def sequence(self) -> NDArray[np.generic]:
        """Sharp frames whose mean is `reblurred`, shape (T, H, W[, C])."""
        return np.asarray(self.frames)


@dataclass(frozen=True)
class Options:
    """Everything `deblur` can be told; see `deblur`."""

    focal_length: float | None = None
    principal_point: tuple[float, float] | None = None
    n_poses: int = DEFAULT_POSES
    refine: bool = True
    noise: float | None = None
    linear: bool = False
    prior: Literal["auto", "learned", "sparse"] = "auto"
    device: str = "auto"
    seed: int = 0


def deblur_steps(image: ArrayLike, options: Options | None = None) -> Steps[Result]:
    """The work of `deblur` as a generator of `Progress` events; its return value is the `Result`.

    Close the generator between any two events to cancel.
    """
    raise NotImplementedError
