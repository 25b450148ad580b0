"""Training of the network that judges whole pictures restored by the exact blur (`estimate.exact`).

Pictures are shaken by random motions through random lenses, and restored, each, with the true
motion and with several others: rough, with another roll, stretched, cut short, mirrored, of another
time course, or with nothing in common. As these are compared with each other when a motion is
chosen, the network learns their differences beside the gain of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..camera import Camera
from ..estimate.exact import exact_restoration_steps
from ..estimate.judge import CELL, log_ratio, whole_gain
from ..estimate.view import View
from ..progress import run
from ..shake import GyroscopeLog
from ..trajectory import Trajectory
from .judging import aligned_error, new_judge
from .motions import Motions
from .replay import Replay
from .synthesis import Synthesis

SIDE = 320
_MOST_EXTENT = 40.0
_POSES = 96
# Beside the true motion.
_OTHERS = 6
# Terms of what makes a motion rough.
_TERMS = 6
# Roll, by pitch and yaw and the distance of the corners, that changes the picture as they do.
_ROLL = 0.3
# Furthest displacement, px, of what is taken for the motion of a sharp picture.
_SIZE_AT_REST = (1.0, 15.0)
_SEARCH = 10
# Errors that an eye would not see are all alike.
_LEAST_ERROR = 5e-5
_KEPT, _USES = 300, 4


@dataclass(frozen=True)
class Judged:
    """A picture, restored in several ways.

    Attributes
    ----------
    blurry, restored, residual : Tensor
        Shape (C, 1, H, W); `blurry` is the same in all.
    noise : float
    errors : Tensor
        Mean squared errors of the restored and of the blurry picture in cells of 16 px,
        shape (C, 2, H / 16, W / 16).
    """

    blurry: Tensor
    restored: Tensor
    residual: Tensor
    noise: float
    errors: Tensor


class ExactJudgeTask:
    """The network that judges whole pictures, for `loop.train`.

    Parameters
    ----------
    images : sequence of Tensor
        Sharp pictures to learn from, uint8, shape (3, H, W).
    development : sequence of Tensor
        Others for the scores.
    recordings : sequence of GyroscopeLog
        For the motions, beside simulated tremor.
    side : int
        Of the pictures, px.
    scored : int
        Pictures of the scores.
    """

    name = "exact"
    learning_rate = 7e-4
    autocast = False
    scores: tuple[str, ...] = ("mean error dB", "lost by the choice dB", "right about the sign")

    def __init__(
        self,
        images: Sequence[Tensor],
        development: Sequence[Tensor],
        recordings: Sequence[GyroscopeLog] = (),
        *,
        side: int = SIDE,
        scored: int = 16,
    ) -> None:
        self._images, self._development = images, development
        self._motions = Motions(recordings)
        self._side, self._scored = side, scored

    def network(self) -> nn.Module:
        """A new network."""
        return new_judge()

    def begin(self, seed: tuple[int, int], device: torch.device) -> None:
        """Set where pictures and motions are drawn; restore what the scores are made of."""
        self._device = device
        number = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._source = self._pairs(self._images, number)
        self._generator = torch.Generator().manual_seed(number)
        development, fixed = self._pairs(self._development, 0), torch.Generator().manual_seed(0)
        made = [self._judged(development, fixed) for _ in range(self._scored)]
        self._examples = made
        self._replay = Replay[Judged](_KEPT, _USES, np.random.default_rng(seed))

    def loss(self, network: nn.Module, share: float) -> Tensor:
        """Errors of the logarithms in the cells, of the gains, and of their differences."""
        example = self._replay.next(lambda: self._judged(self._source, self._generator))
        logs = self._logs(network, example)
        errors = example.errors.to(self._device)
        expected = (errors + _LEAST_ERROR).log()
        cells = F.smooth_l1_loss(logs, expected, beta=0.5, reduction="none").mean((0, 2, 3))
        foretold, true = log_ratio(logs), _true_ratio(errors)
        gain = F.smooth_l1_loss(foretold, true, beta=0.3)
        wrong = foretold - true
        between = F.smooth_l1_loss(
            wrong[:, None].expand(-1, len(wrong)), wrong.expand(len(wrong), -1), beta=0.1
        )
        return cells[0] + 0.3 * cells[1] + 2 * gain + 3 * between

    @torch.no_grad()
    def score(self, network: nn.Module) -> list[float]:
        """How well gains are foretold, and what is lost by choosing the highest."""
        errors, lost, right = list[float](), list[float](), list[float]()
        for example in self._examples:
            foretold = whole_gain(self._logs(network, example)).cpu()
            true = -10 / math.log(10) * _true_ratio(example.errors)
            errors.append(float((foretold - true).abs().mean()))
            lost.append(float(true.max() - true[foretold.argmax()]))
            right.append(float(((foretold > 0) == (true > 0)).float().mean()))
        return [sum(values) / len(values) for values in (errors, lost, right)]

    def _logs(self, network: nn.Module, example: Judged) -> Tensor:
        pictures = (example.blurry, example.restored, example.residual)
        noise = torch.full((len(example.restored),), example.noise, device=self._device)
        result: Tensor = network(*(p.to(self._device).float() for p in pictures), noise)
        return result

    def _pairs(self, images: Sequence[Tensor], seed: int) -> Synthesis:
        return Synthesis(
            images,
            self._motions,
            size=self._side,
            poses=_POSES,
            seed=seed,
            most=_MOST_EXTENT,
            linear=0.75,
            overexposed=0.1,
            compressed=0.2,
        )

    @torch.no_grad()
    def _judged(self, source: Synthesis, generator: torch.Generator) -> Judged:
        """A new picture, restored with the true motion and with others."""
        pair = source.batch(1)
        centre = pair.principal_point[0]
        camera = Camera(
            float(pair.focal_length[0]),
            (float(centre[0]), float(centre[1])),
            (self._side, self._side),
        )
        view = View.of(pair.blurry[0], camera, self._side**2)
        sharp = pair.sharp[0].mean(0)
        true = pair.rotations[0].double() * camera.focal_length
        other = self._motions.sample(1, _POSES, generator)[0].double()
        motions = [true]
        motions += [_another(true, other, camera.field, generator) for _ in range(_OTHERS)]
        restored, residuals, errors = [], [], []
        for motion in motions:
            rotations = (motion / camera.focal_length).numpy()
            seen = Trajectory.from_camera(rotations, camera)
            u, residual = run(exact_restoration_steps(view, seen))
            u = u.clamp(0, 1)
            restored.append(u)
            residuals.append(residual)
            errors.append(torch.stack([_errors(u, sharp), _errors(view.grey, sharp)]))
        blurry = view.grey.expand(len(motions), 1, -1, -1)
        u, residual = (torch.stack(p)[:, None].half() for p in (restored, residuals))
        return Judged(blurry, u, residual, view.noise, torch.stack(errors))


def _another(true: Tensor, other: Tensor, field: float, generator: torch.Generator) -> Tensor:
    """What might be taken for a motion (T, 3), px: angles times focal length; zero on average.

    Parameters
    ----------
    true : Tensor
        At rest, what is taken for it may be anything.
    other : Tensor
        Has nothing to do with it, of any size.
    field : float
        See `Camera.field`.
    generator : torch.Generator
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def wave() -> Tensor:
        """A smooth motion of size 1."""
        terms = torch.arange(1, _TERMS + 1, dtype=true.dtype)
        moments = (torch.arange(len(true), dtype=true.dtype) + 0.5) / len(true)
        basis = torch.cos(math.pi * terms * moments[:, None])
        heights = torch.randn(_TERMS, 3, generator=generator).to(true.dtype) / terms[:, None]
        motion = basis @ heights
        return motion / motion.abs().max()

    def at(moments: Tensor) -> Tensor:
        """The motion at moments between 0 and 1."""
        place = moments.clamp(0, 1) * (len(true) - 1)
        low = place.floor().clamp_max(len(true) - 2).long()
        return torch.lerp(true[low], true[low + 1], (place - low)[:, None])

    size, alike = float(true[:, :2].abs().max()), _ROLL / max(field, 1e-6)
    other = other / float(other[:, :2].abs().max())
    if size == 0:
        size = uniform(*_SIZE_AT_REST)
        true = size * other
    moments = torch.linspace(0, 1, len(true), dtype=true.dtype)
    kind, motion = uniform(0, 1), true.clone()
    other = size * other
    if kind < 0.6:  # in thirds: rough, another roll, both
        if kind < 0.2 or kind >= 0.4:
            rolls = torch.tensor([1, 1, 2 * alike * uniform(0, 1)], dtype=true.dtype)
            motion = motion + 0.7 * uniform(0, 1) ** 2 * size * wave() * rolls
        if kind >= 0.2:
            slope = torch.randn(2, generator=generator).to(true.dtype) * alike
            slope = slope * (0.5, 1.0, 3.0)[int(uniform(0, 3))]
            motion[:, 2] += slope[0] * true[:, 1] - slope[1] * true[:, 0]
    elif kind < 0.68:
        motion = motion * math.exp(uniform(-1, 0.7))
    elif kind < 0.76:
        length = uniform(0.4, 0.95)
        motion = at(uniform(0, 1 - length) + length * moments)
    elif kind < 0.82:
        motion = other * math.exp(uniform(-0.5, 0.5))
    elif kind < 0.88:
        motion = other * uniform(0.1, 0.6)
    elif kind < 0.94:
        mirror = ((1, -1, 1), (-1, 1, 1), (1, 1, -1), (1, 1, 0))[int(uniform(0, 4))]
        motion = motion * torch.tensor(mirror, dtype=true.dtype)
    else:
        motion = at(moments ** math.exp(uniform(-1, 1)))
    return motion - motion.mean(0)


def _errors(picture: Tensor, sharp: Tensor) -> Tensor:
    """Mean squared errors in cells of a picture (H, W), where it fits the sharp one best."""
    wider = F.pad(sharp[None, None], (_SEARCH + 2,) * 4, mode="replicate")[0]
    return F.avg_pool2d(aligned_error(picture[None], wider, _SEARCH), CELL)[0]


def _true_ratio(errors: Tensor) -> Tensor:
    """Logarithm of the restored pictures' errors by those of the blurry ones, shape (C,)."""
    restored, blurry = (errors.mean((2, 3)) + _LEAST_ERROR).log().unbind(1)
    return restored - blurry
