"""How far estimated motions are from the true ones, and how well that is foretold.

    python benchmarks/certainty.py make --data folder --count 100 -o pairs.jsonl
    python benchmarks/certainty.py fit pairs.jsonl

``make`` shakes parts of ``folder/train/*.jpg`` and writes what the estimate says of its certainty
beside the true path error, before and after the refinement; an existing file is added to. ``fit``
prints the coefficients of `napari_blur2seq.estimate.certainty` that such files ask for. How often
the error of other pictures stays within the bound, ``bench.py --only quality`` prints.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import napari_blur2seq as b2s
from napari_blur2seq.camera import Camera
from napari_blur2seq.estimate.certainty import QUANTILE, signs
from napari_blur2seq.estimate.kernel_based import estimate_steps
from napari_blur2seq.estimate.refinement import refine_steps
from napari_blur2seq.images import to_working
from napari_blur2seq.metrics import path_error
from napari_blur2seq.progress import run
from napari_blur2seq.shake import GyroscopeLog, simulate_tremor

Pair = tuple[str, NDArray[np.uint8], b2s.Trajectory]


def shaken(data: Path, seeds: range) -> Iterator[Pair]:
    """Parts of pictures of the training folder, each shaken as its seed says."""
    from skimage.io import imread

    log = GyroscopeLog.load(data / "trajectories" / "phone_gyro_train.txt")
    files = sorted((data / "train").glob("*.jpg"))
    for seed in seeds:
        generator = np.random.default_rng([90, seed])
        path = files[generator.integers(len(files))]
        picture = imread(path)
        height, width = (min(int(generator.integers(240, 400)), n) for n in picture.shape[:2])
        top, left = (
            int(generator.integers(n - m + 1))
            for n, m in zip(picture.shape[:2], (height, width), strict=True)
        )
        sharp = picture[top : top + height, left : left + width]
        focal_length = width * 2 ** generator.uniform(-0.5, 3)
        extent = 0.0 if generator.random() < 0.1 else 2 ** generator.uniform(1, 5.3)
        if extent == 0:
            motion = b2s.Trajectory.zero(sharp.shape[:2], 25, focal_length)
        elif generator.random() < 0.5:
            motion = log.random_trajectory(
                generator,
                sharp.shape,
                exposure=generator.uniform(0.05, 0.3),
                focal_length=focal_length,
                extent=extent,
            )
        else:
            motion = simulate_tremor(
                sharp.shape, extent=extent, seed=seed, focal_length=focal_length, exposure=0.3
            )
        noise = 0.003 * 7 ** generator.random()
        yield f"{path.stem} {seed}", b2s.blur(sharp, motion, noise=noise, seed=seed), motion


def measured(pairs: Iterator[Pair], file: Path) -> None:
    """Write a line for each pair."""
    for name, blurry, motion in pairs:
        working, _ = to_working(blurry, False, None)
        image = torch.from_numpy(working)
        camera = Camera.for_image(working.shape[1:], motion.focal_length)
        estimate = run(estimate_steps(image, camera))
        still = b2s.Trajectory.zero(motion.image_shape, 25, motion.focal_length)
        row = {
            "name": name,
            "still_px": path_error(still, motion),
            "moves": estimate.moves,
            "error_px": path_error(estimate.trajectory, motion),
            **asdict(estimate.certainty),
        }
        if estimate.moves and estimate.certainty.expected_gain > 0:
            refined = run(refine_steps(image, estimate.trajectory)).trajectory
            row["refined_error_px"] = path_error(refined, motion)
        with file.open("a") as lines:
            lines.write(json.dumps(row) + "\n")


def fit(files: list[Path]) -> None:
    """Print the coefficients, by linear programming, and the share of errors below."""
    from scipy.optimize import linprog

    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    rows = [row for row in rows if row["moves"]]
    errors = np.log([max(row.get("refined_error_px", row["error_px"]), 0.05) for row in rows])
    table = np.array([signs(row["agreement"], row["extent"], row["field"]) for row in rows])
    count, terms = table.shape
    # Coefficients of either sign, and what the errors are above and below.
    above, below = np.eye(count), -np.eye(count)
    price = [0] * (2 * terms) + [QUANTILE] * count + [1 - QUANTILE] * count
    solved = linprog(price, A_eq=np.hstack([table, -table, above, below]), b_eq=errors)
    found = solved.x[:terms] - solved.x[terms : 2 * terms]
    print(f"{count} motions: coefficients {', '.join(f'{c:.2f}' for c in found)}")
    print(f"errors below the bound: {np.mean(errors <= table @ found + 1e-9):.0%}")
    print(f"median bound {np.exp(np.median(table @ found)):.2f} px, ", end="")
    print(f"median error {np.exp(np.median(errors)):.2f} px")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("--data", type=Path, required=True)
    making.add_argument("--count", type=int, default=100)
    making.add_argument("--first", type=int, default=0, help="seed of the first picture")
    making.add_argument("-o", "--output", type=Path, required=True)
    fitting = commands.add_parser("fit")
    fitting.add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args()
    with torch.no_grad():
        if arguments.command == "make":
            seeds = range(arguments.first, arguments.first + arguments.count)
            measured(shaken(arguments.data, seeds), arguments.output)
        else:
            fit(arguments.files)
