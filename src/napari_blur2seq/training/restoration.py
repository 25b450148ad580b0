"""End-to-end training of the restoration: the denoiser within its steps.

What serves a known motion learns with true ones. What serves a doubted estimate learns with
motions that are not quite right: disturbed by slow waves, or read by the kernel network from a
kernel that was spoilt as estimated ones are. What a network is to bear must be in its training
(Yang et al., *Gyro-based neural single image deblurring*, arXiv 2404.00916), and no more: it
becomes cautious where it sees what no method could mend. So the waves are small beside the
motion, few pictures have a response, lights or JPEG, hardly any where the motion is known, and
what is near the border of a patch does not count. The loss is that of decibels, as the patches
hardest to restore would rule the mean of errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..estimate.curve import cosine_basis
from ..estimate.kernel_network import KernelNetwork, rasterise
from ..models.registry import load_kernel_network
from ..restoration.half_quadratic import LEAST_SIGMA, Trust
from ..restoration.noise_level import noise_level
from ..restoration.unrolled import UnrolledRestoration
from ..shake import GyroscopeLog
from .kernels import spoilt_kernels
from .motions import Motions, displacements
from .synthesis import Synthesis

MARGIN = 26
_EXTENT = 30.0
_POSES = 32
# Shares of the pairs without a camera's response, with too much light, and through JPEG.
_PAIRS: dict[Trust, dict[str, float]] = {
    "known": {"linear": 0.9, "overexposed": 0.05, "compressed": 0.3},
    "doubted": {"linear": 0.8, "overexposed": 0.15, "compressed": 0.4},
}
_WAVES = 4
# Root mean square of the waves, by the extent of the motion.
_DISTURBED = (0.005, 0.08)
# Shares of the batches with true motions, and with those that were read from spoilt kernels.
_TRUE, _READ = 0.5, 0.06
_SCORED_BY = 1.0
_MOST_NOISE = 1.5
# Border that a shifted patch knows nothing of, and that which the loss leaves out, px.
_EDGE, _BORDER = 4, 20
# Squared error below which less does not count.
_LEAST_ERROR = 1e-5


@dataclass(frozen=True)
class _Examples:
    """Patches and the motions that are true of them, displacements (B, T, 2) in px."""

    sharp: Tensor
    blurry: Tensor
    paths: Tensor
    sigma: Tensor


class RestorationTask:
    """The unrolled restoration, for `loop.train`.

    Parameters
    ----------
    images : sequence of Tensor
        Sharp pictures to learn from, uint8, shape (3, H, W).
    development : sequence of Tensor
        Others for the scores.
    recordings : sequence of GyroscopeLog
        For the motions, beside simulated tremor.
    batch : int
        Patches in a step.
    patch : int
        Their side, px.
    scored : int
        Patches of the development pictures that are scored.
    """

    name = "restoration"
    learning_rate = 5e-5
    autocast = True
    scores: tuple[str, ...] = (
        "PSNR dB, true motion",
        "blurry",
        "disturbed by 1 px",
        "read",
        "blurry, as a camera's files",
    )

    def __init__(
        self,
        images: Sequence[Tensor],
        development: Sequence[Tensor],
        recordings: Sequence[GyroscopeLog] = (),
        *,
        batch: int = 4,
        patch: int = 128,
        scored: int = 16,
    ) -> None:
        self._images, self._development = images, development
        self._recordings = recordings
        self._batch, self._patch, self._scored = batch, patch, scored

    def network(self) -> nn.Module:
        """A new network."""
        network = UnrolledRestoration()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def begin(self, seed: tuple[int, int], device: torch.device) -> None:
        """Set where pairs are drawn; make those that are scored, with their wrong motions."""
        self._device = device
        self._reader = load_kernel_network().to(device)
        motions = Motions(self._recordings, device=device)
        number = 1_000_003 * seed[0] + seed[1]
        self._generator = torch.Generator(device).manual_seed(number)
        self._sources = self._pairs(self._images, motions, 1 + number)
        fixed = torch.Generator(device).manual_seed(0)
        sources = self._pairs(self._development, motions, 0)
        self._examples = []
        for _ in range(0, self._scored, self._batch):
            plain, example = (_examples(sources[t], self._batch) for t in ("known", "doubted"))
            px = torch.full_like(example.sigma, _SCORED_BY)
            wrong = disturbed(example.paths, px, fixed)
            read = read_again(example.paths, self._reader, fixed)
            self._examples.append((plain, example, wrong, read))

    def _pairs(
        self, images: Sequence[Tensor], motions: Motions, seed: int
    ) -> dict[Trust, Synthesis]:
        return {
            trust: Synthesis(
                images,
                motions,
                size=self._patch,
                poses=_POSES,
                seed=seed,
                most=_EXTENT,
                uniform=True,
                **shares,
            )
            for trust, shares in _PAIRS.items()
        }

    def loss(self, network: nn.Module, share: float) -> Tensor:
        """Logarithm of the squared error to the sharp patch, moved to where the restored lies."""
        # All but the network itself wants all digits.
        exact = torch.autocast(self._device.type, enabled=False)
        with torch.no_grad(), exact:
            choice = float(torch.rand((), generator=self._generator, device=self._device))
            trust: Trust = "known" if choice < _TRUE else "doubted"
            example = _examples(self._sources[trust], self._batch)
            paths = example.paths
            if choice > 1 - _READ:
                paths = read_again(paths, self._reader, self._generator)
            elif trust == "doubted":
                low, high = _DISTURBED
                random = torch.rand(len(paths), generator=self._generator, device=paths.device)
                extents = (paths.amax(1) - paths.amin(1)).norm(dim=1)
                px = extents * low * (high / low) ** random
                paths = disturbed(paths, px, self._generator)
            kernels, sigma = _kernels(paths), example.sigma.clamp_min(LEAST_SIGMA)
        restored = network(example.blurry, kernels, sigma, trust=trust, margin=MARGIN).float()
        with exact:
            target = example.sharp
            if trust == "doubted":
                target = moved_onto(target, restored.detach())
        inner = (..., slice(_BORDER, -_BORDER), slice(_BORDER, -_BORDER))
        errors = (restored - target)[inner].square().mean((1, 2, 3))
        result: Tensor = (errors + _LEAST_ERROR).log().mean()
        return result

    @torch.no_grad()
    def score(self, network: nn.Module) -> list[float]:
        """Mean PSNR over the patches, with true and with wrong motions."""
        results = []
        for plain, example, wrong, read in self._examples:
            pictures = [
                (_restored(network, plain, plain.paths, "known"), plain),
                (plain.blurry, plain),
                (_restored(network, example, wrong, "doubted"), example),
                (_restored(network, example, read, "doubted"), example),
                (example.blurry, example),
            ]
            results.append(torch.stack([_psnr(p.clamp(0, 1), e.sharp) for p, e in pictures]))
        values: list[float] = torch.cat(results, 1).mean(1).tolist()
        return values


def _examples(source: Synthesis, count: int) -> _Examples:
    pairs = source.batch(count)
    middle = torch.zeros(count, 1, 2, device=pairs.sharp.device)
    paths = displacements(pairs.rotations, middle, pairs.focal_length)[:, :, 0]
    levels = torch.tensor([noise_level(picture) for picture in pairs.blurry]).to(pairs.noise)
    # Fine texture all over a patch looks like noise; all over a picture there is none.
    most = _MOST_NOISE * pairs.noise + LEAST_SIGMA
    levels = torch.where(pairs.compressed, levels, torch.minimum(levels, most))
    paths = paths - paths.mean(1, keepdim=True)
    return _Examples(pairs.sharp, pairs.blurry, paths, levels)


def _kernels(paths: Tensor) -> Tensor:
    weights = paths.new_full(paths.shape[:2], 1 / paths.shape[1])
    paths = paths.clamp(1 - MARGIN, MARGIN - 1)
    return rasterise(paths, weights, paths.new_ones(len(paths)), 2 * MARGIN + 1)


def _restored(network: nn.Module, example: _Examples, paths: Tensor, trust: Trust) -> Tensor:
    kernels, sigma = _kernels(paths), example.sigma.clamp_min(LEAST_SIGMA)
    restored: Tensor = network(example.blurry, kernels, sigma, trust=trust, margin=MARGIN)
    return restored


def disturbed(paths: Tensor, px: Tensor, generator: torch.Generator) -> Tensor:
    """Paths with a few slow waves more, whose root mean square is `px`.

    Parameters
    ----------
    paths : Tensor
        Shape (B, T, 2), px.
    px : Tensor
        Shape (B,).
    generator : torch.Generator

    Returns
    -------
    Tensor
        Shape (B, T, 2).
    """
    orders = torch.arange(1, _WAVES + 1, device=paths.device)[:, None]
    amounts = torch.randn(len(paths), _WAVES, 2, generator=generator, device=paths.device)
    waves = cosine_basis(paths.shape[1], _WAVES).to(paths) @ (amounts / orders)
    size = waves.square().sum(2).mean(1).sqrt()
    return paths + (px / size)[:, None, None] * waves


@torch.no_grad()
def read_again(paths: Tensor, reader: KernelNetwork, generator: torch.Generator) -> Tensor:
    """What the kernel network makes of the paths' kernels once they are spoilt; (B, T, 2) in px."""
    rasters, scale = spoilt_kernels(paths, generator)
    count = len(paths)
    places = paths.new_zeros(count, 1, 2)
    known = torch.ones(count, 1, dtype=torch.bool, device=paths.device)
    curves, errors = reader(rasters[:, None], places, scale, known)
    best = curves[torch.arange(count), errors.argmin(1)] * scale[:, None, None]
    # Yaw moves the picture along +x, pitch along -y.
    basis = cosine_basis(paths.shape[1], best.shape[1]).to(best)
    return basis @ torch.stack([best[..., 1], -best[..., 0]], -1)


@torch.no_grad()
def moved_onto(sharp: Tensor, restored: Tensor, rounds: int = 2) -> Tensor:
    """Sharp patches (B, C, H, W) shifted to where they fit the restored ones best (Gauss-Newton).

    A wrong motion restores the scene at another place, which is no error.
    """
    height, width = sharp.shape[-2:]
    identity = torch.eye(2, 3, device=sharp.device).expand(len(sharp), 2, 3)
    half = sharp.new_tensor([2 / width, 2 / height])
    inner = (..., slice(_EDGE, -_EDGE), slice(_EDGE, -_EDGE))
    shift = sharp.new_zeros(len(sharp), 2)
    moved = sharp
    for _ in range(rounds):
        dy, dx = torch.gradient(moved, dim=(-2, -1))
        slopes = torch.stack([dx[inner], dy[inner]], 1).flatten(2)
        missing = (restored - moved)[inner].flatten(1)
        normal = slopes @ slopes.transpose(1, 2) + 1e-3 * torch.eye(2, device=sharp.device)
        shift = shift + torch.linalg.solve(normal, slopes @ missing[..., None])[..., 0]
        shift = shift.clamp(-_EDGE + 1, _EDGE - 1)
        theta = torch.cat([identity[..., :2], (shift * half)[..., None]], 2)
        grid = F.affine_grid(theta, list(sharp.shape), align_corners=False)
        moved = F.grid_sample(sharp, grid, "bicubic", "border", align_corners=False)
    return moved


def _psnr(picture: Tensor, sharp: Tensor) -> Tensor:
    """In dB, shape (B,), once aligned and without the edge."""
    inner = (..., slice(2 * _EDGE, -2 * _EDGE), slice(2 * _EDGE, -2 * _EDGE))
    error = (moved_onto(picture, sharp) - sharp)[inner].square().flatten(1).mean(1)
    return -10 / math.log(10) * error.clamp_min(1e-6).log()
