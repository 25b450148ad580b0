"""The command `napari-blur2seq`.

Exit codes: 0 if everything went well; 1 if a file failed while it was worked on; 2 if an
option or an input is wrong, also when other files went well or failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from rich.console import Console

# Everything heavy is imported by the commands: `--help` needs none of it.
if TYPE_CHECKING:
    from .pipeline import Options
    from .progress import Progress

FAILED = 1
BAD_INPUT = 2

app = typer.Typer(
    name="napari-blur2seq",
    help="Sharp image, camera trajectory and frame sequence from one picture blurred by shake.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)
_console = Console(highlight=False, soft_wrap=True)
_errors = Console(stderr=True, highlight=False, soft_wrap=True)

FocalLength = Annotated[
    float | None,
    typer.Option(
        help="Focal length in px; by default the file's EXIF tells it, or what is deblurred tells "
        "whether the lens is wide; else the longer side is used."
    ),
]
Linear = Annotated[
    bool, typer.Option("--linear", help="Decode sRGB first: blur adds up in linear light.")
]
Noise = Annotated[
    float | None,
    typer.Option(help="Standard deviation of the noise, white being 1; estimated by default."),
]
NoiseModel = Annotated[
    str, typer.Option(help="white, or poisson: noise of counted photons, grows with light.")
]
ValueRange = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="BLACK WHITE",
        help="Values that stand for black and white, 0 4095 say; by default the picture tells.",
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]
Prior = Annotated[
    str, typer.Option(help="auto, learned, sparse, or a .safetensors file of your training.")
]
SequenceFile = Annotated[bool, typer.Option(help="Write the frames as OME-TIFF.")]
VideoFile = Annotated[bool, typer.Option("--mp4", help="Write the frames as video, too.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]


def main() -> None:
    """Entry point."""
    app()


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        from . import __version__

        _console.print(f"napari-blur2seq {__version__}")
        raise typer.Exit


@app.command()
def deblur(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IN...", help="PNG, JPEG or TIFF files, folders of them, or quoted patterns."
        ),
    ],
    output: Output,
    refine: Annotated[
        bool | None,
        typer.Option(
            "--refine/--no-refine",
            help="Refine the estimated trajectory; by default, that of the built-in model.",
            show_default=False,
        ),
    ] = None,
    focal_length: FocalLength = None,
    device: Device = "auto",
    poses: Annotated[
        int, typer.Option(help="Poses of the trajectory, frames of the sequence.")
    ] = 25,
    noise: Noise = None,
    noise_model: NoiseModel = "white",
    value_range: ValueRange = None,
    linear: Linear = False,
    model: Annotated[
        str, typer.Option(help="built-in, or official: the networks of Blur2seq's authors.")
    ] = "built-in",
    weights: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="TRAJECTORY RESTORATION", help="The two checkpoint files of the official model."
        ),
    ] = None,
    prior: Prior = "auto",
    estimator: Annotated[
        str,
        typer.Option(help="auto, kernels, network, or a .safetensors file of your training."),
    ] = "auto",
    seed: Seed = 0,
    sequence: SequenceFile = True,
    mp4: VideoFile = False,
) -> None:
    """Deblur pictures.

    For each picture NAME.EXT, the folder gets NAME_sharp.EXT, NAME_trajectory.csv and
    .png, NAME_sequence.ome.tif and NAME_metadata.json. A file that fails does not stop
    the others. Exit code: 0 if all went well, 2 if an option or an input is wrong,
    otherwise 1.
    """
    from . import batch
    from .pipeline import Options
    from .progress import run

    with _bad_input():
        options = Options(
            focal_length=focal_length,
            n_poses=poses,
            refine=refine,
            noise=noise,
            noise_model=cast(Any, noise_model),
            value_range=value_range,
            linear=linear,
            model=cast(Any, model),  # checked by Options
            weights=weights,
            prior=prior,
            estimator=estimator,
            device=device,
            seed=seed,
        )
        _check(options)
        _make_folder(output)
    paths, missing = batch.find_pictures(inputs)
    code = 0
    for error in missing:
        _say_error(str(error))
        code = BAD_INPUT
    outputs = batch.Outputs(sequence=sequence, mp4=mp4)
    with _progress_bar(len(paths)) as start:
        for path, name in zip(paths, batch.output_names(paths), strict=True):
            report = start(path.name)
            steps = batch.deblur_file(path, output, name, options, outputs)
            code = max(code, _attempt(path.name, partial(run, steps, report)))
    if code:
        raise typer.Exit(code)


@app.command()
def refine(
    picture: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="A blurry PNG, JPEG or TIFF file.")
    ],
    trajectories: Annotated[
        list[Path],
        typer.Argument(
            metavar="TRAJECTORY...",
            help="Trajectory files, nearly right; of several, the one that leads to the best.",
        ),
    ],
    output: Output,
    steps: Annotated[int, typer.Option(help="At most so many; less where they do not pay.")] = 90,
    seconds: Annotated[
        float | None,
        typer.Option(help="At most about so many for the refinement; then not always the same."),
    ] = None,
    fit_focal_length: Annotated[
        bool,
        typer.Option(
            "--fit-focal-length", help="Try other focal lengths, from half to four times as long."
        ),
    ] = False,
    focal_length: FocalLength = None,
    device: Device = "auto",
    noise: Noise = None,
    noise_model: NoiseModel = "white",
    value_range: ValueRange = None,
    linear: Linear = False,
    prior: Prior = "auto",
    sequence: SequenceFile = True,
    mp4: VideoFile = False,
) -> None:
    """Make a trajectory that is nearly right better, and restore the picture with it.

    The folder gets the same files as from `deblur`; the metadata hold the objective of every
    step that was kept. A focal length is for trajectory files that do not state one.
    """
    from . import batch, files
    from .pipeline import Options
    from .progress import run
    from .trajectory import Trajectory

    with _bad_input():
        options = Options(
            steps=steps,
            seconds=seconds,
            fit_focal_length=fit_focal_length,
            focal_length=focal_length,
            noise=noise,
            noise_model=cast(Any, noise_model),  # checked by Options
            value_range=value_range,
            linear=linear,
            prior=prior,
            device=device,
        )
        _check(options)
        _make_folder(output)

    def work(report: Callable[[Progress], None]) -> None:
        image, metadata = files.read_image(picture)
        focal = metadata["focal_length"] if focal_length is None else focal_length
        shape = image.shape[0], image.shape[1]
        starts = [
            Trajectory.load(file, focal_length=focal, image_shape=shape) for file in trajectories
        ]
        chosen = replace(options, n_poses=max(len(start) for start in starts))
        (name,) = batch.output_names([picture])
        outputs = batch.Outputs(sequence=sequence, mp4=mp4)
        run(batch.deblur_file(picture, output, name, chosen, outputs, starts), report)

    with _progress_bar(1) as start:
        code = _attempt(picture.name, partial(work, start(picture.name)))
    if code:
        raise typer.Exit(code)


@app.command()
def blur(
    picture: Annotated[Path, typer.Argument(metavar="IN", help="A sharp PNG, JPEG or TIFF file.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder, or name of the picture to write."),
    ],
    exposure: Annotated[float, typer.Option(help="Exposure time in s.")] = 0.1,
    amplitude: Annotated[
        float, typer.Option(help="Root mean square of the camera's angular velocity in rad/s.")
    ] = 0.15,
    extent: Annotated[
        float | None, typer.Option(help="Scale the motion to this extent in px.")
    ] = None,
    trajectory: Annotated[
        Path | None, typer.Option(help="Use the motion of this trajectory file.")
    ] = None,
    poses: Annotated[int, typer.Option(help="Poses of the simulated motion.")] = 25,
    focal_length: FocalLength = None,
    noise: Annotated[
        float, typer.Option(help="Standard deviation of noise to add, white being 1.")
    ] = 0.0,
    linear: Linear = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Shake a sharp picture.

    Writes NAME_blurry.EXT, NAME_blurry_trajectory.csv and .png. The motion is a
    simulated hand tremor unless a trajectory file is given.
    """
    from . import devices, files, pipeline, shake
    from .errors import TrajectoryError
    from .plots import trajectory_plot
    from .trajectory import Trajectory

    def work() -> None:
        devices.resolve(device)
        _check_noise(noise)
        image, metadata = files.read_image(picture)
        focal = metadata["focal_length"] if focal_length is None else focal_length
        if trajectory is None:
            motion = shake.simulate_tremor(
                image.shape,
                exposure=exposure,
                amplitude=amplitude,
                focal_length=focal,
                n_poses=poses,
                extent=extent,
                seed=seed,
            )
        else:
            motion = Trajectory.load(
                trajectory, focal_length=focal, image_shape=(image.shape[0], image.shape[1])
            )
            if motion.image_shape != image.shape[:2]:
                height, width = motion.image_shape
                raise TrajectoryError(
                    f"{trajectory.name} belongs to pictures of {width} x {height} px, "
                    f"but {picture.name} has {image.shape[1]} x {image.shape[0]} px."
                )
            if extent is not None:
                motion = shake.with_extent(motion, extent)
        blurry = pipeline.blur(image, motion, linear=linear, noise=noise, seed=seed, device=device)
        if output.suffix.lower() in files.SUFFIXES:
            target = output
            _make_folder(output.parent)
        else:
            stem, suffix = files.split_name(picture)
            target = output / f"{stem}_blurry{suffix}"
            _make_folder(output)
        plot = trajectory_plot(motion, blurry)
        files.write_image(target, blurry, metadata)
        stem = files.split_name(target)[0]
        motion.save(target.with_name(f"{stem}_trajectory.csv"))
        files.write_whole(target.with_name(f"{stem}_trajectory.png"), plot)
        _console.print(f"{target}: shaken by {motion.extent:.1f} px", markup=False)

    code = _attempt(picture.name, work)
    if code:
        raise typer.Exit(code)


@app.command()
def demo(
    output: Output = Path("demo-output"),
    device: Device = "auto",
) -> None:
    """Deblur a really shaken photograph and a synthetically shaken colour picture."""
    from .demo import CASES, run_demo

    with _bad_input():
        from . import devices

        devices.resolve(device)
        _make_folder(output)
    with _progress_bar(len(CASES)) as start:
        lines: list[str] = []
        code = _attempt("demo", lambda: lines.extend(run_demo(output, device, start)))
    for line in lines:
        _console.print(line, markup=False)
    if code:
        raise typer.Exit(code)


class Network(StrEnum):
    """What `train` can train."""

    denoiser = "denoiser"
    restoration = "restoration"
    noise = "noise"
    kernels = "kernels"
    trajectory = "trajectory"
    judge = "judge"
    exact = "exact"


@app.command()
def train(
    network: Annotated[
        Network,
        typer.Argument(
            help="denoiser: the learned prior of the restoration; restoration: the same within "
            "its steps, end to end; noise: how much of it a picture has; kernels: from blur "
            "kernels to the trajectory; trajectory: from a picture to the trajectory; judge: which "
            "of several trajectories to believe; exact: the same for pictures restored as a whole."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for checkpoints, scores and weights.")
    ],
    images: Annotated[
        Path | None, typer.Option(help="Folder of sharp pictures (PNG, JPEG or TIFF).")
    ] = None,
    development: Annotated[
        Path | None,
        typer.Option(help="Folder of other sharp pictures for the scores; some of --images else."),
    ] = None,
    gyro: Annotated[
        list[Path] | None,
        typer.Option(help="Gyroscope recording; may be given more than once."),
    ] = None,
    hours: Annotated[float, typer.Option(help="Of the whole training.")] = 1.0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue in the same folder.")] = False,
    start: Annotated[
        str | None,
        typer.Option(help="Weights to begin with: a .safetensors file, or 'shipped'."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Train a network, or fine-tune it on pictures of your own.

    Writes NAME.pt every few minutes to resume from, NAME.csv and NAME.png with the scores, and
    NAME.safetensors at the end.
    """
    from . import devices
    from .models import registry
    from .training.loop import train as run_training
    from .training.tasks import make_task

    def work() -> None:
        target = devices.resolve(device)
        task = make_task(
            network.value, images=images, development=development, recordings=gyro or ()
        )
        weights = None
        if start is not None:
            weights = registry.weights_to_start(network.value, start)
        _make_folder(output)
        written = run_training(
            task,
            output,
            hours=hours,
            resume=resume,
            start=weights,
            device=target,
            seed=seed,
            report=lambda line: _console.print(line, markup=False),
        )
        _console.print(f"{written}: the weights", markup=False)

    code = _attempt(f"training the {network.value}", work)
    if code:
        raise typer.Exit(code)


def _check(options: Options) -> None:
    """Say what is wrong with the options before any file is opened."""
    from . import devices
    from .camera import Camera
    from .errors import OptionError

    devices.resolve(options.device)
    Camera.for_image((1, 1), options.focal_length)
    for file in options.weights or ():
        if not Path(file).is_file():
            raise OptionError(f"There is no file {file}; give the checkpoint's name.")


def _check_noise(noise: float) -> None:
    from .errors import OptionError

    if not 0 <= noise < 1:
        raise OptionError(f"--noise must be at least 0 and less than 1, not {noise:g}.")


def _make_folder(folder: Path) -> None:
    from .errors import OptionError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(
            f"The folder {folder} cannot be made ({error.strerror}); choose another."
        ) from error


def _attempt(name: str, work: Callable[[], object]) -> int:
    """Do the work; say what went wrong, if anything, and return the exit code."""
    from .errors import Blur2SeqError

    try:
        work()
    except Blur2SeqError as error:
        message = str(error)
        _say_error(message if name in message else f"{name}: {message}")
        return BAD_INPUT
    except OSError as error:
        _say_error(f"{name}: {error.strerror or error}")
        return FAILED
    except MemoryError:
        _say_error(f"{name}: there is not enough memory; make the picture smaller.")
        return FAILED
    except Exception as error:  # one bad file does not stop the others
        first_line = (str(error).strip() or "no further message").splitlines()[0]
        _say_error(f"{name}: failed with {type(error).__name__}: {first_line}")
        return FAILED
    return 0


@contextmanager
def _bad_input() -> Iterator[None]:
    from .errors import Blur2SeqError

    try:
        yield
    except Blur2SeqError as error:
        _stop(str(error))


def _stop(message: str) -> NoReturn:
    _say_error(message)
    raise typer.Exit(BAD_INPUT)


def _say_error(message: str) -> None:
    _errors.print(f"error: {message}", markup=False)


@contextmanager
def _progress_bar(count: int) -> Iterator[Callable[[str], Callable[[Progress], None]]]:
    """A bar on the terminal; yields what begins the next of `count` files."""
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    from .progress import Notice

    columns: list[Any] = [
        TextColumn("{task.fields[file]}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False, style="dim"),
    ]
    with Bar(*columns, console=_errors, disable=not _errors.is_terminal) as bar:
        number = 0

        def start(name: str) -> Callable[[Progress], None]:
            nonlocal number
            number += 1
            label = name if count == 1 else f"{name} ({number}/{count})"
            task = bar.add_task("", total=1.0, file=label)

            def report(event: Progress) -> None:
                if isinstance(event, Notice):
                    _errors.print(f"{name}: {event.message}", markup=False)
                bar.update(task, completed=event.fraction, description=event.message)

            return report

        yield start
