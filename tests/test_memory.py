"""Where the memory is full: smaller tiles, then the CPU, and the user is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from imageio.v3 import imwrite
from skimage.data import coffee

import napari_blur2seq as b2s
from napari_blur2seq import memory, pipeline
from napari_blur2seq.estimate.certainty import Certainty
from napari_blur2seq.estimate.kernel_based import Estimate
from napari_blur2seq.memory import SMALL_TILE, Sparing
from napari_blur2seq.pipeline import Options
from napari_blur2seq.progress import Notice, Progress, run
from napari_blur2seq.restoration.denoiser import Denoiser


@pytest.fixture
def blurry(monkeypatch) -> np.ndarray:
    """Wider than a small tile; its motion is given away, which takes an estimate a minute."""
    sharp = coffee()[100:148, 100:420, 1]
    motion = b2s.shake.simulate_tremor(sharp.shape, extent=5.0, seed=2)

    def known(*_):
        yield Progress("estimate", 1.0, "Known")
        return Estimate(motion, True, Certainty(8.0, 0.5, 2.0, 1.0, 0.5, 5.0, 0.3))

    monkeypatch.setattr(pipeline, "_estimate", known)
    return b2s.blur(sharp, motion)


@pytest.fixture
def narrow(monkeypatch) -> list[int]:
    """A device on which no block wider than a small one finds room; the widths it was asked for."""
    forward, widths = Denoiser.forward, []

    def full(self, image, sigma):
        widths.append(image.shape[-1])
        if image.shape[-1] > SMALL_TILE + 64:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(self, image, sigma)

    monkeypatch.setattr(Denoiser, "forward", full)
    return widths


def test_the_same_in_smaller_tiles(blurry, narrow):
    told = []
    result = b2s.deblur(
        blurry, refine=False, progress=lambda e: told.append(e) if isinstance(e, Notice) else None
    )
    assert max(narrow) > SMALL_TILE + 64 and narrow[-1] <= SMALL_TILE + 64
    assert [event.message for event in told] == [
        "The memory is full: trying once more, in smaller tiles."
    ]
    assert result.metadata["parameters"]["tile"] == SMALL_TILE
    asked = b2s.deblur(blurry, refine=False, tile=SMALL_TILE)
    np.testing.assert_array_equal(result.sharp, asked.sharp)


def test_the_command_line_says_so(blurry, narrow, tmp_path, capsys, monkeypatch):
    from napari_blur2seq.cli import main

    imwrite(tmp_path / "shot.png", blurry)
    words = ["deblur", str(tmp_path / "shot.png"), "-o", str(tmp_path), "--no-refine"]
    monkeypatch.setattr("sys.argv", ["napari-blur2seq", *words, "--no-sequence"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert "shot.png: The memory is full" in capsys.readouterr().err
    assert (tmp_path / "shot_sharp.png").exists()


@pytest.fixture
def gpu(monkeypatch) -> None:
    """As if this machine had one, and preferred it."""
    monkeypatch.setattr(
        memory, "resolve", lambda name: torch.device("cpu" if name == "cpu" else "cuda")
    )


def test_then_the_cpu_and_what_was_too_much_is_not_tried_again(gpu):
    tried, fractions = [], []

    def work(options):
        tried.append((options.device, options.tile))
        yield Progress("restore", 0.5 / len(tried), "at work")
        if options.device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    sparing = Sparing(Options())
    assert run(sparing.steps(work), lambda e: fractions.append(e.fraction)) == "done"
    assert tried == [("auto", None), ("auto", SMALL_TILE), ("cpu", SMALL_TILE)]
    assert fractions == sorted(fractions)
    assert run(sparing.steps(work)) == "done"
    assert tried[3:] == [("cpu", SMALL_TILE)]


@pytest.mark.parametrize(
    ("error", "attempts"), [(MemoryError(), 3), (RuntimeError("size mismatch"), 1)]
)
def test_the_last_error_is_the_user_s(gpu, error, attempts):
    tried = []

    def work(options):
        tried.append(options)
        yield Progress("restore", 0.5, "at work")
        raise error

    with pytest.raises(type(error)):
        run(Sparing(Options()).steps(work))
    assert len(tried) == attempts


def test_tiles_of_the_user_s_choice_are_not_made_larger(gpu):
    tried = []

    def work(options):
        tried.append((options.device, options.tile))
        yield Progress("restore", 0.5, "at work")
        raise MemoryError

    with pytest.raises(MemoryError):
        run(Sparing(Options(tile=100, device="cpu")).steps(work))
    assert tried == [("cpu", 100)]
    with pytest.raises(b2s.errors.OptionError, match="at least"):
        Options(tile=20)
