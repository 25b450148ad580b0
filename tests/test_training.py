"""Training for a few steps on tiny pictures: it learns, stops, resumes, and is of use."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from skimage.data import astronaut, coffee
from torch import Tensor, nn
from typer.testing import CliRunner

import napari_blur2seq as b2s
from napari_blur2seq.cli import app
from napari_blur2seq.errors import OptionError
from napari_blur2seq.fourier import transfer_functions
from napari_blur2seq.models.registry import WeightsError, load_kernel_network
from napari_blur2seq.shake import simulate_gyroscope
from napari_blur2seq.training import loop
from napari_blur2seq.training.denoiser import MAX_SIGMA, DenoiserTask, add_noise, sample_patches
from napari_blur2seq.training.judging import (
    PATCH,
    JudgeTask,
    _error,
    candidates,
    quick_restoration,
)
from napari_blur2seq.training.kernels import KernelTask
from napari_blur2seq.training.loop import train
from napari_blur2seq.training.motions import Motions
from napari_blur2seq.training.tasks import make_task

runner = CliRunner()
SECOND = 1 / 3600


def table(path: str | Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for k, image in enumerate((astronaut()[::4, ::4], coffee()[::4, ::4], astronaut()[:96, :96])):
        Image.fromarray(image).save(folder / f"{k}.png")
    return folder


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    log = simulate_gyroscope(8.0, seed=5)
    path = tmp_path_factory.mktemp("recordings") / "gyro.txt"
    np.savetxt(path, np.c_[log.times, log.rates][::5])
    return path


class Line:
    """Fits a line; counts what is asked of it."""

    name = "line"
    learning_rate = 0.1
    autocast = False
    scores = ("error",)

    def __init__(self) -> None:
        self.seeds: list[tuple[int, int]] = []

    def network(self) -> nn.Module:
        return nn.Linear(1, 1)

    def begin(self, seed: tuple[int, int], device: torch.device) -> None:
        self.seeds.append(seed)
        self.generator = torch.Generator().manual_seed(seed[1])

    def loss(self, network: nn.Module, share: float) -> Tensor:
        x = torch.rand(16, 1, generator=self.generator)
        return (network(x) - 3 * x - 1).square().mean()

    @torch.no_grad()
    def score(self, network: nn.Module) -> list[float]:
        x = torch.linspace(0, 1, 9)[:, None]
        return [float((network(x) - 3 * x - 1).abs().max())]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by half a second at each look."""
    ticks = iter(range(10**9))
    monkeypatch.setattr(loop, "monotonic", lambda: next(ticks) / 2)
    monkeypatch.setattr(loop, "_WARM_UP", 20)


@pytest.mark.usefixtures("clock")
def test_training_lowers_the_error_and_writes_its_curve(tmp_path: Path) -> None:
    lines: list[str] = []
    path = train(Line(), tmp_path, hours=100 * SECOND, save_every=24, report=lines.append)
    rows = table(tmp_path / "line.csv")
    errors = [float(row["error"]) for row in rows]
    assert len(errors) == len(lines) >= 4
    assert errors[-1] < 0.3 * errors[0]
    assert float(rows[-1]["seconds"]) == pytest.approx(100, abs=2)
    with Image.open(tmp_path / "line.png") as curve:
        assert curve.size[0] > 100
    weights = load_file(path)
    assert {w.dtype for w in weights.values()} == {torch.float16}
    assert float(weights["weight"]) == pytest.approx(3, abs=1)
    assert not list(tmp_path.glob(".*"))  # nothing half-written is left


@pytest.mark.usefixtures("clock")
def test_training_is_resumed_where_it_stopped(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(line: str) -> None:
        if "step 0" not in line:
            raise Stop

    with pytest.raises(Stop):
        train(Line(), tmp_path, hours=100 * SECOND, save_every=30, report=stop)
    before = torch.load(tmp_path / "line.pt", weights_only=True)
    assert 0 < before["seconds"] < 60
    again = Line()
    train(again, tmp_path, hours=100 * SECOND, resume=True, save_every=30, report=quiet)
    assert again.seeds == [(0, before["step"])]  # not the same batches once more
    seconds = [float(row["seconds"]) for row in table(tmp_path / "line.csv")]
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(100, abs=2)
    assert torch.load(tmp_path / "line.pt", weights_only=True)["step"] > before["step"]


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("damage", ["cut", "other"])
def test_checkpoints_that_cannot_be_resumed_are_named(tmp_path: Path, damage: str) -> None:
    train(Line(), tmp_path, hours=5 * SECOND, report=quiet)
    path = tmp_path / "line.pt"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    else:
        torch.save({"network": {"a": torch.zeros(1)}}, path)
    with pytest.raises(WeightsError, match=r"line\.pt"):
        train(Line(), tmp_path, hours=5 * SECOND, resume=True, report=quiet)


def test_checkpoints_are_never_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'boom')!r}, 'w')",)

    torch.save({"network": Bomb()}, tmp_path / "line.pt")
    with pytest.raises(WeightsError, match="damaged"):
        train(Line(), tmp_path, hours=SECOND, resume=True, report=quiet)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan")])
def test_hours_must_be_positive(tmp_path: Path, hours: float) -> None:
    with pytest.raises(OptionError, match="hours"):
        train(Line(), tmp_path, hours=hours)


# The denoiser


def test_patches_and_noise_for_the_denoiser() -> None:
    generator = np.random.default_rng(0)
    image = torch.from_numpy(astronaut().transpose(2, 0, 1).copy())
    patches = sample_patches([image], 40, 32, generator)
    assert patches.shape == (40, 3, 32, 32)
    grey = (patches[:, :1] == patches).flatten(1).all(1)
    assert 2 <= grey.sum() <= 16
    noisy, sigma = add_noise(patches, generator)
    assert sigma.max() <= MAX_SIGMA
    measured = (noisy - patches).flatten(1).std(1)
    assert torch.allclose(measured, sigma, atol=0.02)
    assert torch.equal((noisy[grey][:, :1] == noisy[grey]).all(), torch.tensor(True))


def test_the_documented_commands_run(
    pictures: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They fine-tune, resume, and what they write is of use."""
    text = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    commands = [shlex.split(line[2:])[1:] for line in text.splitlines() if line.startswith("$ ")]
    assert len(commands) == 5
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pictures, "my_pictures")
    shutil.copy(recording, "gyro.txt")
    image = coffee()[100:148, 200:264]
    trajectory = b2s.shake.simulate_tremor(image.shape, extent=4.0)
    shaken = b2s.blur(image, trajectory)
    Image.fromarray(shaken).save("photograph.png")
    monkeypatch.setattr(DenoiserTask.__init__, "__kwdefaults__", {"batch": 2, "patch": 64})
    monkeypatch.setattr(KernelTask.__init__, "__kwdefaults__", {"batch": 16})
    monkeypatch.setattr(JudgeTask.__init__, "__kwdefaults__", {"batch": 2, "scored": 2})
    ticks = iter(range(0, 10**9, 2000))  # an hour is two looks at the clock
    monkeypatch.setattr(loop, "monotonic", lambda: next(ticks))
    for command in commands:
        result = runner.invoke(app, command)
        assert result.exit_code == 0, result.output
    scores = table("runs/denoiser.csv")
    assert float(scores[0]["PSNR dB at noise 25/255"]) > 24  # that of the shipped weights
    steps = [int(float(row["step"])) for row in scores]
    assert steps == sorted(steps)
    assert 0 < steps[1] < steps[-1]  # resumed
    ours = b2s.restore(shaken, trajectory, prior="runs/denoiser.safetensors")
    shipped = b2s.restore(shaken, trajectory, prior="learned")
    assert 0 < np.abs(ours.astype(float) - shipped).mean() < 20
    metadata = json.loads(Path("results/photograph_metadata.json").read_text())
    assert "denoiser.safetensors" in json.dumps(metadata)
    rows = table("runs/kernels.csv")
    assert float(rows[-1]["zero motion px"]) > 0
    assert float(table("runs/judge.csv")[-1]["mean error dB"]) > 0


def test_the_judges_examples_are_what_they_say() -> None:
    """The true motion restores best, a wrong one worst; a shift is no error."""
    generator = torch.Generator().manual_seed(0)
    true, candidate = candidates(Motions(), load_kernel_network(), 200, generator)
    assert true.shape == candidate.shape
    assert candidate.mean(1).abs().max() < 1e-3
    same = ((true - candidate).abs() < 1e-4).flatten(1).all(1).sum()
    assert 2 <= same <= 30
    side = PATCH + 96
    image = torch.from_numpy(astronaut()[100:, 100:].mean(2) / 255).float()[:side, :side]
    kernel = torch.zeros(1, 11, 11)
    kernel[0, 5, 2:9] = 1 / 7
    inside = (slice(48, -48), slice(48, -48))
    transfer = transfer_functions(kernel, (side, side))
    blurry = torch.fft.irfft2(torch.fft.rfft2(image[None]) * transfer, s=(side, side))
    errors = []
    for k in (kernel, kernel.roll(2, 2), kernel.transpose(1, 2)):
        restored, _ = quick_restoration(blurry[:, *inside], k, torch.full((1, 1, 1), 0.02))
        errors.append(float(_error(restored, image[None]).mean()))
    untouched = float(_error(blurry[:, *inside], image[None]).mean())
    assert errors[0] < 0.6 * untouched
    assert errors[1] == pytest.approx(errors[0], rel=0.2)
    assert errors[2] > untouched


def test_the_documented_python_runs() -> None:
    text = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    exec(compile(block, "training.md", "exec"), {})


def test_what_is_missing_is_said(pictures: Path, tmp_path: Path) -> None:
    output = ["-o", str(tmp_path / "out")]
    cases = {
        "name their folder": ["denoiser"],
        "no PNG, JPEG or TIFF": ["denoiser", "--images", str(tmp_path)],
        "cannot be read": ["kernels", "--gyro", str(tmp_path / "none.txt")],
        "not a file of weights": ["kernels", "--start", str(pictures / "0.png")],
        "no device": ["kernels", "--device", "abacus"],
    }
    for message, words in cases.items():
        result = runner.invoke(app, ["train", *words, *output, "--hours", str(SECOND)])
        assert result.exit_code == 2, result.output
        assert message in result.output
        assert "Traceback" not in result.output
    assert runner.invoke(app, ["train", "parrot", *output]).exit_code == 2


def test_development_pictures_are_not_learnt_from(pictures: Path) -> None:
    task = make_task("denoiser", images=pictures)
    assert isinstance(task, DenoiserTask)
    assert len(task._images) == 2
    assert len(task._development) == 1
    assert not any(torch.equal(a, b) for a in task._images for b in task._development)
    with pytest.raises(OptionError, match="parrot"):
        make_task("parrot")
