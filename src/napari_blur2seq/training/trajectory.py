"""Training of the network that reads a camera's curve from one picture.

Pairs come from `synthesis`; half of the batches are made smaller, as the network looks at
smaller pictures, too. The loss is that of the kernel network (`paths`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..camera import Camera
from ..estimate.picture_network import PictureNetwork, picture_curves
from ..shake import GyroscopeLog
from .motions import Motions, displacements, divided, grid_points, rays
from .paths import hypotheses_loss, path_distances, predicted_paths
from .synthesis import Pairs, Synthesis

_POSES = 25
# Px of extent that an error is measured by, in shorter motions and as a share of longer ones.
_UNIT = 12.0


class TrajectoryTask:
    """The network from a picture to curves, for `loop.train`.

    Parameters
    ----------
    images : sequence of Tensor
        Sharp pictures to learn from, uint8, shape (3, H, W); dead leaves alone if there are none.
    development : sequence of Tensor
        Others for the scores.
    recordings : sequence of GyroscopeLog
        The last fifth of each is kept for the scores. Simulated tremor is used besides.
    batch : int
        Pairs in a step.
    size : int
        Their side, px.
    scored : int
        Pairs that are scored.
    channels : tuple of int
        Widths of the network.
    """

    name = "trajectory"
    learning_rate = 4e-4
    autocast = True
    scores: tuple[str, ...] = ("path error px", "zero motion px", "expected error px")

    def __init__(
        self,
        images: Sequence[Tensor],
        development: Sequence[Tensor],
        recordings: Sequence[GyroscopeLog] = (),
        *,
        batch: int = 16,
        size: int = 256,
        scored: int = 64,
        channels: tuple[int, ...] = (48, 96, 160, 256),
    ) -> None:
        self._images, self._development = images, development
        self._used, self._held = divided(recordings)
        self._batch, self._size, self._scored, self._channels = batch, size, scored, channels

    def network(self) -> nn.Module:
        """A new network."""
        network = PictureNetwork(self._channels)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def begin(self, seed: tuple[int, int], device: torch.device) -> None:
        """Prepare the source of pairs and those that are scored."""
        self._device = device
        number = 1_000_003 * seed[0] + seed[1]
        self._generator = torch.Generator(device).manual_seed(number)
        used = Motions(self._used, device=device)
        self._source = Synthesis(self._images, used, size=self._size, poses=_POSES, seed=1 + number)
        held = Motions(self._held, tremor=not self._held, device=device)
        kept = Synthesis(self._development, held, size=self._size, poses=_POSES)
        self._examples = kept.batch(self._scored)

    def loss(self, network: nn.Module, share: float) -> Tensor:
        """Distance of the best hypothesis, a little of all, and of the expected errors."""
        # All but the network itself wants all digits.
        exact = torch.autocast(self._device.type, enabled=False)
        with exact:
            pairs = self._source.batch(self._batch)
        blurry, focal, centre = pairs.blurry, pairs.focal_length, pairs.principal_point
        scale = 1.0
        if float(torch.rand((), generator=self._generator, device=self._device)) < 0.5:
            scale = 0.5
            blurry = F.avg_pool2d(blurry, 2)
            # The first of two pixels lies a quarter of the new one's side before its middle.
            focal, centre = scale * focal, scale * centre - 0.25
        curves, expected = network(blurry, focal, centre)
        with exact:
            truth, points = self._true_paths(pairs)
            paths = predicted_paths(curves / scale, points, pairs.focal_length, _POSES)
            far = truth.square().sum(-1).amax((1, 2)).sqrt()
            unit = (2 * far / _UNIT).clamp_min(1)
            # What is expected is in px of the picture that was seen.
            logs = expected - (scale * unit).log()[:, None]
            return hypotheses_loss(paths, logs, truth, unit, self._generator)

    @torch.no_grad()
    def score(self, network: nn.Module) -> list[float]:
        """Median sliced path errors of the most certain curve of all sizes, in px."""
        assert isinstance(network, PictureNetwork)
        pairs = self._examples
        chosen, expected = [], []
        for k, blurry in enumerate(pairs.blurry):
            x, y = pairs.principal_point[k].tolist()
            camera = Camera(float(pairs.focal_length[k]), (x, y), (self._size, self._size))
            curves, errors = picture_curves(network, blurry, camera)
            chosen.append(curves[:1])
            expected.append(errors[0])
        truth, points = self._true_paths(pairs)
        paths = predicted_paths(torch.stack(chosen), points, pairs.focal_length, _POSES)
        generator = torch.Generator(self._device).manual_seed(1)
        free, _ = path_distances(paths, truth, generator)
        zero, _ = path_distances(torch.zeros_like(paths), truth, generator)
        return [float(v.median()) for v in (free, zero, torch.stack(expected))]

    def _true_paths(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Displacements in px, zero on average, (B, T, P, 2), and rays of the points."""
        points = grid_points((self._size, self._size), self._device)
        where = rays(points, pairs.focal_length, pairs.principal_point)
        moved = displacements(pairs.rotations, where, pairs.focal_length)
        return moved - moved.mean(1, keepdim=True), where
