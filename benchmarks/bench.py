"""The scores and speeds of the README: ``make bench DATA=folder``.

The folder holds ``dev_sharp/*.png`` (sharp pictures) and
``trajectories/phone_gyro_train.txt`` (a gyroscope recording). Each picture is shaken by
a random part of the recording (focal length = width, 1 % noise, 8 bits); PSNR and SSIM
are aligned (see ``napari_blur2seq.metrics``).
"""

from __future__ import annotations

import argparse
import io
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count as numbers
from itertools import cycle, pairwise, repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import napari_blur2seq as b2s
from napari_blur2seq.motion_blur import local_kernels
from napari_blur2seq.shake import GyroscopeLog, simulate_tremor

EXTENTS = (5, 10, 15, 8, 30, 12, 20, 40)
NOISE = 0.01
LARGEST = 640
LONG_LENS = 3900.0
LONG_LENS_EXTENTS = (12, 18, 25, 32, 40, 60, 80, 15)
LONGEST_LENS, LONGEST_EXTENTS = 3000.0, (70, 115, 75, 85, 130, 95, 100, 145)
GREY_EXTENTS = (11, 15, 19, 23, 12, 17, 21, 26)
JPEG_QUALITIES = (95, 85, 75, 90)


# Name, sharp picture, shaken picture and true trajectory.
Pairs = list[tuple[str, NDArray[np.uint8], NDArray[np.uint8], b2s.Trajectory]]


def pairs(data: Path, count: int | None) -> Pairs:
    """Pictures shaken by a recording, as through a phone's lens."""
    from skimage.io import imread

    log = GyroscopeLog.load(data / "trajectories" / "phone_gyro_train.txt")
    generator = np.random.default_rng(2510)
    made = []
    for i, path in enumerate(sorted((data / "dev_sharp").glob("*.png"))[:count]):
        sharp = imread(path)[:LARGEST, :LARGEST, :3]
        trajectory = log.random_trajectory(
            generator,
            sharp.shape,
            exposure=generator.uniform(0.05, 0.15),
            focal_length=sharp.shape[1],
            extent=EXTENTS[i % len(EXTENTS)],
        )
        blurry = b2s.blur(sharp, trajectory, noise=NOISE, seed=i)
        made.append((path.stem, sharp, blurry, trajectory))
    return made


def long_lens_pairs(data: Path, count: int | None) -> Pairs:
    """The same of larger pictures through a long lens, little noise, extents up to 80 px."""
    return _large_pairs(
        data,
        count,
        LONG_LENS,
        LONG_LENS_EXTENTS,
        generators=repeat(np.random.default_rng(7)),
        exposures=(0.1, 0.3),
        seed=11,
        recorded=1,
        poses=200,
    )


def long_blur_pairs(data: Path, count: int | None) -> Pairs:
    """The same shaken by 70 to 145 px."""
    return _large_pairs(
        data,
        count,
        LONGEST_LENS,
        LONGEST_EXTENTS,
        generators=map(np.random.default_rng, numbers(100)),
        exposures=(0.3, 0.6),
        seed=211,
        recorded=0,
        poses=300,
    )


def _large_pairs(
    data: Path,
    count: int | None,
    focal_length: float,
    extents: Sequence[int],
    *,
    generators: Iterable[np.random.Generator],
    exposures: tuple[float, float],
    seed: int,
    recorded: int,
    poses: int,
) -> Pairs:
    """Every other one, from number `recorded` on, shaken by the recording, others by tremor."""
    from skimage.io import imread

    log = GyroscopeLog.load(data / "trajectories" / "phone_gyro_train.txt")
    made = []
    paths = sorted((data / "dev_sharp").glob("sun*.png"))[:count]
    drawn = zip(paths, cycle(extents), generators, strict=False)
    for i, (path, extent, generator) in enumerate(drawn):
        sharp = imread(path)[..., :3]
        if i % 2 == recorded:
            trajectory = log.random_trajectory(
                generator,
                sharp.shape,
                exposure=generator.uniform(*exposures),
                focal_length=focal_length,
                extent=extent,
            )
        else:
            trajectory = simulate_tremor(
                sharp.shape,
                extent=extent,
                seed=i + seed,
                focal_length=focal_length,
                exposure=exposures[1],
            )
        trajectory = trajectory.resample(poses)
        blurry = b2s.blur(sharp, trajectory, noise=0.004, seed=i)
        made.append((path.stem, sharp, blurry, trajectory))
    return made


def grey_pairs(data: Path, count: int | None) -> Pairs:
    """The same of grey pictures of 255 x 255 px, blurred alike all over by simulated tremor."""
    from skimage.io import imread

    made = []
    for i, path in enumerate(sorted((data / "dev_sharp").glob("bsd*.png"))[:count]):
        sharp = imread(path)[20:275, 20:275, :3].mean(-1).round().astype(np.uint8)
        trajectory = simulate_tremor(
            sharp.shape,
            extent=GREY_EXTENTS[i % len(GREY_EXTENTS)],
            seed=i + 31,
            focal_length=20000.0,
            exposure=0.4,
        ).resample(200)
        blurry = b2s.blur(sharp, trajectory, noise=0.005, seed=i)
        made.append((path.stem, sharp, blurry, trajectory))
    return made


def compressed_pairs(data: Path, count: int | None) -> Pairs:
    """The first of these, from JPEG files as a phone writes them."""
    from PIL import Image

    made = []
    for i, (name, sharp, blurry, trajectory) in enumerate(pairs(data, count)):
        file = io.BytesIO()
        quality = JPEG_QUALITIES[i % len(JPEG_QUALITIES)]
        Image.fromarray(blurry).save(file, "JPEG", quality=quality)
        made.append((f"{name}, quality {quality}", sharp, np.asarray(Image.open(file)), trajectory))
    return made


def real_pairs(data: Path, count: int | None) -> Pairs:
    """Shaken photographs in JPEG files, with the poses that came with them."""
    from skimage.io import imread

    made = []
    folder = data / "dev_real" / "pairs"
    for path in sorted(folder.glob("blurry_*.jpg"))[:count]:
        number = path.stem.removeprefix("blurry_")
        blurry, sharp = imread(path), imread(folder / f"sharp_{number}.jpg")
        trajectory = b2s.Trajectory.load(
            folder / f"positions_{number}.txt", image_shape=blurry.shape[:2], focal_length=640.0
        )
        made.append((number, sharp, blurry, trajectory.centered()))
    return made


PAIRS = {
    "gyroscope": pairs,
    "long-lens": long_lens_pairs,
    "long-blur": long_blur_pairs,
    "grey": grey_pairs,
    "compressed": compressed_pairs,
    "real": real_pairs,
}


def classical(
    name: str, blurry: NDArray[np.uint8], trajectory: b2s.Trajectory
) -> NDArray[np.float64]:
    """A method of scikit-image with the true mean kernel, the same everywhere."""
    from skimage.restoration import richardson_lucy, unsupervised_wiener

    height, width = trajectory.image_shape
    kernel = local_kernels(trajectory, [[width / 2, height / 2]])[0]
    image = np.atleast_3d(blurry / 255.0)
    channels = []
    for c in range(image.shape[-1]):
        if name == "Richardson-Lucy":
            channels.append(richardson_lucy(image[..., c], kernel, num_iter=20))
        else:
            channels.append(unsupervised_wiener(image[..., c], kernel, rng=0)[0])
    return np.clip(np.stack(channels, -1), 0, 1).reshape(blurry.shape)


def quality(
    data: Path, count: int | None, which: str = "gyroscope", *, lens_known: bool = True
) -> None:
    """Print PSNR, SSIM and path error of every method; `deblur` may be told of the lens or not."""
    from napari_blur2seq.models import registry

    priors = ["sparse"] + (["learned"] if registry.available("restoration") else [])
    rows: list[dict[str, float]] = []
    names: list[str] = []
    for name, sharp, blurry, trajectory in PAIRS[which](data, count):
        pictures: dict[str, NDArray[np.generic]] = {"untouched": blurry}
        for method in ("Richardson-Lucy", "unsupervised Wiener"):
            pictures[f"{method}, true mean kernel"] = classical(method, blurry, trajectory)
        for prior in priors:
            pictures[f"restore, true trajectory, {prior}"] = b2s.restore(
                blurry, trajectory, prior=prior
            )
        # Grey pictures are blurred alike all over, as by no lens that could be told.
        focal_length = trajectory.focal_length if lens_known and which != "grey" else None
        first = b2s.deblur(blurry, focal_length=focal_length, refine=False)
        result = b2s.deblur(blurry, focal_length=focal_length)
        pictures["deblur without refinement"] = first.sharp
        pictures["deblur"] = result.sharp
        row = {"extent": trajectory.extent}
        for method, picture in pictures.items():
            scale = 255.0 if picture.dtype == np.uint8 else 1.0
            scores = b2s.metrics.aligned_scores(picture / scale, sharp / 255.0)
            row[method], row[f"{method} SSIM"] = scores.psnr, scores.ssim
        row["path error"] = b2s.metrics.path_error(trajectory, result.trajectory)
        row["bound"] = (result.metadata["certainty"] or {}).get("error_px") or np.nan
        zero = b2s.Trajectory.zero(trajectory.image_shape, 25, trajectory.focal_length)
        row["zero error"] = b2s.metrics.path_error(trajectory, zero)
        rows.append(row)
        names = list(pictures)
        oracle = f"restore, true trajectory, {priors[-1]}"
        print(
            f"{name:24s} extent {row['extent']:4.0f} px   untouched {row['untouched']:5.2f}   "
            f"oracle {row[oracle]:5.2f}   deblur {row['deblur']:5.2f}   path error "
            f"{row['path error']:5.2f} of {row['zero error']:5.2f} px, bound {row['bound']:5.2f}",
            flush=True,
        )
    for low, high in ((0, 15.5), (0, 30.5), (0, 1000)):
        chosen = [r for r in rows if low < r["extent"] <= high]
        if not chosen:
            continue
        title = f"extent up to {high:.0f} px" if high < 1000 else "all"
        print(f"\n{title} ({len(chosen)} pairs)")
        print("| method | PSNR dB | SSIM | gain dB | worst gain dB |\n|---|---|---|---|---|")
        for method in names:
            gains = [r[method] - r["untouched"] for r in chosen]
            print(
                f"| {method} | {np.mean([r[method] for r in chosen]):.2f} | "
                f"{np.mean([r[f'{method} SSIM'] for r in chosen]):.3f} | {np.mean(gains):+.2f} | "
                f"{min(gains):+.2f} |"
            )
        oracle_gain = np.mean([r[oracle] - r["untouched"] for r in chosen])
        share = np.mean([r["deblur"] - r["untouched"] for r in chosen]) / oracle_gain
        print(
            f"recovered gain {share:.0%}; median path error "
            f"{np.median([r['path error'] for r in chosen]):.2f} px "
            f"(zero motion {np.median([r['zero error'] for r in chosen]):.2f} px)"
        )
        bounds = np.array([r["bound"] for r in chosen])
        within = np.array([r["path error"] for r in chosen]) <= bounds
        print(
            f"path error within the stated bound (median {np.nanmedian(bounds):.2f} px): "
            f"{within.sum()} of {np.isfinite(bounds).sum()}"
        )


def disturbed(
    trajectory: b2s.Trajectory, px: float, generator: np.random.Generator
) -> b2s.Trajectory:
    """A trajectory with four slow waves more on each axis, so that its ordered error is `px`."""
    dense = trajectory.resample(64).centered()
    time = (np.arange(64) + 0.5) / 64
    orders = np.arange(1, 5)
    amounts = generator.standard_normal((4, 3)) / orders[:, None]
    waves = np.cos(np.pi * time[:, None] * orders) @ amounts / trajectory.focal_length

    def waved(factor: float) -> b2s.Trajectory:
        rotations = dense.rotations + factor * waves
        return b2s.Trajectory.from_camera(rotations, trajectory.camera).centered()

    low, high = 0.0, 20.0
    for _ in range(30):
        middle = (low + high) / 2
        if b2s.metrics.ordered_error(trajectory, waved(middle)) < px:
            low = middle
        else:
            high = middle
    return waved(high)


def refinement(data: Path, count: int | None) -> None:
    """Print what `refine` makes of true trajectories that were disturbed."""
    generator = np.random.default_rng(0)
    rows = []
    for name, sharp, blurry, trajectory in pairs(data, count):
        for px in (0.0, 1.0, 2.0, 3.0):
            start = disturbed(trajectory, px, generator)
            refined = b2s.refine(blurry, start)
            errors = [b2s.metrics.path_error(t, trajectory) for t in (start, refined)]
            scores = [
                b2s.metrics.aligned_scores(b2s.restore(blurry, t) / 255.0, sharp / 255.0).psnr
                for t in (start, refined)
            ]
            rows.append([px, *errors, *scores])
            print(f"{name} {px:.0f} px: " + " ".join(f"{v:.2f}" for v in rows[-1]), flush=True)
    table = np.array(rows)
    print(
        "| disturbed by, px | median path error, px | refined | median ratio | PSNR dB | refined |"
    )
    print("|---|---|---|---|---|---|")
    for px in (0.0, 1.0, 2.0, 3.0):
        chosen = table[table[:, 0] == px]
        before, after = np.median(chosen[:, 1:3], axis=0)
        ratio = np.median(chosen[:, 2] / chosen[:, 1].clip(1e-2))
        psnr = chosen[:, 3:].mean(0)
        print(
            f"| {px:.0f} | {before:.2f} | {after:.2f} | {ratio:.2f} | "
            f"{psnr[0]:.2f} | {psnr[1]:.2f} |"
        )


def tolerance(data: Path, count: int | None, priors: list[str]) -> None:
    """Print what priors make of true and of disturbed trajectories, as `deblur` restores."""
    import torch

    from napari_blur2seq.progress import run
    from napari_blur2seq.restoration import load_prior, restore_steps

    loaded = [load_prior(name, torch.device("cpu"))[0] for name in priors]
    generator = np.random.default_rng(0)
    amounts = (0.0, 1.0, 2.0)
    scores = []
    for name, sharp, blurry, trajectory in pairs(data, count):
        picture = torch.from_numpy(blurry.transpose(2, 0, 1).copy()).float() / 255
        for px in amounts:
            motion = disturbed(trajectory, px, generator) if px else trajectory
            row = []
            for prior in loaded:
                with torch.no_grad():
                    steps = restore_steps(
                        picture, motion, prior, trust="doubted" if px else "known"
                    )
                    restored = run(steps).permute(1, 2, 0).numpy()
                row.append(b2s.metrics.aligned_scores(restored, sharp / 255.0).psnr)
            scores.append(row)
            print(f"{name} {px:.0f} px: " + " ".join(f"{v:.2f}" for v in row), flush=True)
    table = np.array(scores).reshape(-1, len(amounts), len(priors))
    print("| disturbed by, px | " + " | ".join(f"{p}, PSNR dB" for p in priors) + " |")
    print("|---" * (len(priors) + 1) + "|")
    for px, row in zip(amounts, table.mean(0), strict=True):
        print(f"| {px:.0f} | " + " | ".join(f"{v:.2f}" for v in row) + " |")


def noise(data: Path, count: int | None, which: str) -> None:
    """Print by what factor levels of noise are told wrong: of the finest detail, and as used."""
    import torch

    from napari_blur2seq.restoration.half_quadratic import estimate_noise
    from napari_blur2seq.restoration.noise_level import noise_level

    rows = []
    for name, sharp, blurry, trajectory in PAIRS[which](data, count):
        clean = np.asarray(b2s.blur(sharp.astype(np.float32) / 255, trajectory))
        image, clean = (np.atleast_3d(p).astype(np.float32) for p in (blurry / 255.0, clean))
        # The formula of `noise_level`, away from the border and from what is saturated.
        error = np.where(image.max(2) < 0.985, (image - clean).mean(2), 0)[20:-20, 20:-20]
        height, width = (n // 2 * 2 for n in error.shape)
        coarse = error[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))
        true = 2 * np.sqrt(image.shape[2] * np.square(coarse).mean())
        tensor = torch.from_numpy(image).permute(2, 0, 1)
        rows.append([estimate_noise(tensor) / true, noise_level(tensor) / true])
        print(f"{name:24s} true {true:.4f}  finest {rows[-1][0]:.2f}  used {rows[-1][1]:.2f} of it")
    logs = np.log(rows)
    for title, mean, spread in zip(("finest", "used"), logs.mean(0), logs.std(0), strict=True):
        print(f"{title}: {np.exp(mean):.2f} of the true level, times or by {np.exp(spread):.2f}")


def timed(function: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def speed() -> None:
    """Print times side by side and peak memory of whole processes."""
    import torch
    import torch.nn.functional as F
    from skimage.data import astronaut
    from skimage.transform import resize

    from napari_blur2seq.motion_blur import MotionBlur

    print(f"\n{torch.get_num_threads()} threads")
    trajectory = simulate_tremor((1024, 1024), extent=20.0)
    image = torch.rand(1, 3, 1024, 1024)
    operator = MotionBlur(trajectory)
    y, x = torch.meshgrid(torch.arange(1024.0), torch.arange(1024.0), indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1)
    grids = []
    for homography in np.linalg.inv(trajectory.homographies):
        moved = points @ torch.tensor(homography, dtype=torch.float32).T
        grids.append((moved[..., :2] / moved[..., 2:] / 1023 * 2 - 1)[None])

    def bare() -> None:
        for grid in grids:
            F.grid_sample(image, grid, padding_mode="reflection", align_corners=True)

    with torch.inference_mode():
        operator(image), bare()
        forward, reference = timed(lambda: operator(image), 5), timed(bare, 5)
        adjoint = timed(lambda: operator.adjoint(image))
    print("| 1024x1024x3, 25 poses | seconds | ratio |\n|---|---|---|")
    print(f"| 25 bare grid_sample calls, ready-made grids | {reference:.3f} | 1 |")
    print(f"| forward | {forward:.3f} | {forward / reference:.2f} |")
    print(f"| adjoint | {adjoint:.3f} | {adjoint / reference:.2f} |")

    for side in (512, 800):
        sharp = (resize(astronaut(), (side, side), order=3) * 255).round().astype(np.uint8)
        trajectory = simulate_tremor(sharp.shape, extent=20.0, seed=3)
        blurry = b2s.blur(sharp, trajectory, noise=NOISE)
        for prior in ("sparse", "auto"):
            seconds = timed(lambda b=blurry, t=trajectory, p=prior: b2s.restore(b, t, prior=p), 2)
            print(f"| restore {side}x{side}x3, {prior} prior | {seconds:.1f} | |")
        for lens, focal_length in (("", None), (", wide lens given,", side)):
            for how, refine in ((" without refinement", False), ("", True)):
                deblur = partial(b2s.deblur, blurry, focal_length=focal_length, refine=refine)
                seconds = timed(deblur, 1)
                print(f"| deblur{lens}{how} {side}x{side}x3 | {seconds:.1f} | |", flush=True)


def memory() -> None:
    """Print the peak memory of whole processes."""
    print("| deblur, whole process | peak GiB |\n|---|---|")
    for height, width, channels in ((800, 800, 3), (3000, 4000, 1), (3000, 4000, 3)):
        command = [sys.executable, __file__, "--peak", str(height), str(width), str(channels)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(f"| {width}x{height}x{channels} | {float(output.split()[-1]):.2f} |", flush=True)


def peak(height: int, width: int, channels: int) -> None:
    """Deblur once and print this process's peak memory in GiB."""
    from skimage.data import astronaut
    from skimage.transform import resize

    sharp = resize(
        astronaut()[..., :channels].squeeze(), (height, width), order=1, anti_aliasing=False
    )
    sharp = (sharp * 255).astype(np.uint8)
    blurry = b2s.blur(sharp, simulate_tremor(sharp.shape, extent=20.0))
    del sharp
    b2s.deblur(blurry)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def event_loop(side: int) -> None:
    """Print how long the viewer's event loop is blocked while a picture is deblurred.

    A timer is to fire every 5 ms; the gaps between its firings beyond that are what a user
    feels. How long the viewer's thread computed in a gap does not depend on what else the
    machine does. The reference is one plain picture added by napari alone. How long the work goes
    on between two looks at whether it is cancelled is printed, too. Needs napari and a display.
    """
    import napari
    from qtpy.QtCore import QEventLoop, QTimer
    from skimage.data import astronaut
    from skimage.transform import resize

    from napari_blur2seq import pipeline
    from napari_blur2seq._qt.deblur_widget import DeblurWidget
    from napari_blur2seq.progress import Progress, mapped

    looks: list[tuple[float, str]] = []

    def looked(event: Progress) -> Progress:
        looks.append((time.perf_counter(), event.message))
        return event

    deblur_steps = pipeline.deblur_steps
    pipeline.deblur_steps = lambda *options: mapped(deblur_steps(*options), looked)
    sharp = (resize(astronaut(), (side, side), order=3) * 255).round().astype(np.uint8)
    blurry = b2s.blur(sharp, simulate_tremor(sharp.shape, extent=20.0, seed=3), noise=NOISE)
    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.add_image(blurry)
    widget = DeblurWidget(viewer)
    viewer.window.add_dock_widget(widget)
    loop = QEventLoop()

    def row(title: str, start: Callable[[], object]) -> str:
        fired: list[tuple[float, float]] = []
        timer = QTimer()
        timer.setInterval(5)
        timer.timeout.connect(lambda: fired.append((time.perf_counter(), time.thread_time())))
        timer.start()
        begin = time.perf_counter()
        QTimer.singleShot(50, start)
        loop.exec()
        seconds = time.perf_counter() - begin
        gaps, busy = 1e3 * np.diff(fired, axis=0).T
        return (
            f"| {title} | {gaps.max():.0f} | {busy.max():.0f} | "
            f"{np.quantile(gaps, 0.999):.0f} | {(gaps > 200).sum()} | {seconds:.0f} |"
        )

    def add_one() -> None:
        viewer.add_image(blurry)
        QTimer.singleShot(2000, loop.quit)

    QTimer.singleShot(2000, loop.quit)  # the viewer draws itself first
    loop.exec()
    rows = [row("napari adds a picture", add_one)]
    viewer.layers.pop()
    widget.done.connect(loop.quit)
    rows.append(row(f"deblur {side}x{side}x3", widget.run))
    print(f"{widget.stage.text()}")
    print("| event loop | longest ms | busy ms | 99.9 % ms | over 200 ms | s |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))
    steps = [(b[0] - a[0], a[1]) for a, b in pairwise(looks)]
    print(f"longest step before a look at Cancel: {max(steps)[0]:.2f} s, after {max(steps)[1]!r}")
    viewer.close()


def view() -> None:
    """Print how long the preview of an 800x600 view takes."""
    from skimage.data import astronaut
    from skimage.transform import resize

    from napari_blur2seq.pipeline import Options
    from napari_blur2seq.preview import preview_steps
    from napari_blur2seq.progress import run

    sharp = (resize(astronaut(), (600, 800), order=3) * 255).round().astype(np.uint8)
    blurry = b2s.blur(sharp, simulate_tremor(sharp.shape, extent=15.0, seed=3), noise=NOISE)
    run(preview_steps(blurry[:200, :200], 1.0, Options()))  # the imports are done once
    cpu = time.process_time()
    seconds = timed(lambda: run(preview_steps(blurry, 1.0, Options())), 3)
    cpu = (time.process_time() - cpu) / 3
    print("| preview of a view | s | CPU s |\n|---|---|---|")
    print(f"| 800x600x3 | {seconds:.1f} | {cpu:.1f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--pairs", choices=list(PAIRS), default="gyroscope")
    parser.add_argument("--images", type=int, help="only the first pictures")
    parser.add_argument(
        "--lens-unknown", action="store_true", help="for --only quality: no focal length is given"
    )
    parser.add_argument(
        "--only",
        choices=[
            "quality",
            "refinement",
            "tolerance",
            "noise",
            "speed",
            "memory",
            "eventloop",
            "view",
        ],
    )
    parser.add_argument(
        "--prior", action="append", help="for --only tolerance; may be given more than once"
    )
    parser.add_argument("--peak", nargs=3, type=int)
    arguments = parser.parse_args()
    if arguments.peak:
        peak(*arguments.peak)
        sys.exit()
    if arguments.only in (None, "quality"):
        lens_known = not arguments.lens_unknown
        quality(arguments.data, arguments.images, arguments.pairs, lens_known=lens_known)
    if arguments.only in (None, "refinement"):
        refinement(arguments.data, arguments.images)
    if arguments.only == "tolerance":
        tolerance(arguments.data, arguments.images, arguments.prior or ["auto"])
    if arguments.only in (None, "noise"):
        noise(arguments.data, arguments.images, arguments.pairs)
    if arguments.only in (None, "speed"):
        speed()
    if arguments.only in (None, "memory"):
        memory()
    if arguments.only in (None, "view"):
        view()
    if arguments.only == "eventloop":  # needs a display: .ci/with-display make bench ...
        event_loop(1024)
