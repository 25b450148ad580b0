"""Training of the denoiser on sharp pictures alone."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..restoration.denoiser import Denoiser

MAX_SIGMA = 50 / 255
_SCORE_SIGMAS = (5 / 255, 15 / 255, 25 / 255, 50 / 255)


def load_images(folder: Path, limit: int | None = None) -> list[Tensor]:
    """Read every picture of a folder as uint8 tensors of shape (3, H, W)."""
    from skimage.io import imread

    suffixes = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
    paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in suffixes)[:limit]
    if not paths:
        raise FileNotFoundError(f"No PNG, JPEG or TIFF pictures in {folder}.")
    images = []
    for path in paths:
        array = np.asarray(imread(path))
        if array.dtype != np.uint8:
            array = (array / array.max() * 255).astype(np.uint8)
        if array.ndim == 2:
            array = np.repeat(array[..., None], 3, axis=2)
        images.append(torch.from_numpy(np.ascontiguousarray(array[..., :3].transpose(2, 0, 1))))
    return images


def sample_patches(
    images: Sequence[Tensor], count: int, size: int, generator: np.random.Generator
) -> Tensor:
    """Cut random square patches, flipped, turned, sometimes grey or reduced in size.

    Returns
    -------
    Tensor
        Shape ``(count, 3, size, size)``, float32 in [0, 1].
    """
    patches: list[Tensor] = []
    while len(patches) < count:
        image = images[int(generator.integers(len(images)))]
        if min(image.shape[-2:]) < size:
            continue
        scale = 1
        if generator.random() < 0.25 and min(image.shape[-2:]) >= 2 * size:
            scale = 2
        top = generator.integers(image.shape[-2] - scale * size + 1)
        left = generator.integers(image.shape[-1] - scale * size + 1)
        patch = image[:, top : top + scale * size, left : left + scale * size].float() / 255
        if scale == 2:  # finer detail than the picture itself has
            patch = torch.nn.functional.avg_pool2d(patch, 2)
        patch = torch.rot90(patch, int(generator.integers(4)), (1, 2))
        if generator.random() < 0.5:
            patch = patch.flip(2)
        choice = generator.random()
        if choice < 0.2:
            patch = patch.mean(0, keepdim=True).expand(3, -1, -1)
        elif choice < 0.35:  # microscopy and night scenes are darker than daylight
            patch = patch * generator.uniform(0.2, 1.0)
        patches.append(patch)
    return torch.stack(patches)


def add_noise(clean: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """White noise of a random level in [0, MAX_SIGMA]; equal in all channels of grey patches."""
    sigma = torch.from_numpy(generator.uniform(0, MAX_SIGMA, len(clean)).astype(np.float32))
    noise = torch.from_numpy(generator.standard_normal(tuple(clean.shape), dtype=np.float32))
    grey = (clean[:, :1] == clean).flatten(1).all(1)
    noise[grey] = noise[grey, :1].expand(-1, 3, -1, -1)
    return clean + sigma.view(-1, 1, 1, 1) * noise, sigma


@torch.no_grad()
def score(model: Denoiser, images: Sequence[Tensor]) -> list[float]:
    """Mean PSNR (dB) over the images at noise 5, 15, 25 and 50 of 255."""
    results = []
    for sigma in _SCORE_SIGMAS:
        generator = torch.Generator().manual_seed(0)
        values = []
        for image in images:
            clean = image[None, :, :256, :256].float() / 255
            noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
            error = (model(noisy, sigma).clamp(0, 1) - clean).square().mean().item()
            values.append(-10 * math.log10(error))
        results.append(float(np.mean(values)))
    return results


def train_denoiser(
    images: Path,
    output: Path,
    *,
    validation: Path | None = None,
    hours: float = 1.0,
    batch: int = 16,
    patch: int = 128,
    learning_rate: float = 6e-4,
    resume: bool = False,
    seed: int = 0,
    save_every: float = 300.0,
) -> Path:
    """Train the denoiser and write a checkpoint every few minutes.

    Parameters
    ----------
    images : Path
        Folder of sharp pictures.
    output : Path
        Folder for ``denoiser.pt`` (model, average, optimiser, progress) and
        ``denoiser.csv`` (scores over time).
    validation : Path, optional
        Folder of other sharp pictures for the score; the first 8 of `images` if not given.
    hours : float
        Wall-clock budget of the whole schedule, earlier parts included when resumed.
    resume : bool
        Continue from ``denoiser.pt``.

    Returns
    -------
    Path
        The checkpoint.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / "denoiser.pt"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    model = Denoiser().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = Denoiser().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average.load_state_dict(model.state_dict())
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, 0.99))
    done, step = 0.0, 0
    if resume and checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        done, step = state["seconds"], state["step"]
    generator = np.random.default_rng((seed, step))
    sharp = load_images(images)
    held_out = load_images(validation, 16) if validation else sharp[:8]
    budget = hours * 3600
    start = last = time.monotonic()
    while True:
        now = time.monotonic()
        fraction = (done + now - start) / budget
        if now - last > save_every or fraction >= 1:
            last = now
            state = {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "seconds": done + now - start,
                "step": step,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
            values = score(average.cpu() if device.type != "cpu" else average, held_out)
            average.to(device)
            with open(output / "denoiser.csv", "a", newline="") as file:
                csv.writer(file).writerow(
                    [f"{done + now - start:.0f}", step, *(f"{v:.3f}" for v in values)]
                )
            print(
                f"{done + now - start:7.0f} s  step {step}  "
                + "  ".join(f"{v:.2f}" for v in values),
                flush=True,
            )
            if fraction >= 1:
                return checkpoint
        warm = min(1.0, (step + 1) / 200)
        for group in optimiser.param_groups:
            group["lr"] = (
                learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fraction)))
            )
        clean = sample_patches(sharp, batch, patch, generator)
        noisy, sigma = add_noise(clean, generator)
        clean, noisy, sigma = clean.to(device), noisy.to(device), sigma.to(device)
        loss = (model(noisy, sigma) - clean).abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        decay = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            for a, b in zip(average.parameters(), model.parameters(), strict=True):
                a.lerp_(b, 1 - decay)
