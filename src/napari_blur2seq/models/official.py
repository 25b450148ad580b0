r"""The two networks of Blur2seq's authors, to be filled with the weights they publish.

Written from a description of the architectures; the modules have the names of the
checkpoints' keys. The weights are the authors' and not part of this package: they are
opened from files a user has, and never fetched.
"""

from __future__ import annotations

import hashlib
import math
import os
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..camera import Camera
from ..motion_blur import batched_blur, sampling_homographies
from ..ordering import shortest_path
from ..progress import Progress, Steps, run, within
from ..restoration.half_quadratic import preview_of
from ..trajectory import Trajectory
from .checkpoint import read_weights

_POSES = 25
_STEPS = 9
_MOST_ROTATION = torch.pi / 4
_NOISE = 0.01
# Rows of the widest layers of the trajectory network are made in bands of this many pixels.
_BAND = 1 << 20
# Tiles of the denoiser, px. What a pixel depends on ends 90 px from it (5 at full
# resolution, 8, 16, 32, 16, 8 and 5 below): with this margin, tiles change nothing.
_TILE = 1024
_MARGIN = 96

Network = TypeVar("Network", bound=nn.Module)


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.01, inplace=True)]


class _Down(nn.Module):
    """Two convolutions; the pooling after them is left to the caller."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(*_conv(inputs, outputs), *_conv(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.double_conv(x)
        return result


class _Up(nn.Module):
    """Twice the size, two convolutions, and one more together with the skip."""

    def __init__(self, inputs: int, outputs: int, skip: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(*_conv(inputs, outputs), *_conv(outputs, outputs))
        self.feat = nn.Sequential(*_conv(skip + outputs, outputs))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        x = self.double_conv(x)
        rows, columns = (skip.shape[axis] - x.shape[axis] for axis in (-2, -1))
        x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        result: Tensor = self.feat(torch.cat([skip, x], dim=1))
        return result


class TrajectoryNetwork(nn.Module):
    """From a blurry picture to the rotations of the camera, in no particular order.

    An encoder of five levels, each averaged over the whole picture, and two decoders: one
    for roll in radians, one for pitch and yaw in pixels, turned into angles by the focal
    length. 71.1 million parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inc_rgb = nn.Sequential(*_conv(3, 64))
        # In the checkpoint, for inputs that are not used here.
        self.inc_frgb = nn.Sequential(*_conv(4, 64))
        self.inc_grid_rgb = nn.Sequential(*_conv(5, 64))
        self.inc_gray = nn.Sequential(*_conv(1, 64))
        self.down1 = _Down(64, 64)
        self.down2 = _Down(64, 128)
        self.down3 = _Down(128, 256)
        self.down4 = _Down(256, 512)
        self.down5 = _Down(512, 1024)
        self.feat = nn.Sequential(*_conv(1024, 1024))
        for name, numbers in (("roll", _POSES), ("pitch_yaw", 2 * _POSES)):
            self.add_module(f"{name}_up1", _Up(1024, 512, 1024))
            self.add_module(f"{name}_up2", _Up(512, 256, 512))
            self.add_module(f"{name}_up3", _Up(256, 256, 256))
            self.add_module(f"{name}_up4", _Up(256, 128, 128))
            end = (*_conv(128, 128), *_conv(128, 128), nn.Conv2d(128, numbers, 8))
            self.add_module(f"{name}_end", nn.Sequential(*end))

    def forward(self, image: Tensor, focal_length: Tensor) -> Tensor:
        """Rotations of a batch of pictures.

        Parameters
        ----------
        image : Tensor
            Shape (B, 3, H, W) in [0, 1], or (B, 1, H, W); both sides at least 32 px.
        focal_length : Tensor
            Pixels, shape (B,).

        Returns
        -------
        Tensor
            Pitch, yaw and roll in radians, shape (B, 25, 3).
        """
        return run(self.steps(image, focal_length))

    def steps(self, image: Tensor, focal_length: Tensor) -> Steps[Tensor]:
        """The work of `forward` as a generator of events of the stage ``"estimate"``."""
        x, second = yield from within(self._fine_levels(image), 0.0, 0.6)
        skips = [second]
        for i, down in enumerate((self.down3, self.down4, self.down5)):
            x = down(x)
            skips.append(x.mean((-2, -1), keepdim=True))
            x = F.max_pool2d(x, 2)
            yield _looking(0.6 + 0.1 * (i + 1))
        x = self.feat(x).mean((-2, -1), keepdim=True)
        roll = self._decode("roll", x, skips).reshape(-1, _POSES, 1)
        pitch_yaw = self._decode("pitch_yaw", x, skips).reshape(-1, _POSES, 2)
        f = focal_length.reshape(-1, 1, 1).expand_as(pitch_yaw)
        rotations = torch.cat([torch.atan2(pitch_yaw, f), roll], dim=-1)
        return rotations.clamp(-_MOST_ROTATION, _MOST_ROTATION)

    def _fine_levels(self, image: Tensor) -> Steps[tuple[Tensor, Tensor]]:
        """Levels 1 and 2 with their pooling, and the mean of level 2.

        Made in bands of rows that overlap by more than the 7 px that a pixel depends on:
        64 channels of a whole 12-megapixel picture would take 3 GB.
        """
        height, width = image.shape[-2:]
        inc = self.inc_gray if image.shape[1] == 1 else self.inc_rgb
        rows = max(64, _BAND // width // 4 * 4)
        pooled = []
        total = torch.zeros((), device=image.device)
        for top, bottom in pairwise([*range(0, height - 3, rows), height]):
            start, stop = max(0, top - 8), min(height, bottom + 8)
            x = F.max_pool2d(self.down1(inc(image[..., start:stop, :] - 0.5)), 2)
            x = self.down2(x)[..., (top - start) // 2 : (bottom - start) // 2, :]
            total = total + x.sum((-2, -1), keepdim=True)
            pooled.append(F.max_pool2d(x, 2))
            yield _looking(bottom / height)
        return torch.cat(pooled, dim=-2), total / ((height // 2) * (width // 2))

    def _decode(self, name: str, x: Tensor, skips: list[Tensor]) -> Tensor:
        for level, skip in enumerate(reversed(skips)):
            side = 2**level
            up = self.get_submodule(f"{name}_up{level + 1}")
            x = up(x, skip.expand(-1, -1, side, side))
        result: Tensor = self.get_submodule(f"{name}_end")(x)
        return result


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.res = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.res(x).add_(x)
        return result


def _halving(fine: int, coarse: int) -> nn.Sequential:
    half = nn.Conv2d(fine, coarse, 2, stride=2, bias=False)
    return nn.Sequential(_ResidualBlock(fine), _ResidualBlock(fine), half)


def _doubling(coarse: int, fine: int) -> nn.Sequential:
    twice = nn.ConvTranspose2d(coarse, fine, 2, stride=2, bias=False)
    return nn.Sequential(twice, _ResidualBlock(fine), _ResidualBlock(fine))


class _Denoiser(nn.Module):
    """Residual U-Net without biases that takes the noise level as a fourth channel."""

    def __init__(self) -> None:
        super().__init__()
        self.m_head = nn.Conv2d(4, 64, 3, padding=1, bias=False)
        self.m_down1 = _halving(64, 128)
        self.m_down2 = _halving(128, 256)
        self.m_down3 = _halving(256, 512)
        self.m_body = nn.Sequential(_ResidualBlock(512), _ResidualBlock(512))
        self.m_up3 = _doubling(512, 256)
        self.m_up2 = _doubling(256, 128)
        self.m_up1 = _doubling(128, 64)
        self.m_tail = nn.Conv2d(64, 3, 3, padding=1, bias=False)

    def steps(self, image: Tensor, level: Tensor, tile: int) -> Steps[Tensor]:
        """Denoise (B, 3, H, W) of noise `level` (B, 1, 1, 1), tile by tile."""
        height, width = image.shape[-2:]
        padded = F.pad(image, (0, -width % 8, 0, -height % 8), mode="replicate")
        x = torch.cat([padded, level.expand(-1, 1, *padded.shape[-2:])], dim=1)
        spans = [_spans(length, tile) for length in x.shape[-2:]]
        spots = [(rows, columns) for rows in spans[0] for columns in spans[1]]
        result = torch.empty_like(padded)
        for i, ((y0, y1), (x0, x1)) in enumerate(spots):
            top, left = max(0, y0 - _MARGIN), max(0, x0 - _MARGIN)
            cut = x[..., top : y1 + _MARGIN, left : x1 + _MARGIN]
            part = self._tile(cut.contiguous(memory_format=torch.channels_last))
            clean = yield from within(part, i / len(spots), (i + 1) / len(spots))
            result[..., y0:y1, x0:x1] = clean[..., y0 - top : y1 - top, x0 - left : x1 - left]
        return result[..., :height, :width]

    def _tile(self, x: Tensor) -> Steps[Tensor]:
        """One pass over (B, 4, h, w), with an event after each block of layers."""
        x = self.m_head(x)
        skips = []
        done, blocks = 0, 20
        for part in (self.m_down1, self.m_down2, self.m_down3, self.m_body):
            skips.append(x)
            for block in part:
                x = block(x)
                done += 1
                yield Progress("restore", done / blocks, "Denoising")
        for part in (self.m_up3, self.m_up2, self.m_up1):
            x = x + skips.pop()
            for block in part:
                x = block(x)
                done += 1
                yield Progress("restore", done / blocks, "Denoising")
        result: Tensor = self.m_tail(x + skips.pop())
        return result


class _HyperParameters(nn.Module):
    """The weights alpha, beta and gamma of the nine steps, each (B, 9, 1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Conv2d(2, 64, 1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 1),
            nn.ReLU(),
            nn.Conv2d(64, 3 * _STEPS, 1),
            nn.Softplus(),
        )

    def forward(self, sigma_and_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values: Tensor = self.mlp(sigma_and_scale) + 1e-6
        alpha, beta, gamma = values.split(_STEPS, dim=1)
        return alpha, beta, gamma


class RestorationNetwork(nn.Module):
    r"""From a blurry picture and its trajectory to the sharp picture: unrolled linearised ADMM.

    Eight rounds of

    .. math:: x &= D\big(x - \beta_i \tilde A^T (h - z + u), \gamma_i\big), \quad h = A x, \\
              z &= \frac{y + \alpha_i (h + u)}{1 + \alpha_i}, \quad u = u + h - z

    and the first of these lines once more, with one denoiser :math:`D` for all.
    :math:`\tilde A^T` is the blur with every offset negated, not the exact adjoint: the
    published weights were trained with it. (Laroche, Almansa and Tassano, *Deep model-based
    super-resolution with non-uniform blur*, WACV 2023.) 17.0 million parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.p = _Denoiser()
        self.h = _HyperParameters()

    def forward(
        self,
        image: Tensor,
        rotations: Tensor,
        intrinsics: Tensor,
        noise_level: float = _NOISE,
    ) -> Tensor:
        """Restore a batch of pictures.

        Parameters
        ----------
        image : Tensor
            Blurry, shape (B, 3, H, W) in [0, 1].
        rotations : Tensor
            Shape (B, T, 3), radians.
        intrinsics : Tensor
            ``K`` in pixels, shape (B, 3, 3).
        noise_level : float
            Standard deviation of the noise.

        Returns
        -------
        Tensor
            Shape (B, 3, H, W).
        """
        return run(self.steps(image, rotations, intrinsics, noise_level))

    def steps(
        self,
        image: Tensor,
        rotations: Tensor,
        intrinsics: Tensor,
        noise_level: float = _NOISE,
        tile: int = _TILE,
    ) -> Steps[Tensor]:
        """The work of `forward` as a generator of events of the stage ``"restore"``.

        `tile` bounds the memory: the result does not depend on it. The events after each
        step carry the first picture so far, reduced, shape (3, h, w).
        """
        height, width = image.shape[-2:]
        homographies = sampling_homographies(rotations, intrinsics, (height, width))
        alpha, beta, gamma = self.h(image.new_tensor([noise_level, 1.0]).reshape(1, 2, 1, 1))
        x = z = image
        h = batched_blur(x, homographies)
        u = torch.zeros_like(image)
        for i in range(_STEPS):
            a, b, c = (v[:, i : i + 1] for v in (alpha, beta, gamma))
            w = x - b * batched_blur(h - z + u, homographies, negated=True)
            message = f"Restoring: step {i + 1} of {_STEPS}"
            start, stop = i / _STEPS, (i + 1) / _STEPS
            denoising = self.p.steps(w, c.expand(len(w), -1, -1, -1), tile)
            x = yield from within(denoising, start, stop, message=message)
            yield Progress("restore", stop, message, preview_of(x[0].detach()))
            if i < _STEPS - 1:
                h = batched_blur(x, homographies)
                z = (image + a * (h + u)) / (1 + a)
                u = u + h - z
        return x


def _spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Even spans of about `tile` px, begun at multiples of 8, that cover [0, length)."""
    count = 1 if length <= tile + 2 * _MARGIN else math.ceil(length / tile)
    size = math.ceil(length / count / 8) * 8
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def _looking(fraction: float) -> Progress:
    return Progress("estimate", fraction, "Looking at the blur")


def load_trajectory_network(path: str | os.PathLike[str]) -> TrajectoryNetwork:
    """The trajectory network with the weights of a file, ready to be called, on the CPU.

    Raises
    ------
    WeightsError
        As `checkpoint.read_weights`.
    """
    return _load(TrajectoryNetwork, path, "authors' trajectory network")


def load_restoration_network(path: str | os.PathLike[str]) -> RestorationNetwork:
    """The restoration network with the weights of a file, ready to be called, on the CPU.

    Raises
    ------
    WeightsError
        As `checkpoint.read_weights`.
    """
    return _load(RestorationNetwork, path, "authors' restoration network")


def _load(kind: type[Network], path: str | os.PathLike[str], name: str) -> Network:
    with torch.device("meta"):  # no memory, no random numbers: the file's tensors take their place
        network = kind()
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    network.load_state_dict(read_weights(path, shapes, name), assign=True)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)


class OfficialModel:
    """Both networks, filled from a user's files: trajectory and sharp image of a picture.

    Parameters
    ----------
    weights : tuple of path
        Files of the trajectory network and of the restoration network.
    device : torch.device

    Attributes
    ----------
    description : list of str
        Names and hashes of the files, for the metadata of results.
    """

    def __init__(
        self, weights: tuple[str | os.PathLike[str], str | os.PathLike[str]], device: torch.device
    ) -> None:
        trajectory_file, restoration_file = weights
        self._trajectory = load_trajectory_network(trajectory_file).to(device)
        self._restoration = load_restoration_network(restoration_file).to(device)
        self.description = [_describe(Path(file)) for file in weights]

    def estimate_steps(self, image: Tensor, camera: Camera) -> Steps[Trajectory]:
        """Trajectory of a picture (1 or 3, H, W) in [0, 1]: centred, its poses in order.

        The network knows no time: the poses are put along the shortest path through them.
        """
        focal_length = image.new_tensor([camera.focal_length])
        steps = self._trajectory.steps(image.expand(3, -1, -1)[None], focal_length)
        rotations = (yield from steps)[0].cpu().double().numpy()
        return Trajectory.from_camera(rotations[shortest_path(rotations)], camera).centered()

    def restore_steps(
        self,
        image: Tensor,
        trajectory: Trajectory,
        noise: float | None = None,
        tile: int | None = None,
    ) -> Steps[Tensor]:
        """Sharp picture, like the blurry one (1 or 3, H, W), given the trajectory."""
        # Both stay on the CPU in float64: the homographies are made from them there.
        rotations = torch.tensor(trajectory.rotations)[None]
        intrinsics = torch.tensor(trajectory.camera.matrix)[None]
        steps = self._restoration.steps(
            image.expand(3, -1, -1)[None],
            rotations,
            intrinsics,
            _NOISE if noise is None else noise,
            tile or _TILE,
        )
        sharp = (yield from steps)[0]
        if len(image) == 1:
            sharp = sharp.mean(0, keepdim=True)
        return sharp.clamp(0, 1)


def _describe(file: Path) -> str:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return f"{file.name} (SHA-256 {digest[:12]})"
