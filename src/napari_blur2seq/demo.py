"""The demonstration: two pictures that scikit-image ships, deblurred."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import batch, files, metrics, pipeline, shake
from .plots import side_by_side, trajectory_plot
from .progress import Progress, run
from .trajectory import Trajectory

Array = NDArray[Any]

# Name and what it is.
CASES = {
    "clock": "a photograph of a clock, really shaken",
    "coffee": "a photograph of a cup of coffee, shaken by simulated hand tremor",
}

_EXTENT = 12.0
_NOISE = 0.01
_SEED = 7


def clock() -> Array:
    """Photograph by a shaken camera (Stefan van der Walt, public domain), (300, 400), uint8."""
    return _shipped("clock")


def shaken_coffee() -> tuple[Array, Trajectory, Array]:
    """Colour photograph (Rachel Michetti, CC0) blurred by simulated tremor.

    Returns
    -------
    blurry : ndarray
        Shape (400, 600, 3), uint8.
    trajectory : Trajectory
        The true motion.
    sharp : ndarray
        The original.
    """
    sharp = _shipped("coffee")
    trajectory = shake.simulate_tremor(sharp.shape, extent=_EXTENT, seed=_SEED)
    blurry = pipeline.blur(sharp, trajectory, noise=_NOISE, seed=_SEED)
    return blurry, trajectory, sharp


def _shipped(name: str) -> Array:
    """A picture inside the scikit-image package: nothing is downloaded."""
    from skimage import data

    result: Array = np.asarray(getattr(data, name)())
    return result


def run_demo(
    folder: Path, device: str, start: Callable[[str], Callable[[Progress], object]]
) -> list[str]:
    """Deblur both pictures into a folder that exists, and say in lines what is where.

    `start` takes the name of a picture and returns where its progress goes.
    """
    lines = []
    options = pipeline.Options(device=device)
    for name, about in CASES.items():
        truth: Trajectory | None = None
        if name == "clock":
            blurry = clock()
        else:
            blurry, truth, original = shaken_coffee()
        source = folder / f"{name}.png"
        files.write_image(source, blurry)
        steps = batch.deblur_file(source, folder, name, options, batch.Outputs(mp4=True))
        run(steps, start(source.name))
        sharp, _ = files.read_image(folder / f"{name}_sharp.png")
        pictures = {"in": blurry, "out": sharp}
        lines += [f"{name}: {about}", f"  blurry picture      {source}"]
        if truth is not None:
            pictures["original"] = original
            files.write_image(folder / f"{name}_original.png", original)
            truth.save(folder / f"{name}_true_trajectory.csv")
            files.write_whole(
                folder / f"{name}_true_trajectory.png", trajectory_plot(truth, blurry)
            )
        files.write_whole(folder / f"{name}_before_after.png", side_by_side(pictures))
        for what, ending in {
            "sharp picture": "_sharp.png",
            "before and after": "_before_after.png",
            "trajectory": "_trajectory.csv",
            "its plot": "_trajectory.png",
            "sequence": "_sequence.ome.tif",
            "as video": "_sequence.mp4",
            "metadata": "_metadata.json",
        }.items():
            lines.append(f"  {what:<19} {folder / (name + ending)}")
        found = Trajectory.load(folder / f"{name}_trajectory.csv")
        if not found.extent:
            lines.append("  No motion was found that would make it better: it comes back as it is.")
        if truth is not None:
            still = Trajectory.zero(truth.image_shape, len(truth))
            before = metrics.aligned_scores(blurry, original)
            after = metrics.aligned_scores(sharp, original)
            lines += [
                f"  the truth           {folder / f'{name}_original.png'}, "
                f"{folder / f'{name}_true_trajectory.csv'}",
                f"  PSNR, aligned       {before.psnr:.2f} dB before, {after.psnr:.2f} dB after",
                f"  SSIM, aligned       {before.ssim:.3f} before, {after.ssim:.3f} after",
                f"  path error          {metrics.path_error(truth, found):.2f} px "
                f"({metrics.path_error(truth, still):.2f} px if no motion is assumed)",
            ]
    return lines
