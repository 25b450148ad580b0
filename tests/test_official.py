"""The networks of Blur2seq's authors: architecture, numbers, checkpoint files, use.

The weights here are random numbers that anyone can make again from the keys; the numbers
in ``data`` were computed with them by the authors' implementation.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import time
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.data import coffee
from typer.testing import CliRunner

import napari_blur2seq as b2s
from napari_blur2seq import files, shake
from napari_blur2seq.cli import app
from napari_blur2seq.models import official
from napari_blur2seq.models.registry import WeightsError
from napari_blur2seq.motion_blur import batched_blur, sampling_homographies
from napari_blur2seq.ordering import shortest_path
from napari_blur2seq.pipeline import deblur_steps
from napari_blur2seq.progress import run

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
KEYS = json.loads((DATA / "official_state_dicts.json").read_text())


def fill(network: torch.nn.Module, gain: float) -> None:
    """Numbers that depend on the key alone, of a size that keeps signals alive."""
    for key, value in network.state_dict().items():
        numbers = torch.randn(
            value.shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode()))
        )
        scale = (2 / value[0].numel()) ** 0.5 * gain if value.ndim >= 2 else 0.01
        value.copy_(numbers * scale)


@pytest.fixture(scope="module", autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory, request):
    """Files of both networks in full size."""
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = folder / "trajectory.pkl", folder / "restoration.pkl"
    kinds = (official.TrajectoryNetwork, 0.7), (official.RestorationNetwork, 0.35)
    start = time.perf_counter()
    for path, (kind, gain) in zip(paths, kinds, strict=True):
        network = kind()
        fill(network, gain)
        torch.save(network.state_dict(), path)
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in paths) / 2**20
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"[both networks built, filled, saved ({size:.0f} MiB): {seconds:.1f} s] ", end="")
    yield paths
    for path in paths:
        path.unlink()


@pytest.fixture(scope="module")
def trajectory_network(weights):
    return official.load_trajectory_network(weights[0])


@pytest.fixture(scope="module")
def restoration_network(weights):
    return official.load_restoration_network(weights[1])


@pytest.fixture(scope="module")
def expected():
    with np.load(DATA / "official_parity.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) < tolerance


# Architecture and numbers


@pytest.mark.parametrize(
    ("kind", "name", "millions"),
    [
        (official.TrajectoryNetwork, "trajectory_network", 71.1),
        (official.RestorationNetwork, "restoration_network", 17.0),
    ],
)
def test_keys_and_shapes_are_those_of_the_checkpoints(kind, name, millions):
    with torch.device("meta"):
        state = kind().state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == KEYS[name]
    assert sum(value.numel() for value in state.values()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_rotations_agree(trajectory_network, expected):
    rotations = trajectory_network(expected["image"], expected["focal_length"])
    assert close(rotations, expected["predicted_rotations"])
    assert rotations.std() > 1e-3


def test_blur_and_its_negation_agree(expected):
    homographies = sampling_homographies(expected["rotations"], expected["intrinsics"], (72, 96))
    assert close(batched_blur(expected["image"], homographies), expected["reblurred"])
    negated = batched_blur(expected["image"], homographies, negated=True)
    assert close(negated, expected["transposed_by_negated_offsets"])
    assert not close(negated, expected["reblurred"], 1e-3)


def test_restored_image_agrees(restoration_network, expected):
    restored = restoration_network(
        expected["image"], expected["rotations"], expected["intrinsics"], noise_level=0.01
    )
    assert close(restored, expected["restored"])
    assert not close(restored, expected["image"], 1e-2)


def test_pictures_of_a_batch_do_not_mix(trajectory_network, restoration_network, expected):
    first = expected["image"][..., :40, :50]
    image = torch.cat([first, first.flip(-1)])
    focal = torch.tensor([100.0, 70.0])
    rotations = trajectory_network(image, focal)
    assert close(rotations[1:], trajectory_network(image[1:], focal[1:]), 1e-6)
    poses = torch.cat([expected["rotations"], -0.5 * expected["rotations"]])
    intrinsics = expected["intrinsics"].repeat(2, 1, 1)
    both = restoration_network(image, poses, intrinsics)
    assert close(both[1:], restoration_network(image[1:], poses[1:], intrinsics[1:]), 1e-5)


def test_negated_blur_has_exact_gradients(expected):
    intrinsics = torch.tensor([[[9.0, 0, 4], [0, 9, 3], [0, 0, 1]]], dtype=torch.float64)
    image = torch.rand(1, 1, 7, 9, dtype=torch.float64, requires_grad=True)
    poses = (5 * expected["rotations"][:, 3:6].double()).requires_grad_()

    def blurred(image, poses):
        homographies = sampling_homographies(poses, intrinsics, (7, 9))
        return batched_blur(image, homographies, negated=True)

    with torch.enable_grad():
        assert torch.autograd.gradcheck(blurred, (image, poses))


def test_negated_offsets_are_the_adjoint_of_a_shift():
    """So long a lens that rotations are shifts; nothing near the border."""
    intrinsics = torch.tensor([[[1e6, 0, 20], [0, 1e6, 20], [0, 0, 1]]])
    poses = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0)) * 2e-6
    homographies = sampling_homographies(poses * torch.tensor([1, 1, 0]), intrinsics, (40, 40))
    u, v = torch.zeros(2, 1, 1, 40, 40, dtype=torch.float64)
    u[..., 12:28, 12:28] = torch.rand(16, 16)
    v[..., 12:28, 12:28] = torch.rand(16, 16)
    forward = (batched_blur(u, homographies) * v).sum()
    backward = (u * batched_blur(v, homographies, negated=True)).sum()
    assert float(forward) == pytest.approx(float(backward), rel=1e-6)


# Size of the picture


@pytest.mark.parametrize("shape", [(32, 32), (261, 41), (97, 130)])
def test_bands_do_not_change_the_rotations(trajectory_network, monkeypatch, shape):
    image = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(1))
    whole = trajectory_network(image, torch.tensor([100.0]))
    monkeypatch.setattr(official, "_BAND", 1)
    assert close(trajectory_network(image, torch.tensor([100.0])), whole, 1e-6)


def test_tiles_do_not_change_the_denoised_picture(restoration_network):
    image = torch.rand(1, 3, 33, 330, generator=torch.Generator().manual_seed(2))
    level = torch.full((1, 1, 1, 1), 0.1)
    whole = run(restoration_network.p.steps(image, level, 1024))
    assert whole.shape == image.shape
    assert close(run(restoration_network.p.steps(image, level, 80)), whole, 1e-5)


def test_spans_cover_every_length():
    for length in (8, 64, 216, 1216, 1217, 4000, 4001):
        spans = official._spans(length, 1024)
        assert spans[0][0] == 0 and spans[-1][1] == length
        assert all(a[1] == b[0] for a, b in pairwise(spans))
        assert all(start % 8 == 0 and start < stop for start, stop in spans)


# Checkpoint files


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 90},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"model": {"params": {f"net.{k}": v.half() for k, v in state.items()}}},
    ],
    ids=["wrapped", "prefixed", "both, half precision"],
)
def test_wrapped_and_prefixed_dicts_are_understood(tmp_path, weights, wrap):
    state = torch.load(weights[1], weights_only=True)
    torch.save(wrap(state), tmp_path / "wrapped.pkl")
    loaded = official.load_restoration_network(tmp_path / "wrapped.pkl").state_dict()
    assert list(loaded) == list(state)
    for key, value in state.items():
        assert loaded[key].dtype == torch.float32
        assert torch.allclose(loaded[key], value, rtol=2e-3, atol=1e-6)


def test_each_network_refuses_the_file_of_the_other(weights):
    with pytest.raises(WeightsError, match=r"another network .*; choose the file of the .*traj"):
        official.load_trajectory_network(weights[1])
    with pytest.raises(WeightsError, match=r"another network .*; choose the file of the .*rest"):
        official.load_restoration_network(weights[0])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda state: state.pop("h.mlp.4.bias"), "'h.mlp.4.bias' is missing"),
        (lambda state: state.update({"h.mlp.4.bias": torch.zeros(28)}), r"shape \(28,\)"),
        (lambda state: state.update({"h.mlp.4.bias": 27}), "missing"),
        (lambda state: state.update({"h.more": torch.zeros(3)}), "does not belong"),
    ],
)
def test_almost_fitting_files_are_refused(tmp_path, weights, change, what):
    state = torch.load(weights[1], weights_only=True)
    change(state)
    torch.save(state, tmp_path / "almost.pkl")
    with pytest.raises(WeightsError, match=what):
        official.load_restoration_network(tmp_path / "almost.pkl")


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_in_a_file_does_not_run(tmp_path, form):
    trap, path = tmp_path / "sprung", tmp_path / "trap.pkl"
    content = {"state_dict": {"p.m_head.weight": Trap(trap)}}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match="Python code or objects") as error:
        official.load_restoration_network(path)
    assert not trap.exists()
    assert len(str(error.value).splitlines()) == 1


def test_truncated_files_are_refused(tmp_path, weights):
    whole = weights[1].read_bytes()
    path = tmp_path / "part.pkl"
    for share in (0.0, 1e-7, 1e-4, 0.5, 0.999999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(WeightsError, match="damaged, incomplete"):
            official.load_restoration_network(path)


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0" * 99, b"hello\n", b"<!DOCTYPE html>"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "other.pkl").write_bytes(content)
    with pytest.raises(WeightsError, match="not a file of PyTorch weights"):
        official.load_trajectory_network(tmp_path / "other.pkl")


def test_missing_files_and_folders_are_named(tmp_path):
    for path in (tmp_path / "nothing.pkl", tmp_path):
        with pytest.raises(WeightsError, match="cannot be opened"):
            official.load_trajectory_network(path)


# Order of the poses


def test_poses_are_put_in_the_order_of_time():
    perfect = 0
    for seed in range(10):
        poses = shake.simulate_tremor((480, 640), extent=20.0, seed=seed).rotations
        shuffled = np.random.default_rng(seed).permutation(len(poses))
        order = shuffled[shortest_path(poses[shuffled])]
        assert sorted(order) == list(range(len(poses)))
        perfect += bool((np.abs(np.diff(order)) == 1).all())
    assert perfect >= 8  # a path that crosses itself can be read in two ways


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_poses_have_an_order_too(count):
    points = np.random.default_rng(0).random((count, 3))
    assert sorted(shortest_path(points)) == list(range(count))
    assert sorted(shortest_path(0 * points)) == list(range(count))


# Use


@pytest.fixture(scope="module")
def picture():
    return coffee()[100:148, 200:256]


@pytest.fixture(scope="module")
def result(picture, weights):
    events = []
    result = b2s.deblur(picture, model="official", weights=weights, progress=events.append)
    return result, events


def test_refinement_is_on_top_and_only_when_asked_for(picture, weights, result):
    plain, _ = result
    assert "refinement" not in plain.metadata and not plain.metadata["parameters"]["refine"]
    refined = b2s.deblur(picture, refine=True, model="official", weights=weights)
    assert "objective_db" in refined.metadata["refinement"]
    expected = b2s.refine(picture, plain.trajectory)
    np.testing.assert_allclose(refined.trajectory.rotations, expected.rotations, atol=1e-6)
    assert b2s.pipeline.Options().refine and b2s.pipeline.Options(refine=True).refine


def restored(network, image, trajectory):
    """What the network gives for one picture, (3, H, W)."""
    rotations = torch.tensor(trajectory.rotations)[None]
    return network(image, rotations, torch.tensor(trajectory.camera.matrix)[None])[0]


def test_result_is_that_of_the_networks(
    picture, weights, result, trajectory_network, restoration_network
):
    deblurred, _ = result
    image = torch.from_numpy(picture / np.float32(255)).permute(2, 0, 1)[None]
    predicted = trajectory_network(image, torch.tensor([56.0]))
    poses = deblurred.trajectory
    as_a_set = b2s.Trajectory(predicted[0].numpy(), 56, poses.principal_point, picture.shape[:2])
    assert b2s.metrics.path_error(as_a_set.centered(), poses) < 1e-4
    sharp = restored(restoration_network, image, poses).permute(1, 2, 0).clamp(0, 1)
    assert np.abs((sharp * 255).round().numpy() - deblurred.sharp).max() <= 1


def test_frames_come_from_the_same_warp_as_the_blur(picture, result):
    deblurred, _ = result
    assert deblurred.sequence.shape == (25, *picture.shape)
    mean = deblurred.sequence.astype(float).mean(axis=0)
    assert np.abs(mean - deblurred.reblurred).max() <= 1  # rounding to 8 bits
    assert np.abs(deblurred.trajectory.rotations.mean(axis=0)).max() < 1e-9


def test_poses_lie_along_a_short_path(result):
    poses = result[0].trajectory.rotations
    length = np.linalg.norm(np.diff(poses, axis=0), axis=1).sum()
    best = poses[shortest_path(poses)]
    assert length <= np.linalg.norm(np.diff(best, axis=0), axis=1).sum() * (1 + 1e-6)


def test_metadata_names_the_files(result, weights):
    metadata = result[0].metadata
    assert [text.split()[0] for text in metadata["weights"]] == [path.name for path in weights]
    assert all("SHA-256" in text for text in metadata["weights"])
    assert metadata["parameters"]["weights"] == tuple(str(path) for path in weights)
    json.dumps(metadata)


def test_progress_is_fine_grained(result):
    _, events = result
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(events) > 9 * 20
    assert {event.stage for event in events} == {"estimate", "restore", "sequence"}
    previews = [event.preview for event in events if event.preview is not None]
    assert len(previews) == 9
    assert previews[0].shape == result[0].sharp.shape


@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a[..., 0].astype(np.uint16) * 257,
        lambda a: a.astype(np.float32) * 100 - 30,
        lambda a: np.dstack([a, a[..., 0]]),
    ],
    ids=["grey uint16", "float range", "alpha"],
)
def test_same_kind_of_image_out(picture, weights, convert):
    image = convert(picture[:33, :41])
    deblurred = b2s.deblur(image, model="official", weights=weights, n_poses=7)
    assert deblurred.sequence.shape == (7, *image.shape)
    for out in (deblurred.sharp, deblurred.reblurred):
        assert (out.shape, out.dtype) == (image.shape, image.dtype)
        assert out.min() >= min(image.min(), 0) - 1e-3
    if image.dtype == np.uint16:
        assert deblurred.sharp.max() > 257  # the whole range is used
        assert np.unique(deblurred.sharp).size > 256  # and all of its 16 bits


def test_grey_is_colour_repeated(picture, weights, restoration_network):
    grey = picture[:32, :40, 1]
    deblurred = b2s.deblur(grey, model="official", weights=weights)
    poses = deblurred.trajectory
    image = torch.from_numpy(grey / np.float32(255)).expand(1, 3, -1, -1)
    sharp = restored(restoration_network, image, poses).mean(0)
    assert np.abs((sharp.clamp(0, 1) * 255).round().numpy() - deblurred.sharp).max() <= 1


def test_cancel_between_any_two_events(picture, weights):
    steps = deblur_steps(picture, b2s.pipeline.Options(model="official", weights=weights))
    for _ in range(12):
        event = next(steps)
    assert event.stage == "restore"
    steps.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "best"}, "no model"),
        ({"model": "official"}, "needs its weights"),
        ({"model": "official", "weights": "file.pkl"}, "two files"),
        ({"model": "official", "weights": ("file.pkl",)}, "two files"),
        ({"weights": ("a.pkl", "b.pkl")}, "model='official'"),
    ],
)
def test_bad_options_are_named(picture, options, message):
    with pytest.raises(b2s.OptionError, match=message):
        b2s.deblur(picture, **options)


def test_command_line_names_what_is_wrong(tmp_path, picture, weights):
    source = tmp_path / "shaken.png"
    files.write_image(source, picture)
    start = ["deblur", str(source), "-o", str(tmp_path / "out"), "--model", "official"]
    swapped = CliRunner().invoke(app, [*start, "--weights", str(weights[1]), str(weights[0])])
    assert swapped.exit_code == 2
    assert "another network" in swapped.stderr
    missing = CliRunner().invoke(app, [*start, "--weights", str(weights[0]), "nothing.pkl"])
    assert missing.exit_code == 2
    assert "no file nothing.pkl" in missing.stderr
    assert not list((tmp_path / "out").glob("*"))


def test_commands_of_the_page_run(tmp_path, picture, weights, monkeypatch):
    page = (ROOT / "docs" / "official_checkpoints.md").read_text(encoding="utf-8")
    files.write_image(tmp_path / "photograph.png", picture[:32, :32])
    for path, name in zip(weights, ("trajectory", "restoration"), strict=True):
        os.link(path, tmp_path / f"{name}_network.pkl")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    scope: dict[str, object] = {}
    exec(compile(code, "official_checkpoints.md", "exec"), scope)
    assert scope["result"].sharp.shape == (32, 32, 3)
    (command,) = re.findall(r"^```console\n\$ (.*?)^```$", page, re.MULTILINE | re.DOTALL)
    words = shlex.split(command.replace("\\\n", " "))
    assert words[0] == "napari-blur2seq"
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, done.stderr
    metadata = json.loads(Path("results", "photograph_metadata.json").read_text())
    assert metadata["parameters"]["model"] == "official"
    assert metadata["weights"][0].startswith("trajectory_network.pkl (SHA-256 ")


@pytest.mark.cuda
def test_cuda_agrees(trajectory_network, restoration_network, expected):
    on_cuda = {name: value.cuda() for name, value in expected.items()}
    rotations = trajectory_network.cuda()(on_cuda["image"], on_cuda["focal_length"])
    restored = restoration_network.cuda()(
        on_cuda["image"], on_cuda["rotations"], on_cuda["intrinsics"]
    )
    trajectory_network.cpu(), restoration_network.cpu()
    assert close(rotations.cpu(), expected["predicted_rotations"], 1e-3)
    assert close(restored.cpu(), expected["restored"], 1e-3)
