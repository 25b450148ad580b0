"""The command line.

Most tests stand a fast estimate in for the real one: they are about files, messages and
exit codes. The last ones run the real thing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from napari_blur2seq import batch, devices, files, shake
from napari_blur2seq.camera import Camera
from napari_blur2seq.cli import app
from napari_blur2seq.errors import ImageError
from napari_blur2seq.images import to_working
from napari_blur2seq.pipeline import FrameSequence, Options, Result
from napari_blur2seq.progress import Progress, Steps
from napari_blur2seq.trajectory import Trajectory

runner = CliRunner()


def picture(shape: tuple[int, ...] = (40, 50, 3), dtype: Any = np.uint8) -> np.ndarray:
    values = np.random.default_rng(0).random(shape)
    return (values * np.iinfo(dtype).max).astype(dtype)


@dataclass
class Fake:
    """Inverts pictures under a tremor; fails as told by a picture's first pixel."""

    seen: list[Options] = field(default_factory=list)
    starts: list[Trajectory] = field(default_factory=list)

    def __call__(
        self, image: np.ndarray, options: Options, starts: Sequence[Trajectory] = ()
    ) -> Steps[Result]:
        self.seen.append(options)
        self.starts = list(starts)
        working, form = to_working(image)
        yield Progress("estimate", 0.5, "halfway")
        mark = int(np.ravel(image)[0])
        if mark == 1:
            raise RuntimeError("the matrix is singular\nand more")
        if mark == 2:
            raise MemoryError
        trajectory = shake.simulate_tremor(
            image.shape, focal_length=options.focal_length, n_poses=options.n_poses
        )
        yield Progress("restore", 1.0, "done")
        frames = FrameSequence(1 - working, trajectory, form)
        return Result(form.encode(1 - working), trajectory, image, {"seed": options.seed}, frames)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    stand_in = Fake()
    monkeypatch.setattr(batch, "deblur_steps", stand_in)
    return stand_in


def save(path: Path, mark: int = 200, **options: Any) -> Path:
    image = picture(**options)
    image[0, 0] = mark
    files.write_image(path, image)
    return path


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def run(*arguments: object) -> Any:
    return runner.invoke(app, [str(a) for a in arguments])


ENDINGS = (
    "_trajectory.csv",
    "_trajectory.png",
    "_sequence.ome.tif",
    "_metadata.json",
)


def outputs(name: str, suffix: str = ".png", *more: str) -> set[str]:
    return {f"{name}_sharp{suffix}", *(f"{name}{e}" for e in (*ENDINGS, *more))}


# What is written


@pytest.mark.parametrize(
    ("suffix", "shape", "dtype"),
    [
        (".png", (40, 51), np.uint8),
        (".png", (40, 51, 4), np.uint16),
        (".tif", (40, 51, 3), np.uint16),
        (".ome.tif", (40, 51), np.uint16),
    ],
)
def test_results_are_like_the_input(
    tmp_path: Path, fake: Fake, suffix: str, shape: tuple[int, ...], dtype: Any
) -> None:
    source = save(tmp_path / f"shaken{suffix}", shape=shape, dtype=dtype)
    image, _ = files.read_image(source)
    result = run("deblur", source, "-o", tmp_path / "out", "--mp4", "--poses", 9, "--seed", 3)
    assert result.exit_code == 0, result.stderr
    out = tmp_path / "out"
    assert names(out) == outputs("shaken", suffix, "_sequence.mp4")
    sharp, _ = files.read_image(out / f"shaken_sharp{suffix}")
    assert sharp.dtype == dtype
    colour = slice(0, 3) if len(shape) == 3 else slice(None)
    expected = np.iinfo(dtype).max - image[..., colour]
    np.testing.assert_array_equal(sharp[..., colour], expected)
    trajectory = Trajectory.load(out / "shaken_trajectory.csv")
    assert len(trajectory) == 9
    assert trajectory.image_shape == (40, 51)
    with tifffile.TiffFile(out / "shaken_sequence.ome.tif") as tiff:
        assert tiff.series[0].shape == (9, *shape)
        assert tiff.series[0].dtype == dtype
    assert Image.open(out / "shaken_trajectory.png").size[0] > 500
    metadata = json.loads((out / "shaken_metadata.json").read_text())
    assert metadata["source"] == source.name
    assert metadata["seed"] == 3


def test_jpeg_stays_jpeg(tmp_path: Path, fake: Fake) -> None:
    source = save(tmp_path / "a.JPG")
    assert run("deblur", source, "-o", tmp_path / "out", "--no-sequence").exit_code == 0
    assert names(tmp_path / "out") == outputs("a", ".JPG") - {"a_sequence.ome.tif"}
    assert files.read_image(tmp_path / "out" / "a_sharp.JPG")[1]["format"] == "JPEG"


def test_a_strange_suffix_becomes_that_of_the_content(tmp_path: Path, fake: Fake) -> None:
    save(tmp_path / "a.png").rename(tmp_path / "a.dat")
    assert run("deblur", tmp_path / "a.dat", "-o", tmp_path / "out").exit_code == 0
    assert names(tmp_path / "out") == outputs("a")


def test_options_reach_the_pipeline(tmp_path: Path, fake: Fake) -> None:
    source = save(tmp_path / "a.png")
    more = "--no-refine --focal-length 700 --device cpu --poses 7 --noise 0.02 --linear --seed 5"
    more += " --value-range 0 4095 --noise-model poisson"
    assert run("deblur", source, "-o", tmp_path, *more.split()).exit_code == 0
    assert run("deblur", source, "-o", tmp_path).exit_code == 0
    assert fake.seen == [
        Options(
            focal_length=700.0, n_poses=7, refine=False, noise=0.02, linear=True, device="cpu",
            seed=5, value_range=(0, 4095), noise_model="poisson",
        ),
        Options(),
    ]  # fmt: skip


def test_the_model_and_its_files_reach_the_pipeline(tmp_path: Path, fake: Fake) -> None:
    source, weights = save(tmp_path / "a.png"), (tmp_path / "t.pkl", tmp_path / "r.pkl")
    for path in weights:
        path.touch()
    done = run("deblur", source, "-o", tmp_path, "--model", "official", "--weights", *weights)
    assert done.exit_code == 0, done.stderr
    assert fake.seen == [Options(model="official", weights=weights)]


def test_exif_tells_focal_length_and_exposure_unless_the_user_does(
    tmp_path: Path, fake: Fake
) -> None:
    exif = Image.Exif()
    exif[271] = "Maker"
    exif.get_ifd(34665).update({0xA405: 35, 0x829A: 0.2})
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=exif)
    for more in ([], ["--focal-length", 99]):
        assert run("deblur", tmp_path / "a.jpg", "-o", tmp_path / "out", *more).exit_code == 0
    film = Camera.from_film_equivalent((40, 50), 35).focal_length
    assert [o.focal_length for o in fake.seen] == [pytest.approx(film), 99]
    trajectory = Trajectory.load(tmp_path / "out" / "a_trajectory.csv")
    assert trajectory.times[0] == 0
    assert trajectory.times[-1] == pytest.approx(0.2)
    with tifffile.TiffFile(tmp_path / "out" / "a_sequence.ome.tif") as tiff:
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
    assert pixels["TimeIncrement"] == pytest.approx(0.2 / 24)


# Which files are meant


def test_folders_patterns_and_files_each_once(tmp_path: Path, fake: Fake) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.png", "a.jpg", "deep/c.tif", ".hidden.png"):
        save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    result = run("deblur", folder, folder / "b.png", f"{folder}/**/c.*", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    expected = outputs("a", ".jpg") | outputs("b") | outputs("c", ".tif")
    assert names(tmp_path / "out") == expected


def test_a_folder_written_to_can_be_read_again(tmp_path: Path, fake: Fake) -> None:
    save(tmp_path / "a.png")
    for _ in range(2):
        assert run("deblur", tmp_path, "-o", tmp_path).exit_code == 0
    assert names(tmp_path) == {"a.png"} | outputs("a")


def test_equal_names_do_not_overwrite_each_other(tmp_path: Path, fake: Fake) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "a.png")
    save(tmp_path / "x" / "A.jpg")
    result = run("deblur", tmp_path / "x", tmp_path / "y", "-o", tmp_path / "out")
    assert result.exit_code == 0
    expected = outputs("A", ".jpg") | outputs("a_2") | outputs("a_3")
    assert names(tmp_path / "out") == expected


def test_names_with_a_pattern_in_them(tmp_path: Path, fake: Fake) -> None:
    source = save(tmp_path / "a[1].png")
    assert run("deblur", source, "-o", tmp_path / "out").exit_code == 0
    assert names(tmp_path / "out") == outputs("a[1]")


# What goes wrong


def bad_picture(kind: str, folder: Path) -> Path:
    path = folder / "bad.tif"
    grey = picture((40, 50)) / 255
    contents: dict[str, Any] = {
        "nan": np.where(grey > 0.9, np.nan, grey),
        "inf": np.where(grey > 0.9, np.inf, grey),
        "constant": np.full((40, 50), 9, np.uint8),
        "small": picture((31, 50)),
        "complex": grey + 1j,
        "labels": picture((40, 50)).astype(np.int64),
        "boolean": grey > 0.5,
        "stack": picture((4, 40, 50)),
    }
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("hello")
    elif kind != "missing":
        tifffile.imwrite(path, contents[kind], photometric="minisblack")
    return path


@pytest.mark.parametrize(
    "kind",
    ["missing", "empty", "text", "nan", "inf", "constant", "small", "complex", "labels",
     "boolean", "stack"],
)  # fmt: skip
def test_bad_pictures_exit_with_2_and_one_sentence(tmp_path: Path, fake: Fake, kind: str) -> None:
    path = bad_picture(kind, tmp_path)
    result = run("deblur", path, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "bad.tif" in result.stderr
    assert "Traceback" not in result.output
    assert names(tmp_path / "out") == set()


@pytest.mark.parametrize(
    "options",
    [
        ["--focal-length", "0"],
        ["--focal-length", "-100"],
        ["--focal-length", "nan"],
        ["--focal-length", "wide"],
        ["--device", "abacus"],
        ["--poses", "1"],
        ["--poses", "-3"],
        ["--noise", "-0.1"],
        ["--noise", "nan"],
        ["--noise", "1.5"],
        ["--value-range", "4095", "0"],
        ["--model", "best"],
        ["--model", "official"],
        ["--model", "official", "--weights", "one.pkl"],
        ["--model", "official", "--weights", "one.pkl", "other.pkl"],
        ["--weights", "one.pkl", "other.pkl"],
        ["--sharpen"],
    ],
    ids=" ".join,
)
def test_bad_options_exit_with_2_before_anything_is_done(
    tmp_path: Path, fake: Fake, options: list[str]
) -> None:
    result = run("deblur", save(tmp_path / "a.png"), "-o", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert result.stderr
    assert names(tmp_path) == {"a.png"}
    assert fake.seen == []


def test_missing_arguments_exit_with_2() -> None:
    for arguments in ([], ["deblur"], ["deblur", "a.png"], ["blur"], ["sharpen"]):
        assert run(*arguments).exit_code == 2


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path, fake: Fake) -> None:
    good, broken = save(tmp_path / "good.png"), save(tmp_path / "broken.png", mark=1)
    last = save(tmp_path / "last.png")
    result = run("deblur", broken, good, last, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert names(tmp_path / "out") == outputs("good") | outputs("last")
    assert result.stderr == (
        "error: broken.png: failed with RuntimeError: the matrix is singular\n"
    )
    result = run("deblur", broken, "nothing*.png", tmp_path / "none.png", good, "-o", tmp_path)
    assert result.exit_code == 2  # bad input says more than a failure
    assert len(result.stderr.splitlines()) == 3
    assert outputs("good") <= names(tmp_path)


def test_out_of_memory(tmp_path: Path, fake: Fake) -> None:
    result = run("deblur", save(tmp_path / "a.png", mark=2), "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "not enough memory" in result.stderr


@pytest.mark.parametrize("fails", ["write_sequence_tiff", "write_sequence_mp4", "write_image"])
def test_nothing_is_left_of_a_file_that_cannot_be_written(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    source = save(tmp_path / "a.png")
    monkeypatch.setattr(files, fails, full)
    result = run("deblur", source, "-o", tmp_path / "out", "--mp4")
    assert result.exit_code == 1
    assert result.stderr == "error: a.png: No space left on device\n"
    assert names(tmp_path / "out") == set()


def test_a_failure_keeps_the_earlier_results(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = save(tmp_path / "a.png"), tmp_path / "out"
    assert run("deblur", source, "-o", out).exit_code == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def unlucky(*args: object, **kwargs: object) -> None:
        raise ImageError("No.")

    monkeypatch.setattr(files, "write_sequence_tiff", unlucky)
    assert run("deblur", source, "-o", out, "--focal-length", 33).exit_code == 2
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_output_that_is_a_file(tmp_path: Path, fake: Fake) -> None:
    source = save(tmp_path / "a.png")
    result = run("deblur", source, "-o", source)
    assert result.exit_code == 2
    assert "cannot be made" in result.stderr
    assert fake.seen == []


# Refining trajectories


def test_refine_hands_trajectories_and_options_over(tmp_path: Path, fake: Fake) -> None:
    source = save(tmp_path / "a.png")
    motions = [shake.simulate_tremor((40, 50), seed=seed, n_poses=7 + seed) for seed in (1, 2)]
    paths = [tmp_path / f"{i}.csv" for i in range(2)]
    for motion, path in zip(motions, paths, strict=True):
        motion.save(path)
    more = "--steps 9 --seconds 2.5 --fit-focal-length --prior sparse --no-sequence --device cpu"
    more += " --value-range 0 4095 --noise-model poisson"
    done = run("refine", source, *paths, "-o", tmp_path / "out", *more.split())
    assert done.exit_code == 0, done.stderr
    assert fake.starts == motions
    options = Options(
        steps=9, seconds=2.5, fit_focal_length=True, prior="sparse", device="cpu", n_poses=9,
        value_range=(0, 4095), noise_model="poisson",
    )  # fmt: skip
    assert fake.seen == [options]
    assert names(tmp_path / "out") == outputs("a") - {"a_sequence.ome.tif"}


@pytest.mark.parametrize(
    "options",
    [["--steps", "0"], ["--seconds", "-1"], ["--device", "abacus"], ["{folder}/text.csv"],
     ["{folder}/none.csv"]],
    ids=" ".join,
)  # fmt: skip
def test_bad_options_of_refine(tmp_path: Path, options: list[str]) -> None:
    source = save(tmp_path / "a.png")
    (tmp_path / "text.csv").write_text("hello\n")
    shake.simulate_tremor((40, 50)).save(tmp_path / "motion.csv")
    options = [o.format(folder=tmp_path) for o in options]
    done = run("refine", source, tmp_path / "motion.csv", *options, "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_refine_says_in_the_metadata_what_each_step_gained(tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", shape=(40, 50, 3))
    shake.simulate_tremor((40, 50), extent=5, n_poses=5).save(tmp_path / "motion.csv")
    done = run(
        "refine", source, tmp_path / "motion.csv", "-o", tmp_path, "--steps", 3, "--no-sequence"
    )
    assert done.exit_code == 0, done.stderr
    metadata = json.loads((tmp_path / "a_metadata.json").read_text())
    heights = metadata["refinement"]["objective_db"]
    assert 1 <= len(heights) <= 4 and heights == sorted(heights)
    assert metadata["parameters"]["steps"] == 3
    assert len(Trajectory.load(tmp_path / "a_trajectory.csv")) == 5


# Shaking pictures


def test_blur_writes_the_picture_and_its_motion(tmp_path: Path) -> None:
    source = save(tmp_path / "sharp.png", shape=(64, 80, 3))
    result = run("blur", source, "-o", tmp_path / "out", "--extent", 9, "--seed", 4)
    assert result.exit_code == 0, result.stderr
    ending = ("_blurry.png", "_blurry_trajectory.csv", "_blurry_trajectory.png")
    assert names(tmp_path / "out") == {f"sharp{e}" for e in ending}
    motion = Trajectory.load(tmp_path / "out" / "sharp_blurry_trajectory.csv")
    assert motion.extent == pytest.approx(9)
    assert motion == shake.simulate_tremor((64, 80), extent=9, seed=4)
    blurry, _ = files.read_image(tmp_path / "out" / "sharp_blurry.png")
    assert blurry.shape == (64, 80, 3)
    assert blurry.std() < 0.6 * picture((64, 80, 3)).std()

    # The same motion from the file, to a name of our choice.
    again = tmp_path / "other" / "again.png"
    motion_file = tmp_path / "out" / "sharp_blurry_trajectory.csv"
    assert run("blur", source, "-o", again, "--trajectory", motion_file).exit_code == 0
    assert names(again.parent) == {"again.png", "again_trajectory.csv", "again_trajectory.png"}
    np.testing.assert_array_equal(files.read_image(again)[0], blurry)
    assert Trajectory.load(again.parent / "again_trajectory.csv") == motion


@pytest.mark.parametrize(
    "options",
    [
        ["--exposure", "0"],
        ["--amplitude", "-1"],
        ["--extent", "-4"],
        ["--poses", "0"],
        ["--focal-length", "nan"],
        ["--device", "abacus"],
        ["--trajectory", "missing.csv"],
        ["--trajectory", "{folder}/text.csv"],
        ["--trajectory", "{folder}/other.csv"],
        ["--noise", "-0.5"],
        ["--noise", "nan"],
    ],
    ids=" ".join,
)
def test_bad_options_of_blur(tmp_path: Path, options: list[str]) -> None:
    source = save(tmp_path / "sharp.png")
    (tmp_path / "text.csv").write_text("hello\n")
    shake.simulate_tremor((99, 99)).save(tmp_path / "other.csv")
    options = [o.format(folder=tmp_path) for o in options]
    result = run("blur", source, "-o", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_blur_refuses_what_is_no_picture(tmp_path: Path) -> None:
    result = run("blur", tmp_path / "none.png", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


# Demonstration, version, help


def test_demo_writes_everything_it_names(tmp_path: Path, fake: Fake) -> None:
    result = run("demo", "-o", tmp_path / "demo")
    assert result.exit_code == 0, result.stderr
    named = {word.rstrip(",") for word in result.stdout.split() if str(tmp_path) in word}
    assert len(named) > 15
    for path in named:
        assert Path(path).stat().st_size > 0
    for name in ("clock", "coffee"):
        expected = outputs(name, ".png", "_sequence.mp4", "_before_after.png", ".png")
        assert expected <= names(tmp_path / "demo")
    assert "PSNR" in result.stdout
    assert "path error" in result.stdout


def test_version() -> None:
    from importlib.metadata import version

    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout == f"napari-blur2seq {version('napari-blur2seq')}\n"


def python(*arguments: str) -> Any:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["", "deblur", "blur", "demo"])
def test_help_imports_nothing_heavy(command: str) -> None:
    program = (
        "import sys\n"
        f"sys.argv = ['napari-blur2seq', *{command.split()!r}, '--help']\n"
        "from napari_blur2seq.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = {'torch', 'scipy', 'skimage', 'matplotlib', 'napari', 'qtpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = python("-c", program)
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout


# The real thing


def test_deblur_for_real(tmp_path: Path) -> None:
    from skimage import data

    # Smaller pictures say too little of their motion to be sure of one.
    sharp = data.coffee()[80:280, 200:440]
    files.write_image(tmp_path / "sharp.png", sharp)
    assert (
        run("blur", tmp_path / "sharp.png", "-o", tmp_path / "a.png", "--extent", 9).exit_code == 0
    )
    device = ("--device", "cpu")
    done = python(
        "-m", "napari_blur2seq", "deblur", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"),
        *device, "--no-refine",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "out") == outputs("a")
    blurry, _ = files.read_image(tmp_path / "a.png")
    result, _ = files.read_image(tmp_path / "out" / "a_sharp.png")
    assert result.shape == blurry.shape
    steepness = [np.abs(np.diff(i.astype(float), axis=1)).mean() for i in (blurry, result)]
    assert steepness[1] > steepness[0]
    motion = Trajectory.load(tmp_path / "out" / "a_trajectory.csv")
    assert 1 < motion.extent < 20


def test_absent_device_for_real(tmp_path: Path) -> None:
    absent = next(name for name in ("mps", "cuda:7") if name not in devices.available())
    done = python(
        "-m", "napari_blur2seq", "deblur", "a.png", "-o", str(tmp_path), "--device", absent
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert absent in done.stderr
