"""From the names of the command line to what is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..errors import OptionError
from ..shake import GyroscopeLog
from .loop import Task
from .sharp import load_images

_MOST_DEVELOPMENT = 16


def make_task(
    network: str,
    *,
    images: Path | None = None,
    development: Path | None = None,
    recordings: Sequence[Path] = (),
) -> Task:
    """The task of a network's name.

    Parameters
    ----------
    network : str
        ``"denoiser"``, ``"restoration"``, ``"noise"``, ``"kernels"``, ``"trajectory"``,
        ``"judge"`` or ``"exact"``.
    images : Path, optional
        Folder of sharp pictures.
    development : Path, optional
        Folder of others for the scores; some of `images` are kept apart if not given.
    recordings : sequence of Path
        Files of gyroscope recordings.

    Raises
    ------
    OptionError
        If there is no such network, or it needs pictures and none are given.
    ImageError, TrajectoryError
        If a picture or a recording cannot be read.
    """
    logs = [GyroscopeLog.load(path) for path in recordings]
    if network == "kernels":
        from .kernels import KernelTask

        return KernelTask(logs)
    if network not in ("denoiser", "restoration", "noise", "trajectory", "judge", "exact"):
        raise OptionError(
            f"There is no network {network!r} to train; choose denoiser, restoration, noise, "
            "kernels, trajectory, judge or exact."
        )
    if images is None:
        raise OptionError(f"The {network} learns from sharp pictures; name their folder.")
    pictures = _divided(images, development)
    if network == "judge":
        from .judging import JudgeTask

        return JudgeTask(*pictures, logs)
    if network == "exact":
        from .exact_judging import ExactJudgeTask

        return ExactJudgeTask(*pictures, logs)
    if network == "noise":
        from .noise import NoiseTask

        return NoiseTask(*pictures, logs)
    if network == "restoration":
        from .restoration import RestorationTask

        return RestorationTask(*pictures, logs)
    if network == "trajectory":
        from .trajectory import TrajectoryTask

        return TrajectoryTask(*pictures, logs)
    from .denoiser import DenoiserTask

    return DenoiserTask(*pictures)


def _divided(images: Path, development: Path | None) -> tuple[list[Tensor], list[Tensor]]:
    """Pictures to learn from, and at most 16 others for the scores."""
    pictures = load_images(images)
    if development is not None:
        return pictures, load_images(development, _MOST_DEVELOPMENT)
    if len(pictures) == 1:
        return pictures, pictures
    step = max(4, len(pictures) // _MOST_DEVELOPMENT)
    kept = pictures[::step][:_MOST_DEVELOPMENT]
    rest = [p for p in pictures if not any(p is k for k in kept)]
    return rest, kept
