"""Pairs a second of the training's synthesis beside the obvious way to make them.

    python benchmarks/synthesis.py --images FOLDER [--gyro FILE] [--workers 2]

Both make 256x256 RGB pairs with 25 poses from the same pictures and motions, in turns, so that
what else the machine does slows both. The obvious way makes all sampling positions of each
pose by a matrix product, samples all poses at once, and raises every pixel to its powers;
JPEG goes through Pillow.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from napari_blur2seq.shake import GyroscopeLog, simulate_tremor
from napari_blur2seq.training.motions import Motions
from napari_blur2seq.training.sharp import load_images, random_crops
from napari_blur2seq.training.synthesis import Synthesis

SIZE, POSES, MARGIN = 256, 25, 48


def obvious(images: list[Tensor], generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One pair, step by step."""
    side = SIZE + 2 * MARGIN
    image = random_crops(images, 1, side, generator)
    sharp = image / 255
    light = sharp**2.2
    trajectory = simulate_tremor(
        (side, side), n_poses=POSES, extent=20.0, seed=int(generator.integers(1 << 30))
    )
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1).float()
    inverse = torch.from_numpy(np.linalg.inv(trajectory.homographies)).float()
    moved = torch.einsum("tij,hwj->thwi", inverse, points)
    grid = moved[..., :2] / moved[..., 2:] / (side - 1) * 2 - 1
    frames = F.grid_sample(
        light.expand(POSES, -1, -1, -1), grid, padding_mode="reflection", align_corners=True
    )
    blurry = frames.mean(0, keepdim=True).clamp(max=1)
    blurry = blurry + 0.01 * blurry.sqrt() * torch.randn(blurry.shape)
    inner = slice(MARGIN, -MARGIN)
    blurry = (blurry.clamp(0, 1) ** (1 / 2.2) * 255).round().to(torch.uint8)[0, :, inner, inner]
    if generator.random() < 0.4:
        buffer = io.BytesIO()
        Image.fromarray(blurry.permute(1, 2, 0).numpy()).save(buffer, "jpeg", quality=85)
        blurry = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
    return sharp[0, :, inner, inner], blurry / 255


def rate(make: Callable[[int], object], workers: int, pairs: int) -> tuple[float, float]:
    """Pairs a second, and CPU milliseconds a pair, of workers that make `pairs` each."""
    start, spent = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(make, range(workers)))
    total = workers * pairs
    return total / (time.perf_counter() - start), 1e3 * (time.process_time() - spent) / total


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--gyro", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = load_images(arguments.images, 200)
    logs = [GyroscopeLog.load(arguments.gyro)] if arguments.gyro else []
    motions = Motions(logs, device=arguments.device)
    source = Synthesis(images, motions, size=SIZE, poses=POSES)
    sources = [source.reseeded(worker) for worker in range(arguments.workers)]
    generators = [np.random.default_rng(worker) for worker in range(arguments.workers)]
    pairs = 6

    def ours(worker: int) -> None:
        sources[worker].batch(pairs)
        if source.device.type == "cuda":
            torch.cuda.synchronize()

    def theirs(worker: int) -> None:
        with torch.inference_mode():
            for _ in range(pairs):
                obvious(images, generators[worker])

    rates: dict[str, list[tuple[float, float]]] = {"obvious": [], "synthesis": []}
    for _ in range(arguments.rounds + 1):
        for name, make in (("obvious", theirs), ("synthesis", ours)):
            rates[name].append(rate(make, arguments.workers, pairs))
    print(f"{arguments.workers} workers, {SIZE}x{SIZE}x3, {POSES} poses, on {source.device}")
    print("| | pairs/s, median | best | CPU ms a pair, median | best |\n|---|---|---|---|---|")
    for name, values in rates.items():
        speed, cost = np.array(values[1:]).T  # the first round warms up
        print(
            f"| {name} | {np.median(speed):.1f} | {speed.max():.1f} | "
            f"{np.median(cost):.1f} | {cost.min():.1f} |"
        )
    ratio = np.median([b[0] / a[0] for a, b in zip(*rates.values(), strict=True)][1:])
    print(f"median ratio of a round: {ratio:.2f}")


if __name__ == "__main__":
    main()
