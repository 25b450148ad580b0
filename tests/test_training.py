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
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from skimage.data import astronaut, coffee
from torch import Tensor, nn
from typer.testing import CliRunner

import napari_blur2seq as b2s
from napari_blur2seq.cli import app
from napari_blur2seq.errors import OptionError
from napari_blur2seq.estimate import load_estimator, whole_kernels
from napari_blur2seq.estimate.judge import Judge
from napari_blur2seq.estimate.picture_network import PictureNetwork, picture_curves
from napari_blur2seq.fourier import transfer_functions
from napari_blur2seq.models import registry
from napari_blur2seq.models.registry import (
    WeightsError,
    fill,
    load_kernel_network,
    load_picture_network,
    load_restoration,
    weights_to_start,
    write_weights,
)
from napari_blur2seq.motion_blur import local_kernels
from napari_blur2seq.progress import run
from napari_blur2seq.restoration import restore_steps
from napari_blur2seq.restoration.learned import LearnedPrior
from napari_blur2seq.shake import simulate_gyroscope
from napari_blur2seq.training import loop, synthesis
from napari_blur2seq.training.denoiser import MAX_SIGMA, DenoiserTask, add_noise, sample_patches
from napari_blur2seq.training.exact_judging import ExactJudgeTask, _another
from napari_blur2seq.training.exact_judging import _errors as errors_in_cells
from napari_blur2seq.training.judging import (
    PATCH,
    JudgeTask,
    aligned_error,
    candidates,
    quick_restoration,
)
from napari_blur2seq.training.kernels import KernelTask
from napari_blur2seq.training.loop import train
from napari_blur2seq.training.motions import Motions
from napari_blur2seq.training.noise import NoiseTask
from napari_blur2seq.training.restoration import (
    RestorationTask,
    disturbed,
    moved_onto,
    read_again,
)
from napari_blur2seq.training.sharp import load_images
from napari_blur2seq.training.synthesis import Synthesis
from napari_blur2seq.training.tasks import make_task
from napari_blur2seq.training.trajectory import TrajectoryTask

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
    assert len(commands) == 11
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pictures, "my_pictures")
    shutil.copy(recording, "gyro.txt")
    image = coffee()[100:148, 200:264]
    trajectory = b2s.shake.simulate_tremor(image.shape, extent=4.0)
    shaken = b2s.blur(image, trajectory)
    Image.fromarray(shaken).save("photograph.png")
    monkeypatch.setattr(DenoiserTask.__init__, "__kwdefaults__", {"batch": 2, "patch": 64})
    monkeypatch.setattr(KernelTask.__init__, "__kwdefaults__", {"batch": 16})
    tiny = {"batch": 1, "patch": 64, "scored": 1}
    monkeypatch.setattr(RestorationTask.__init__, "__kwdefaults__", tiny)
    tiny = {"batch": 2, "size": 64, "scored": 2, "channels": (8, 8, 8, 16)}
    monkeypatch.setattr(TrajectoryTask.__init__, "__kwdefaults__", tiny)
    for small in (JudgeTask, NoiseTask):
        monkeypatch.setattr(small.__init__, "__kwdefaults__", {"batch": 2, "scored": 2})
    monkeypatch.setattr(ExactJudgeTask.__init__, "__kwdefaults__", {"side": 64, "scored": 2})
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
    assert metadata["estimator"] == "trajectory.safetensors"
    scores = table("runs/restoration.csv")
    started, last = (float(scores[k]["PSNR dB, true motion"]) for k in (0, -1))
    assert started > float(scores[0]["blurry"]) - 3
    assert last == pytest.approx(started, abs=1.5)  # a few steps spoil nothing
    whole = b2s.restore(shaken, trajectory, prior="runs/restoration.safetensors")
    assert np.abs(whole.astype(float) - ours).mean() < 10
    rows = table("runs/kernels.csv")
    assert float(rows[-1]["zero motion px"]) > 0
    assert float(table("runs/judge.csv")[-1]["mean error dB"]) > 0
    assert float(table("runs/exact.csv")[-1]["lost by the choice dB"]) >= 0
    assert float(table("runs/noise.csv")[-1]["divergence"]) > 0


# The restoration end to end


def test_unrolled_steps_are_those_of_the_restoration() -> None:
    """On a patch with one kernel, the network does what `restore` does with the trajectory."""
    network = load_restoration(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in network.parts().values():
            part.factors += 0.02 * torch.randn(part.factors.shape, generator=generator)
    source = Synthesis(
        [torch.from_numpy(astronaut()[::2, ::2].transpose(2, 0, 1).copy())],
        Motions(),
        size=96,
        poses=12,
        most=20,
        uniform=True,
        linear=1.0,
        seed=4,
    )
    pairs = source.batch(6)
    one = int(pairs.rotations.abs().amax((1, 2)).argmax())
    x, y = pairs.principal_point[one].tolist()
    camera = b2s.Camera(float(pairs.focal_length[one]), (x, y), (96, 96))
    trajectory = b2s.Trajectory.from_camera(pairs.rotations[one].double().numpy(), camera)
    assert 4 < trajectory.extent < 20.1
    blurry = pairs.blurry[one]
    kernel = torch.from_numpy(local_kernels(trajectory, [(x, y)]))
    for trust in network.parts():
        sigma = torch.tensor([0.02])
        ours = network(blurry[None], kernel, sigma, trust=trust, margin=24)[0]
        steps = restore_steps(blurry, trajectory, LearnedPrior(network), noise=0.02, trust=trust)
        theirs = run(steps)
        inner = (slice(None), slice(8, -8), slice(8, -8))
        difference = (ours.clamp(0, 1) - theirs)[inner].abs().mean()
        change = (theirs - blurry)[inner].abs().mean()
        assert difference < 0.15 * change


def test_wrong_motions_are_as_wrong_as_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    rotations = Motions().sample(30, 32, generator)
    paths = 2e3 * rotations[..., :2]
    paths = 10 * paths / paths.abs().amax((1, 2), keepdim=True)
    px = torch.linspace(0.2, 2, 30)
    wrong = disturbed(paths, px, generator)
    apart = (wrong - paths).square().sum(2).mean(1).sqrt()
    assert torch.allclose(apart, px, rtol=1e-3)
    assert wrong.mean(1).abs().max() < 1e-3
    read = read_again(paths, load_kernel_network(), generator)
    assert read.shape == paths.shape
    onward, backward = ((read - p).square().sum(2).mean(1) for p in (paths, paths.flip(1)))
    errors = torch.minimum(onward, backward).sqrt()
    assert 0.3 < errors.median() < 0.5 * paths.square().sum(2).mean(1).sqrt().median()


def test_a_shift_is_found_and_undone() -> None:
    sharp = torch.from_numpy(astronaut().transpose(2, 0, 1).copy()).float()[None] / 255
    sharp = torch.nn.functional.avg_pool2d(sharp, 4)
    shifted = 0.5 * (sharp + sharp.roll(1, 3))  # by half a pixel
    inner = (..., slice(6, -6), slice(6, -6))
    before, after = (
        (p - shifted)[inner].square().mean() for p in (sharp, moved_onto(sharp, shifted))
    )
    assert after < 0.3 * before


def test_restoration_learns_from_pairs(pictures: Path, recording: Path, tmp_path: Path) -> None:
    """What serves known motions learns, and what serves doubted ones."""
    task = make_task("restoration", images=pictures, recordings=[recording])
    assert isinstance(task, RestorationTask)
    task._batch, task._patch, task._scored = 1, 64, 1
    network = task.network()
    fill(network, weights_to_start("restoration", "shipped"), "restoration")
    task.begin((0, 0), torch.device("cpu"))
    while network.known.factors.grad is None or network.doubted.factors.grad is None:
        task.loss(network, 0.0).backward()
    assert network.known.factors.grad.abs().max() > 0
    assert network.doubted.factors.grad.abs().max() > 0
    path = write_weights(tmp_path / "whole.safetensors", network)
    again = load_restoration(torch.device("cpu"), path)
    for trust, part in network.parts().items():
        assert again.parts()[trust].schedule().iterations == part.schedule().iterations
    denoiser = weights_to_start("denoiser", str(path))
    assert set(denoiser) == set(network.known.denoiser.state_dict())


# The network from a picture to the trajectory


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 64, 80), (3, 50, 33)])
def test_pictures_of_any_size_have_curves(channels: int, height: int, width: int) -> None:
    network = PictureNetwork((8, 8, 8, 16)).eval()
    assert sum(p.numel() for p in PictureNetwork().parameters()) < 8e6
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(channels, height, width, generator=generator)
    camera = b2s.Camera.for_image((height, width))
    curves, errors = picture_curves(network, picture, camera)
    assert curves.shape[0] == len(errors) >= 1
    assert curves.shape[2] == 3
    assert (errors.diff() >= 0).all()
    cut, _ = picture_curves(network, picture, b2s.Camera(90.0, (-200.0, 300.0), (height, width)))
    assert not torch.allclose(cut[0], curves[0])  # where it lies matters
    if channels == 1:
        colour, _ = picture_curves(network, picture.expand(3, -1, -1), camera)
        assert torch.allclose(colour, curves, atol=1e-5)


def test_the_picture_network_learns_on_dead_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error falls, is foretold, and the weights hold all that was learnt."""
    monkeypatch.setattr(synthesis, "_CROPS_OF_LEAVES", 200)
    task = TrajectoryTask([], [], batch=6, size=64, scored=6, channels=(8, 16, 16, 32))
    torch.manual_seed(0)
    network = task.network()

    def unseen() -> float:
        task.begin((1, 0), torch.device("cpu"))
        with torch.no_grad():
            return float(np.mean([float(task.loss(network, 0.5)) for _ in range(8)]))

    before = unseen()
    task.begin((0, 0), torch.device("cpu"))
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(50):
        optimiser.zero_grad()
        task.loss(network, 0.5).backward()
        optimiser.step()
    assert unseen() < 0.92 * before
    error, zero, expected = task.score(network.eval())
    assert 0 < error < 2 * zero
    assert expected > 0
    path = write_weights(tmp_path / "trajectory.safetensors", network)
    again = load_picture_network(path)
    assert task.score(again) == pytest.approx([error, zero, expected], rel=0.05)


def test_estimators_by_name_and_file(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    path = write_weights(tmp_path / "mine.safetensors", PictureNetwork((8, 8, 8, 16)))
    image = coffee()[100:148, 200:264]
    shaken = b2s.blur(image, b2s.shake.simulate_tremor(image.shape, extent=4.0))
    with monkeypatch.context() as patch:
        patch.setattr(whole_kernels, "uniform_kernel", lambda *_: pytest.fail("kernels"))
        result = b2s.deblur(shaken, estimator=str(path), refine=False, prior="sparse")
    assert result.metadata["estimator"] == "mine.safetensors"
    hypotheses = result.metadata["certainty"]["hypotheses"]
    assert hypotheses
    assert json.loads(json.dumps(result.metadata))  # plain numbers
    with pytest.raises(OptionError, match="No weights of the trajectory network"):
        b2s.deblur(shaken, estimator="network")
    with pytest.raises(WeightsError, match="trajectory network"):
        b2s.deblur(shaken, estimator=str(write_weights(tmp_path / "j.safetensors", Judge())))
    # Once weights are shipped, both are asked.
    monkeypatch.setattr(registry, "available", lambda name: True)
    monkeypatch.setattr(registry, "describe", lambda name: f"{name}.safetensors")
    monkeypatch.setattr(registry, "load_picture_network", lambda: PictureNetwork((8, 8, 16)))
    kernels, network, description = load_estimator("auto")
    assert kernels
    assert network is not None
    assert description == "kernels and trajectory.safetensors"
    assert load_estimator("kernels")[1] is None
    assert not load_estimator("network")[0]


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
        errors.append(float(aligned_error(restored, image[None]).mean()))
    untouched = float(aligned_error(blurry[:, *inside], image[None]).mean())
    assert errors[0] < 0.6 * untouched
    assert errors[1] == pytest.approx(errors[0], rel=0.2)
    assert errors[2] > untouched


def test_the_exact_judges_examples_are_what_they_say(pictures: Path) -> None:
    """The true motion comes first and restores best; a shift is no error."""
    images = load_images(pictures)
    task = ExactJudgeTask(images, images, side=160, scored=8)
    task.begin((0, 0), torch.device("cpu"))
    moving = [e for e in task._examples if e.errors[0, 1].mean() > 1e-3]
    assert len(moving) > 3
    gains = []
    for example in moving:
        restored, blurry = example.errors.mean((2, 3)).unbind(1)
        gains.append((blurry / restored).log())
        assert example.blurry.shape == example.restored.shape == example.residual.shape
    true, others = torch.stack(gains).split([1, 6], 1)
    assert true.median() > 0
    assert (true >= others).float().mean() > 0.7
    assert (true - others).max() > 0.5
    smooth = F.avg_pool2d(torch.rand(1, 172, 172, generator=torch.Generator().manual_seed(0)), 5, 1)
    sharp = smooth[0, 4:164, 4:164]
    assert float(errors_in_cells(smooth[0, 2:162, 1:161], sharp).mean()) < 0.05 * float(sharp.var())


def test_what_may_be_taken_for_a_motion() -> None:
    generator = torch.Generator().manual_seed(0)
    angles = Motions().sample(2, 96, generator).double()
    true, other = angles / angles.abs().amax((1, 2), keepdim=True) * 8
    made = [_another(true, other, 0.6, generator) for _ in range(60)]
    assert all(m.shape == true.shape and float(m.mean(0).abs().max()) < 1e-9 for m in made)
    distances = torch.stack([(m - true).norm() / true.norm() for m in made])
    assert 0 < distances.min() < 0.3
    assert distances.max() > 1
    at_rest = _another(torch.zeros_like(true), other, 0.6, generator)
    assert 0 < float(at_rest.abs().max()) < 60


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
        "leave --start out": ["trajectory", "--images", str(pictures), "--start", "shipped"],
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
