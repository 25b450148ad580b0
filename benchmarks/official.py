"""The networks of Blur2seq's authors in our build: speed, memory, order of the poses.

    python benchmarks/official.py --only speed --side 512 --threads 2
    python benchmarks/official.py --only memory
    python benchmarks/official.py --only order --data folder

Speed and memory do not depend on the values of the weights, so they are random. *Plain* is
the same networks as they are usually written: the default memory format, residual blocks whose
results are new pictures, 25 dense grids made for each blur. Seconds of the processor, summed over
the threads, say less about what else the machine is doing than seconds of the clock.
``folder`` holds ``trajectories/samples/*.txt``, 25 poses each, in the order of time.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import napari_blur2seq as b2s
from napari_blur2seq.camera import Camera, rotation_matrices
from napari_blur2seq.models import official
from napari_blur2seq.ordering import shortest_path
from napari_blur2seq.shake import simulate_tremor

T = TypeVar("T")


def plain_blur(image: Tensor, rotations: Tensor, intrinsics: Tensor, negated: bool) -> Tensor:
    """Mean of the warps of one picture (1, C, H, W), one dense grid after the other."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1).to(image.dtype)
    size = image.new_tensor([width - 1, height - 1])
    result = torch.zeros_like(image)
    inverses = intrinsics @ rotation_matrices(rotations).mT @ torch.linalg.inv(intrinsics)
    for inverse in inverses[0].float():
        moved = points @ inverse.T
        positions = moved[..., :2] / moved[..., 2:]
        if negated:
            positions = 2 * points[..., :2] - positions
        grid = 2 * positions / size - 1
        result += F.grid_sample(image, grid[None], padding_mode="reflection", align_corners=True)
    return result / len(inverses[0])


def plain_block(block: official._ResidualBlock, x: Tensor) -> Tensor:
    """``x + conv(relu(conv(x)))``, nothing in place."""
    return x + block.res[2](F.relu(block.res[0](x)))


def plain_restore(
    network: official.RestorationNetwork, y: Tensor, rotations: Tensor, intrinsics: Tensor
) -> Tensor:
    """The restoration network as a plain loop; sides are multiples of 8."""
    p = network.p
    alpha, beta, gamma = network.h(torch.tensor([0.01, 1.0]).reshape(1, 2, 1, 1))
    x = z = y
    h = plain_blur(x, rotations, intrinsics, False)
    u = torch.zeros_like(y)
    for i in range(9):
        w = x - beta[:, i] * plain_blur(h - z + u, rotations, intrinsics, True)
        x1 = p.m_head(torch.cat([w, gamma[:, i].expand_as(w[:, :1])], 1))
        x2 = p.m_down1(x1)
        x3 = p.m_down2(x2)
        x4 = p.m_down3(x3)
        x = p.m_up1(p.m_up2(p.m_up3(p.m_body(x4) + x4) + x3) + x2)
        x = p.m_tail(x + x1)
        if i < 8:
            h = plain_blur(x, rotations, intrinsics, False)
            z = (y + alpha[:, i] * (h + u)) / (1 + alpha[:, i])
            u = u + h - z
    return x


def timed(function: Callable[[], T]) -> tuple[T, float, float]:
    """Result, seconds of the clock, seconds of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - clock, time.process_time() - processor


def speed(side: int) -> None:
    """Print our time and the plain one, and how far their results are apart."""
    torch.manual_seed(0)
    networks = official.TrajectoryNetwork().eval(), official.RestorationNetwork().eval()
    camera = Camera.for_image((side, side))
    rotations = torch.tensor(simulate_tremor((side, side), extent=20.0).rotations)[None]
    intrinsics = torch.tensor(camera.matrix)[None]
    focal_length = torch.tensor([camera.focal_length])
    image = torch.rand(1, 3, side, side)
    print(f"{side}x{side}x3, {torch.get_num_threads()} threads")
    print("| | clock s | processor s |\n|---|---|---|")
    results, processors, clocks = [], [], []
    ours = official._ResidualBlock.forward
    for name in ("plain", "ours"):
        if name == "ours":
            for network in networks:
                network.to(memory_format=torch.channels_last)
        restore = plain_restore if name == "plain" else official.RestorationNetwork.forward
        official._ResidualBlock.forward = plain_block if name == "plain" else ours  # type: ignore[method-assign]
        networks[0](image[..., :64, :64], focal_length)
        rows = (
            ("trajectory", lambda: networks[0](image, focal_length)),
            ("restoration", lambda f=restore: f(networks[1], image, rotations, intrinsics)),
        )
        total = np.zeros(2)
        for part, function in rows:
            result, clock, processor = timed(function)
            results.append(result)
            total += clock, processor
            print(f"| {name}, {part} | {clock:.1f} | {processor:.1f} |", flush=True)
        print(f"| **{name}** | {total[0]:.1f} | {total[1]:.1f} |", flush=True)
        clocks.append(total[0])
        processors.append(total[1])
    print(
        f"plain / ours: {clocks[0] / clocks[1]:.2f} by the clock, "
        f"{processors[0] / processors[1]:.2f} by the processor; largest difference of the "
        f"rotations {float((results[0] - results[2]).abs().max()):.1e}, of the pictures "
        f"{float((results[1] - results[3]).abs().max()):.1e}"
    )


def memory(height: int, width: int) -> None:
    """Print the peak memory of a process that deblurs a colour picture."""
    command = [sys.executable, __file__, "--peak", str(height), str(width)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(f"{width}x{height}x3, the denoiser on one tile a step: peak {output.split()[-1]} GiB")


def peak(height: int, width: int) -> None:
    """Deblur once and print this process's peak memory.

    All tiles are of one size and follow each other, so the denoiser works on the first tile
    of the first step only: the rest of 9 x 12 tiles would need as much memory, and an hour.
    """
    work, tiles = official._Denoiser._tile, []

    def first_only(self: official._Denoiser, x: Tensor) -> official.Steps[Tensor]:
        tiles.append(x.shape)
        if len(tiles) == 1:
            return (yield from work(self, x))
        return x[:, :3]

    official._Denoiser._tile = first_only  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "trajectory.pkl"), Path(folder, "restoration.pkl")
        torch.save(official.TrajectoryNetwork().state_dict(), weights[0])
        torch.save(official.RestorationNetwork().state_dict(), weights[1])
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        b2s.deblur(image, model="official", weights=weights)
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f}")


def order(data: Path, seeds: int = 5) -> None:
    """Print how many trajectories come back in order after their poses were shuffled."""
    files = sorted((data / "trajectories" / "samples").glob("*.txt"))
    perfect = 0
    for path in files:
        poses = np.loadtxt(path, delimiter=",")[:, 3:]
        right = []
        for seed in range(seeds):
            shuffled = np.random.default_rng(seed).permutation(len(poses))
            found = shuffled[shortest_path(poses[shuffled])]
            right.append(float((np.abs(np.diff(found)) == 1).mean()))
        perfect += min(right) == 1
        print(f"{path.stem}: neighbours right {min(right):.1%}")
    print(f"every neighbour right on {perfect} of {len(files)}, in each of {seeds} shuffles")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder for the order of the poses")
    parser.add_argument("--only", choices=["speed", "memory", "order"])
    parser.add_argument("--side", type=int, default=512, help="of the picture for the speed")
    parser.add_argument("--size", nargs=2, type=int, default=(3000, 4000), help="for the memory")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--peak", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with torch.inference_mode():
        if arguments.peak:
            peak(*arguments.peak)
            sys.exit()
        if arguments.only in (None, "speed"):
            speed(arguments.side)
        if arguments.only in (None, "memory"):
            memory(*arguments.size)
        if arguments.only == "order" or (arguments.only is None and arguments.data):
            order(arguments.data)
