"""Devices."""

from __future__ import annotations

import pytest
import torch

from napari_blur2seq import devices
from napari_blur2seq.errors import OptionError


def test_the_cpu_is_always_there() -> None:
    assert devices.available()[0] == "cpu"
    assert devices.resolve("cpu") == torch.device("cpu")


def test_every_device_offered_can_be_used() -> None:
    for name in devices.available():
        assert torch.ones(2, device=devices.resolve(name)).sum().item() == 2


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        (["cpu"], "cpu"),
        (["cpu", "mps"], "mps"),
        (["cpu", "cuda", "cuda:1"], "cuda"),
    ],
)
def test_auto_takes_the_fastest(
    monkeypatch: pytest.MonkeyPatch, there: list[str], chosen: str
) -> None:
    monkeypatch.setattr(devices, "available", lambda: there)
    assert devices.resolve("auto") == torch.device(chosen)
    assert devices.resolve() == torch.device(chosen)


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "", "CPU"])
def test_absent_devices(name: str) -> None:
    with pytest.raises(OptionError, match="choose one of auto, cpu"):
        devices.resolve(name)


def test_absent_cuda_and_first_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available", lambda: ["cpu"])
    with pytest.raises(OptionError):
        devices.resolve("cuda:0")
    monkeypatch.setattr(devices, "available", lambda: ["cpu", "cuda"])
    assert devices.resolve("cuda:0") == torch.device("cuda", 0)
