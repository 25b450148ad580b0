"""One training loop for every network: schedule, checkpoints, scores, curves.

A `Task` says what is particular to a network. The loop keeps an average of the weights,
which is what is scored and written at the end, and stops in time: the learning rate follows
the share of the hours that have passed, so a run that is cut off and resumed elsewhere ends
as one that was not.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import OptionError
from ..files import whole_file, write_whole
from ..models.registry import WeightsError, fill, write_weights
from ..plots import scores_plot

_WARM_UP = 200
_LEAST_RATE = 0.02
_AVERAGING = 0.999
_GRADIENT_NORM = 1.0


class Task(Protocol):
    """What is particular to one network.

    Attributes
    ----------
    name : str
        Of the files that are written.
    learning_rate : float
        After the warm-up.
    autocast : bool
        Whether the network may compute in bfloat16.
    scores : tuple of str
        Names of what `score` returns.
    """

    name: str
    learning_rate: float
    autocast: bool
    scores: tuple[str, ...]

    def network(self) -> nn.Module:
        """A new network, its first weights included."""
        ...

    def begin(self, seed: tuple[int, int], device: torch.device) -> None:
        """Called once before the first loss, with another seed each time it is resumed."""
        ...

    def loss(self, network: nn.Module, share: float) -> Tensor:
        """Loss of the next batch, when a share of the hours has passed."""
        ...

    def score(self, network: nn.Module) -> list[float]:
        """Scores on a development set that is always the same."""
        ...


def train(
    task: Task,
    output: Path,
    *,
    hours: float = 1.0,
    resume: bool = False,
    start: Mapping[str, Tensor] | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    save_every: float = 180.0,
    report: Callable[[str], object] = print,
) -> Path:
    """Train and write NAME.pt (checkpoint), NAME.csv, NAME.png and, at the end, the weights.

    Parameters
    ----------
    task : Task
    output : Path
        Folder, made if missing.
    hours : float
        Of the whole schedule, earlier parts included when resumed.
    resume : bool
        Continue from NAME.pt; starts anew where there is none.
    start : mapping of str to Tensor, optional
        Weights to begin with, for fine-tuning.
    device : torch.device
    seed : int
    save_every : float
        Seconds between checkpoints.
    report : callable
        Gets a line of scores at each checkpoint.

    Returns
    -------
    Path
        NAME.safetensors: the averaged weights in half precision.

    Raises
    ------
    OptionError
        If the hours are not positive.
    WeightsError
        If the checkpoint is damaged, or it or the start another network's.
    """
    if not (math.isfinite(hours) and hours > 0):
        raise OptionError(f"The hours must be positive, not {hours:g}.")
    output, device = Path(output), torch.device(device)
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / f"{task.name}.pt"
    torch.manual_seed(seed)
    network = task.network().to(device).train()
    if start is not None:
        fill(network, start, task.name)
    average = deepcopy(network).eval().requires_grad_(False)
    optimiser = torch.optim.Adam(network.parameters(), lr=task.learning_rate, betas=(0.9, 0.99))
    before, step, curve = 0.0, 0, list[list[float]]()
    if resume and checkpoint.exists():
        state = _load(checkpoint, device)
        try:
            network.load_state_dict(state["network"])
            average.load_state_dict(state["average"])
            optimiser.load_state_dict(state["optimiser"])
            before, step, curve = state["seconds"], state["step"], state["curve"]
        except (KeyError, RuntimeError, ValueError) as error:
            raise WeightsError(
                f"{checkpoint} is a checkpoint of another network; choose another folder."
            ) from error
    task.begin((seed, step), device)
    mixed = task.autocast and _bfloat16_pays(device)
    budget = hours * 3600
    begun = saved = monotonic()
    while True:
        now = monotonic()
        seconds = before + now - begun
        share = seconds / budget
        if share >= 1 or now - saved > save_every or not curve:
            curve.append([seconds, step, *task.score(average)])
            names = ("seconds", "step", *task.scores)
            _write_curve(output, task.name, names, curve)
            with whole_file(checkpoint) as temporary:
                torch.save(
                    {
                        "network": network.state_dict(),
                        "average": average.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "seconds": seconds,
                        "step": step,
                        "curve": curve,
                    },
                    temporary,
                )
            values = "  ".join(
                f"{n} {v:.3f}" for n, v in zip(names[2:], curve[-1][2:], strict=True)
            )
            report(f"{seconds:7.0f} s  step {step}  {values}")
            saved = monotonic()
            if share >= 1:
                return write_weights(output / f"{task.name}.safetensors", average)
        warm = min(1.0, (step + 1) / _WARM_UP)
        falling = _LEAST_RATE + (1 - _LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimiser.param_groups:
            group["lr"] = task.learning_rate * warm * falling
        with torch.autocast(device.type, torch.bfloat16) if mixed else nullcontext():
            loss = task.loss(network, share)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), _GRADIENT_NORM)
        optimiser.step()
        step += 1
        decay = min(_AVERAGING, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, value in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)


def _load(path: Path, device: torch.device) -> dict[str, Any]:
    import pickle

    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"The checkpoint {path} is damaged; delete it to start anew.") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} is not a checkpoint; choose another folder.")
    return state


def _write_curve(
    output: Path, name: str, columns: tuple[str, ...], curve: list[list[float]]
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[f"{value:.6g}" for value in row] for row in curve])
    write_whole(output / f"{name}.csv", buffer.getvalue().encode())
    write_whole(output / f"{name}.png", scores_plot(columns, curve))


def _bfloat16_pays(device: torch.device) -> bool:
    """Whether a convolution is clearly quicker in bfloat16: many a CPU is slower in it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Without its own instructions, bfloat16 is so slow that even trying takes seconds.
    if device.type != "cpu" or "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return False
    layer = nn.Conv2d(64, 64, 3, padding=1)
    images = torch.rand(2, 64, 32, 32)
    seconds = {}
    for mixed in (False, True):
        times = []
        for _ in range(4):
            start = perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                layer(images).float().sum().backward()
            times.append(perf_counter() - start)
        seconds[mixed] = min(times)
    return seconds[True] < 0.75 * seconds[False]
