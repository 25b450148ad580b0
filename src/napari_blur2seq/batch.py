"""Files in, files out: which pictures are meant, and everything written for one of them."""

from __future__ import annotations

import glob
import json
import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import files
from .errors import ImageError
from .images import value_range
from .memory import Sparing
from .pipeline import Options, Result, deblur_steps
from .progress import Progress, Steps, within
from .trajectory import Trajectory

# What `write_result` adds to the name of a picture.
_ADDED = ("_sharp", "_trajectory", "_sequence")


@dataclass(frozen=True)
class Outputs:
    """Which files are written for a picture, beside the sharp one and its trajectory.

    Parameters
    ----------
    sequence : bool
        The frames as OME-TIFF.
    mp4 : bool
        The frames as video.
    """

    sequence: bool = True
    mp4: bool = False


def find_pictures(inputs: Iterable[str | os.PathLike[str]]) -> tuple[list[Path], list[ImageError]]:
    """Files meant by names of files, folders and patterns, each once, in their order.

    Folders stand for the PNG, JPEG and TIFF files in them, less what this program
    wrote there; patterns (``*``, ``?``, ``[]``, ``**``) for all files they match.

    Returns
    -------
    files : list of Path
    errors : list of ImageError
        One for each input that stands for nothing.
    """
    found: dict[Path, None] = {}
    errors = []
    for name in (os.fspath(item) for item in inputs):
        path = Path(name)
        if path.is_dir():
            matches = sorted(p for p in path.iterdir() if _is_picture(p))
        elif path.exists():
            matches = [path]
        else:
            matches = sorted(p for p in map(Path, glob.glob(name, recursive=True)) if p.is_file())
        if not matches:
            if path.is_dir():
                reason = "holds no PNG, JPEG or TIFF file"
            else:
                reason = "matches no file" if glob.has_magic(name) else "does not exist"
            errors.append(ImageError(f"{name} {reason}; give files, folders or patterns."))
        found.update(dict.fromkeys(matches))
    return list(found), errors


def _is_picture(path: Path) -> bool:
    stem, suffix = files.split_name(path)
    return (
        path.is_file()
        and not stem.startswith(".")
        and suffix.lower().endswith(files.SUFFIXES)
        and not stem.endswith(_ADDED)
    )


def output_names(paths: Iterable[Path]) -> list[str]:
    """A stem for each file's outputs: its own, with a number where that is taken."""
    taken: set[str] = set()
    names = []
    for path in paths:
        stem = name = files.split_name(path)[0]
        number = 1
        while name.lower() in taken:  # some file systems take A and a for one
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.lower())
        names.append(name)
    return names


def deblur_file(
    path: Path,
    folder: Path,
    name: str,
    options: Options,
    outputs: Outputs | None = None,
    starts: Sequence[Trajectory] = (),
) -> Steps[list[Path]]:
    """Deblur one file and write the results: all of them, or none.

    The focal length of the file's EXIF is used unless `options` has one, and its
    exposure time for the times of the trajectory.

    Parameters
    ----------
    path : Path
        The blurry picture.
    folder : Path
        Where to write; exists.
    name : str
        Begins the names of the files written.
    options : Options
    outputs : Outputs, optional
    starts : sequence of Trajectory, optional
        See `pipeline.deblur_steps`.

    Returns
    -------
    list of Path
        The files written, the sharp picture first; the generator's return value.

    Raises
    ------
    Blur2SeqError
        If the picture or an option is of no use.
    OSError
        If a file cannot be written.
    """
    outputs = outputs or Outputs()
    image, metadata = files.read_image(path)
    if options.focal_length is None:
        options = replace(options, focal_length=metadata["focal_length"])
    steps = Sparing(options).steps(lambda chosen: deblur_steps(image, chosen, starts))
    result = yield from within(steps, 0.0, 0.9)
    yield Progress("sequence", 0.9, f"Writing the results of {path.name}")
    suffix = files.split_name(path)[1]
    if suffix.lower() not in (*files.SUFFIXES, ".ome.tif", ".ome.tiff"):
        suffix = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif"}[metadata["format"]]
    # Written to a folder beside them first: a failure leaves nothing behind.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".blur2seq-") as stage:
        _write(Path(stage), name, suffix, image, result, metadata, outputs, path.name)
        written = []
        for file in sorted(
            Path(stage).iterdir(), key=lambda p: not p.stem.startswith(f"{name}_sharp")
        ):
            file.replace(folder / file.name)
            written.append(folder / file.name)
    yield Progress("sequence", 1.0, f"{path.name} is done")
    return written


def _write(
    folder: Path,
    name: str,
    suffix: str,
    image: np.ndarray[Any, Any],
    result: Result,
    metadata: dict[str, Any],
    outputs: Outputs,
    source: str,
) -> None:
    from .plots import trajectory_plot

    trajectory = result.trajectory
    exposure = metadata["exposure"]
    if exposure is not None and len(trajectory) > 1:
        times = trajectory.times - trajectory.times[0]
        trajectory = Trajectory.from_camera(
            trajectory.rotations, trajectory.camera, times * (exposure / times[-1])
        )
    files.write_image(folder / f"{name}_sharp{suffix}", result.sharp, metadata)
    trajectory.save(folder / f"{name}_trajectory.csv")
    plot = trajectory_plot(trajectory, image)
    (folder / f"{name}_trajectory.png").write_bytes(plot)
    frames: Any = result.frames
    if outputs.sequence and outputs.mp4 and frames.dtype.itemsize * math.prod(frames.shape) < 2**28:
        frames = result.sequence  # small enough to keep, rather than to make twice
    if outputs.sequence:
        interval = exposure / (len(trajectory) - 1) if exposure and len(trajectory) > 1 else None
        files.write_sequence_tiff(
            folder / f"{name}_sequence.ome.tif", frames, interval=interval, metadata=metadata
        )
    if outputs.mp4:
        files.write_sequence_mp4(folder / f"{name}_sequence.mp4", frames, limits=value_range(image))
    about = {"source": source, "exposure_s": exposure, **result.metadata}
    (folder / f"{name}_metadata.json").write_text(json.dumps(about, indent=2) + "\n")
