"""The network from kernels to curves, and the fit to a kernel that starts from it.

    python benchmarks/kernel_curves.py --gyro FILE [--weights FILE] [--count 100]

Kernels of the last fifth of a gyroscope recording (the part that training leaves out), rendered
at their true size and spoilt as estimated kernels are (``training.kernels``); scattered specks are
removed as the estimator removes them. Path errors in px, and time.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from napari_blur2seq import Trajectory
from napari_blur2seq.camera import Camera
from napari_blur2seq.estimate import kernel_network
from napari_blur2seq.estimate.curve import to_trajectory
from napari_blur2seq.estimate.kernel_curve import kernel_curve
from napari_blur2seq.metrics import ordered_error, path_error
from napari_blur2seq.models import registry
from napari_blur2seq.progress import finish
from napari_blur2seq.shake import GyroscopeLog
from napari_blur2seq.training.kernels import divided, synthesise
from napari_blur2seq.training.motions import Motions

SIDE = 151
# So long a lens that rotations are shifts.
CAMERA = Camera(1e5, (0.0, 0.0), (1, 1))
POSES = 64


def cleaned(kernel: Tensor) -> Tensor:
    """Parts apart that hold less than a tenth left out, cut to what is left."""
    labels, count = ndimage.label((kernel > 0).numpy(), structure=np.ones((3, 3)))
    shares = ndimage.sum_labels(kernel.numpy(), labels, range(1, count + 1))
    least = min(0.1 * float(kernel.sum()), float(shares.max()))
    small = [i + 1 for i, share in enumerate(shares) if share < least]
    kernel = torch.where(torch.from_numpy(np.isin(labels, small)), 0.0, kernel)
    reach = int((kernel.nonzero() - SIDE // 2).abs().max()) + 1
    inner = slice(SIDE // 2 - reach, SIDE // 2 + reach + 1)
    return kernel[inner, inner] / kernel.sum()


def trajectory(coefficients: Tensor) -> Trajectory:
    """Of a curve; at rest if it is not finite."""
    if not coefficients.isfinite().all():
        coefficients = torch.zeros(1, 3)
    return to_trajectory(coefficients, CAMERA, POSES)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gyro", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="instead of those that are shipped")
    parser.add_argument("--count", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    if arguments.weights:
        network = kernel_network.KernelNetwork().eval()
        registry.fill(network, registry.read_weights(arguments.weights), "kernels")
        kernel_network._network = lambda: network
    _, held_out = divided([GyroscopeLog.load(arguments.gyro)])
    motions = Motions(held_out, tremor=False)
    batch = synthesise(
        motions,
        arguments.count,
        torch.Generator().manual_seed(99),
        regions=1,
        side=SIDE,
        true_size=True,
    )
    at_rest = Trajectory.zero((1, 1), POSES, CAMERA.focal_length)
    rows = []
    for kernel, path in zip(batch.kernels[:, 0], batch.paths[:, :, 0], strict=True):
        kernel = cleaned(kernel)
        x, y = path.unbind(1)
        truth = Trajectory.from_camera(torch.stack([-y, x, 0 * x], 1) / CAMERA.focal_length, CAMERA)
        begin = time.process_time()
        fitted = trajectory(finish(kernel_curve(kernel)))
        middle = time.process_time()
        curves, expected = kernel_network.network_curves([kernel])
        end = time.process_time()
        predicted = trajectory(curves[0])
        rows.append(
            [
                float(torch.cdist(path, path).max()),
                path_error(truth, at_rest),
                path_error(truth, fitted),
                path_error(truth, predicted),
                float(expected[0]),
                ordered_error(truth, fitted),
                ordered_error(truth, predicted),
                middle - begin,
                end - middle,
            ]
        )
    table = np.array(rows)
    print(
        "| extent px | n | at rest | fit | network | expected | fit, ordered | network, ordered |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for low, high in ((0, 5), (5, 15), (15, 30), (30, 60), (60, 1e3), (0, 1e3)):
        chosen = table[(table[:, 0] > low) & (table[:, 0] <= high)]
        if len(chosen):
            values = " | ".join(f"{v:.2f}" for v in np.median(chosen[:, 1:7], axis=0))
            label = f"{low} to {high:.0f}" if high < 1e3 else f"over {low}" if low else "all"
            print(f"| {label} | {len(chosen)} | {values} |")
    wins = np.mean(table[:, 2] < table[:, 3])
    print(f"medians; the fit is nearer in {wins:.0%}")
    certainty = np.corrcoef(np.log(table[:, 4]), np.log(table[:, 3]))[0, 1]
    print(f"correlation of the logarithms of expected and true error: {certainty:.2f}")
    print(f"CPU s a kernel: fit {table[:, 7].mean():.3f}, network {table[:, 8].mean():.4f}")


if __name__ == "__main__":
    main()
